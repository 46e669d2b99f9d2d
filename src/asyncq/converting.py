"""Weights for other programs, and from them; and what a weights file holds."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from asyncq.agent import WeightsConfig, network_of, playing_spec, read_weights
from asyncq.checks import flag
from asyncq.config import TrainConfig
from asyncq.curves import settings_of
from asyncq.envs import EnvironmentSpec, action_names
from asyncq.errors import UsageError
from asyncq.flags import OpenInt, OpenStr, plain
from asyncq.storage.exports import save_onnx, save_safetensors
from asyncq.storage.files import read_weights_bytes, refuse_unwritable, refusing_what_fails
from asyncq.storage.keras_file import is_keras_file, save_keras
from asyncq.storage.weights_file import TrainedWeights, save_weights

KINDS = {".h5": ("asyncq", "keras"), ".safetensors": ("safetensors",), ".onnx": ("onnx",)}
"""What files of a name's ending can be."""
ALL_KINDS = tuple(itertools.chain.from_iterable(KINDS.values()))


@dataclass(frozen=True, kw_only=True)
class ConvertConfig(WeightsConfig):
    """Convert weights: asyncq convert FILE OUT. A .h5 becomes a Keras file if it is asyncq's (of networks that
    Keras knew in 2016: trained with --layer-norm False), and asyncq's if it is Keras'; .safetensors and .onnx say what
    they are."""

    output: tyro.conf.Positional[Annotated[str | None, plain("OUT")]] = None
    """File to write."""
    to: OpenStr = None
    """asyncq, keras, safetensors or onnx (default: by the files)."""
    keras_version: OpenInt = None
    """Layout of a Keras file: 1, or 2 for Keras 2 and 3 (default: that of the file the weights came from, else 2)."""

    def __post_init__(self) -> None:
        if self.weights and self.output is None:
            raise UsageError("convert takes both files without --weights, as in: asyncq convert IN.h5 OUT.h5")
        super().__post_init__()
        if self.output is None:
            raise UsageError("name the file to write, as in: asyncq convert IN.h5 OUT.h5")
        if self.to is not None and self.to not in ALL_KINDS:
            raise UsageError(f"--to {self.to} is unknown; choose one of: {', '.join(ALL_KINDS)}")
        if self.keras_version not in (None, 1, 2):
            raise UsageError(f"--keras-version is {self.keras_version}; it must be 1, or 2 for Keras 2 and 3")


@dataclass(frozen=True, kw_only=True)
class InfoConfig(WeightsConfig):
    """Print what is in a weights file, asyncq's or Keras'."""


def convert(config: ConvertConfig) -> int:
    """Write the weights in another format; returns the exit status."""
    weights = _read(config)
    path = Path(config.output or "")
    if path.exists() and path.samefile(config.file):
        raise UsageError(f"{path} is the file to convert; name another one to write")
    refuse_unwritable(path)
    kind = _kind(path, config)
    if config.keras_version and kind != "keras":
        raise UsageError(f"--keras-version is for Keras files, but {path} becomes {kind}; leave it out")
    said = ""
    with refusing_what_fails(path):
        if kind == "asyncq":
            save_weights(path, weights)
        elif kind == "keras":
            save_keras(path, weights, config.keras_version)
            if weights.spec.family != "atari-2016":
                said = f"; it cannot say how frames are made, and is played as in 2016: to play on, keep {config.file}"
        elif kind == "safetensors":
            save_safetensors(path, weights)
        else:
            difference = save_onnx(path, weights, network_of(weights, config.file, config.imports))
            said = f"; onnxruntime's outputs differ from ours by at most {difference:.1g}"
    print(f"{path}: {kind}{said}")
    return 0


def _kind(output: Path, config: ConvertConfig) -> str:
    ending = output.suffix.lower()
    kinds = KINDS.get(ending, ALL_KINDS)
    if config.to is not None:
        if config.to not in kinds:
            raise UsageError(f"{output} ends in {ending}, but --to says {config.to}; change one of them")
        return config.to
    if ending not in KINDS:
        raise UsageError(f"{output} must end in .h5, .safetensors or .onnx, or --to must say what it is")
    if ending == ".h5":
        return "asyncq" if is_keras_file(read_weights_bytes(config.file)) else "keras"
    return kinds[0]


