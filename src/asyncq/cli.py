"""The command line: one configuration dataclass a command, and its fields are the flags."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import difflib
import errno
import io
import itertools
import os
import re
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import docstring_parser
import tyro

from asyncq.checks import refuse_unread
from asyncq.config import TrainConfig
from asyncq.errors import UsageError
from asyncq.flags import NUMBERS
from asyncq.runs import directory_to_resume, read_config

Config = TypeVar("Config")

COMMANDS = {
    "train": "train an agent",
    "play": "watch an agent play, or record it",
    "evaluate": "measure an agent over full games",
    "plot": "draw learning curves of runs",
    "convert": "write weights for Keras, safetensors or ONNX, or take them from Keras",
    "info": "print what is in a weights file",
    "bench": "measure how fast this machine trains, and what limits it",
    "doctor": "look for what will hurt a training on this machine",
}
USAGE = "usage: asyncq COMMAND [FLAGS]\n\ncommands:\n" + "\n".join(
    f"  {name:10} {text}" for name, text in COMMANDS.items()
)

OF_MANY_WORDS = (
    "--import", "--env-kwargs", "--labels", "--epsilon-final", "--epsilon-probabilities", "--exploration-persistence",
)  # fmt: skip
"""Flags of which tyro keeps the last alone, with its words, where they are repeated."""
ELSEWHERE = {
    "--steps": "total_steps", "--timesteps": "total_steps", "--total-timesteps": "total_steps",
    "--workers": "processes", "--num-workers": "processes",
    "--envs": "envs_per_process", "--num-envs": "envs_per_process",
}  # fmt: skip
"""What other programs call a flag, and the field that it is here."""
CHOOSERS = ("method", "preset")
"""They chose what a `config.json` holds, so they cannot change beside it."""
NOT_OUR_FAULT = {
    errno.ENOSPC: "the result cannot be written:",
    errno.EDQUOT: "the result cannot be written:",
    errno.EFBIG: "the result cannot be written:",
    errno.EIO: "the result cannot be written:",
    errno.EACCES: "something is not allowed here:",
    errno.EPERM: "something is not allowed here:",
    errno.ENAMETOOLONG: "the name of a file cannot be used:",
    errno.ENOMEM: "memory is short (ulimit -v):",
    errno.EAGAIN: "no more processes can be started (ulimit -u):",
    errno.EMFILE: "no more files can be opened (ulimit -n):",
}
"""What the machine refuses, and what is said of it where no file's name is known."""


def main() -> None:
    """Run the command line and exit; UsageError becomes one line on stderr and status 2."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started this
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    try:
        status = run(sys.argv[1:])
        sys.stdout.flush()
        sys.exit(status)
    except UsageError as error:
        print("asyncq:", str(error).replace("\n", " "), file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.errno not in NOT_OUR_FAULT:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        what = f"{error.filename}:" if error.filename else NOT_OUR_FAULT[error.errno]
        print("asyncq:", what, error.strerror, file=sys.stderr)
        sys.exit(2)


def run(arguments: Sequence[str]) -> int:
    """Run one command; returns its exit status."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE + "\n\nasyncq COMMAND --help explains a command's flags.")
        return 0
    command, rest = arguments[0], list(arguments[1:])
    if command == "--version":
        print(f"asyncq {version('asyncq')}")
        return 0
    if command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(f"there is no command {command}; choose one of: {', '.join(COMMANDS)}{hint}")
    if "" in rest:
        raise UsageError(f"an argument of {command} is empty; is a variable of the shell not set?")
    runners: dict[str, Callable[[list[str]], int]] = {
        "train": _train, "play": _play, "evaluate": _evaluate, "plot": _plot, "convert": _convert, "info": _info,
        "bench": _bench, "doctor": _doctor,
    }  # fmt: skip
    return runners[command](rest)


def _train(arguments: list[str]) -> int:
    if arguments and not arguments[0].startswith("-"):
        first = arguments[0]
        raise UsageError(f"{first} stands behind no flag; if it is an environment: asyncq train --env {first}")
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config", nargs="?", const="")
    found, flags = finder.parse_known_args(arguments)
    base = base_of(found.config, flags)
    config = parse(TrainConfig, "train", flags, base)
    refuse_unread(config, base or TrainConfig())
    from asyncq.training import refuse_other_kind, train

    if base is not None:
        refuse_other_kind(config, base)
    return train(config)


def base_of(config: str | None, flags: list[str]) -> TrainConfig | None:
    """What the flags change: the configuration of the run that goes on, or else the one in the file `--config`.

    Whether it was quiet is of the command that said so alone.
    """
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--resume", nargs="?")
    finder.add_argument("--run-dir", "--run_dir", nargs="?")
    finder.add_argument("--env", "--game", nargs="?")
    for fixed in CHOOSERS:
        finder.add_argument(f"--{fixed}", nargs="?")
    found, _ = finder.parse_known_args(flags)
    if directory := directory_to_resume(found.resume, found.run_dir):
        if config is not None and found.resume != "auto":
            raise UsageError("--resume takes the run's own configuration; leave --config out")
        base = read_config(directory / "config.json", f"{directory / 'config.json'}")
        for fixed in (*CHOOSERS, "env"):
            if getattr(found, fixed) not in (None, getattr(base, fixed)):
                value = getattr(base, fixed)
                raise UsageError(f"--{fixed} cannot change when a run goes on: in {directory} it is {value}")
        return dataclasses.replace(base, quiet=False)
    if config is None:
        return None
    if not config:
        raise UsageError("--config needs the path of a config.json")
    path = Path(config)
    base = read_config(path / "config.json" if path.is_dir() else path, f"--config {config}")
    for fixed in CHOOSERS:
        if (wanted := getattr(found, fixed)) not in (None, getattr(base, fixed)):
            chose = getattr(base, fixed)
            raise UsageError(f"--config {config} has what {chose} chose; for {wanted} start without --config")
    return dataclasses.replace(base, quiet=False)


def parse(kind: type[Config], command: str, arguments: list[str], default: Config | None = None) -> Config:
    """Turn flags into a configuration of `kind`. Raises UsageError, in one line, where tyro would draw a box."""
    said = io.StringIO()
    settings: dict[str, Any] = {} if default is None else {"default": default}
    names = [word.partition("=")[0].replace("_", "-") for word in arguments if word.startswith("--")]
    refuse_names_of_elsewhere(kind, names)
    for name in OF_MANY_WORDS:
        if names.count(name) > 1:
            raise UsageError(f"{name} is given {names.count(name)} times; give it once, with all of its words")
    unwrap_help(kind)
    try:
        with contextlib.redirect_stderr(said):
            config: Config = tyro.cli(kind, args=arguments, prog=f"asyncq {command}", registry=NUMBERS, **settings)
            return config
    except SystemExit as end:
        if not end.code:
            raise
        raise UsageError(f"{in_one_line(said.getvalue())}; asyncq {command} --help lists the flags") from None


def refuse_names_of_elsewhere(kind: Any, names: list[str]) -> None:
    """Raises UsageError with the name that a flag has here, if it is one of this command's."""
    fields = {field.name for field in dataclasses.fields(kind)}
    for name in names:
        if (field := ELSEWHERE.get(name)) in fields:
            raise UsageError(f"there is no {name}; here it is --{field.replace('_', '-')}")


def unwrap_help(kind: Any) -> None:
    """Hand tyro the docstring of each field as one line: of those that are indented it would keep the line breaks."""
    described = [docstring_parser.parse_from_object(base) for base in reversed(kind.__mro__[:-1])]
    texts = {field.arg_name: field.description or "" for base in described for field in base.params}
    for field in dataclasses.fields(kind):
        field.metadata = MappingProxyType({"help": " ".join(texts[field.name].split())})


def in_one_line(box: str) -> str:
    """What tyro's box of an error says: its first paragraph, without Python's types, and the flag it would suggest."""
    lines = [line.strip("│ ") for line in box.splitlines()[1:]]
    paragraph = " ".join(itertools.takewhile(lambda line: line and not line.startswith("─"), lines))
    reason = re.sub(
        r"no type matching (\{None\}\|)?(.+) could be instantiated from \[(.*)\]\.", r"\3 is no \2", paragraph
    )
    reason = reason.replace("Expected 1 values.", "").rstrip(". ")
    if "Perhaps you meant:" not in lines:
        return reason
    return f"{reason}; perhaps you meant {lines[lines.index('Perhaps you meant:') + 1]}"


def _play(arguments: list[str]) -> int:
    from asyncq.playing import PlayConfig, play

    return play(parse(PlayConfig, "play", arguments))


def _evaluate(arguments: list[str]) -> int:
    from asyncq.evaluating import EvaluateConfig, evaluate

    return evaluate(parse(EvaluateConfig, "evaluate", arguments))


def _plot(arguments: list[str]) -> int:
    from asyncq.plotting import PlotConfig, plot

    return plot(parse(PlotConfig, "plot", arguments))


def _convert(arguments: list[str]) -> int:
    from asyncq.converting import ConvertConfig, convert

    return convert(parse(ConvertConfig, "convert", arguments))


def _info(arguments: list[str]) -> int:
    from asyncq.converting import InfoConfig, info

    return info(parse(InfoConfig, "info", arguments))


def _bench(arguments: list[str]) -> int:
    from asyncq.bench import BenchConfig, bench

    return bench(parse(BenchConfig, "bench", arguments))


def _doctor(arguments: list[str]) -> int:
    from asyncq.doctor import DoctorConfig, doctor

    return doctor(parse(DoctorConfig, "doctor", arguments))