def _read(config: WeightsConfig) -> TrainedWeights:
    """The weights, with the environment that `--env` names. Raises UsageError."""
    weights = read_weights(config)
    if config.env is None:
        return weights
    return dataclasses.replace(weights, spec=playing_spec(weights.spec, config.env, config.imports))


def info(config: InfoConfig) -> int:
    """Print what the file holds; returns the exit status."""
    weights, content = _read(config), read_weights_bytes(config.file)
    trained, keras = weights.config, weights.facts.get("keras")
    writer = "asyncq"
    if keras:
        writer = "Keras 1" if keras["version"] == 1 else "Keras 2 or later"
        writer += f" with {keras['backend']}, {keras['data_format']}"
        writer += "" if is_keras_file(content) else ", converted"
    count = sum(value.size for value in weights.parameters.values())
    own = ":" in (trained.network or "")  # it never learns of --layer-norm
    parts = (", LayerNorm" if trained.layer_norm and not own else "") + (", LSTM" if trained.recurrent else "")
    lines = {
        "file": f"{config.file}, {len(content):,} bytes",
        "written by": writer,
        "environment": _environment(weights.spec),
        "observations": f"{list(weights.spec.observation_shape)} {weights.spec.frame_dtype} ({weights.spec.family})",
        "actions": f"{weights.spec.actions}" + _names(weights.spec, config.imports),
        "method": trained.method,
        "network": f"{trained.network}{parts}, {count:,} parameters",
        "trained": _training(weights),
    }
    if not keras:
        lines["settings"] = _settings(weights)
    if not is_keras_file(content):
        lines["versions"] = ", ".join(f"{package} {version}" for package, version in weights.versions.items())
    for name, text in lines.items():
        print(f"{name:13} {text}")
    width = max(map(len, weights.parameters))
    for name, value in weights.parameters.items():
        print(f"  {name:{width}}  {value.dtype}{list(value.shape)}")
    return 0


def _environment(spec: EnvironmentSpec) -> str:
    skip = "{} to {} at random".format(*spec.random_frame_skip) if spec.random_frame_skip else spec.frame_skip
    sticky = f", sticky actions {spec.sticky:g}" if spec.family.startswith("atari") else ""
    return f"{spec.env_id}, frame skip {skip}{sticky}"


def _names(spec: EnvironmentSpec, imports: tuple[str, ...]) -> str:
    trusted = set(spec.imports) <= set(imports)  # a file alone must not make us run code
    return ": " + ", ".join(action_names(spec)).lower() if spec.family.startswith("atari") and trusted else ""


def _settings(weights: TrainedWeights) -> str:
    """Those that today's defaults are not, as flags."""
    trained, spec = weights.config, weights.spec
    shown_above = {name: getattr(trained, name) for name in ("method", "env", "network", "recurrent")}
    deciding = {name: getattr(trained, name) for name in ("preset", "total_steps", "processes")}
    like_it = TrainConfig(**shown_above, **deciding).resolved(spec.kind, spec.frame_skip)
    today = settings_of(like_it, timed=False) | {name: getattr(TrainConfig, name) for name in ("preset", "total_steps")}
    others = [
        _as_flag(name, value)
        for name, value in settings_of(trained, timed=False).items()
        if value not in (None, today[name]) and name != "precision"
    ]
    return f"today's defaults, but {' '.join(others)}" if others else "today's defaults"


def _as_flag(name: str, value: Any) -> str:
    if isinstance(getattr(TrainConfig, name), bool):
        return flag(name if value else f"no_{name}")
    return " ".join([flag(name), *map(str, value if isinstance(value, tuple) else (value,))])


def _training(weights: TrainedWeights) -> str:
    if "env_steps" not in weights.facts:
        return "the file does not say how long"
    text = f"{weights.facts['env_steps']:,} env steps"
    if "episodic_return" in weights.facts:
        text += f", training return {weights.facts['episodic_return']:.1f}"
    return text
