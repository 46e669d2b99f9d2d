"""What a training is asked to do: one frozen dataclass, from which come the flags and `config.json`.

`resolved` fills in from `defaults.py` what was left open and method and kind of observation decide, `training.settle`
the precision; in other fields None means what they say. `checks.py` refuses values that cannot work.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from asyncq.checks import check, check_kind, flag
from asyncq.defaults import FRAME_SIZES, open_settings
from asyncq.errors import UsageError
from asyncq.flags import (
    Assignments,
    AutoBool,
    AutoFloat,
    AutoFloats,
    AutoInt,
    AutoStr,
    Imports,
    OpenFloat,
    OpenStr,
    alias,
)
from asyncq.machine import usable_cores

SHORTEST_SEQUENCE, LONGEST_SEQUENCE = 5, 20
"""Of the sequences chosen for an LSTM, in env steps: the paper's t_max without one and with one."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Train an agent: worker processes play, one learner learns. --config FILE takes all settings from an earlier
    run's config.json; flags beside it change single ones. Where the default depends on something, the word auto asks
    for it."""

    method: str = "a3c"
    """one-step-q, one-step-sarsa, n-step-q or a3c."""
    preset: str = "fast"
    """Where settings that are left open come from: fast, whose values are the defaults told below, or paper, those of
    Mnih et al. 2016."""
    env: Annotated[str, alias("--game")] = "ALE/Pong-v5"
    """Gymnasium id with discrete actions and image or vector observations."""
    imports: Imports = ()
    """Modules that register third-party environments; imported in every process that makes some."""
    env_kwargs: Assignments = ()
    """Arguments of the environment's constructor, as NAME=VALUE, for environments other than Atari."""
    processes: AutoInt = None
    """Worker processes (default: one a core, as affinity and a container's quota grant them)."""
    envs_per_process: AutoInt = None
    """Environments that each worker steps together (default: 16 for images, 8 for vectors)."""
    total_steps: int = 10_000_000
    """Env steps (agent decisions) to train for."""
    target_return: OpenFloat = None
    """Stop early once the mean raw return of the last 100 training episodes reaches this (default: never)."""
    seed: int = 1
    """Seed of environments, weights and exploration."""
    run_dir: OpenStr = None
    """Directory of this run (default: runs/<env>__<method>__<seed>__<time>)."""

    n_step: AutoInt = None
    """Env steps in a row in a fragment: the longest return is this long (the paper's t_max) (default: by method)."""
    batch_size: AutoInt = None
    """Env steps an update learns from; a3c: of whole fragments, so --n-step if that is more (default: by method)."""
    passes: AutoInt = None
    """Times that each fragment is learned from (default: by method)."""
    gamma: float = 0.99
    """Discount of future rewards, per env step."""
    trace_lambda: AutoFloat = None
    """Mixes returns of all lengths, as in TD(lambda); 1 is the n-step return alone (default: by method)."""
    learning_rate: Annotated[AutoFloat, alias("--lr")] = None
    """Initial step size; falls to --final-learning-rate over --learning-rate-anneal-steps (default: by method)."""
    final_learning_rate: AutoFloat = None
    """Last step size (default: 1e-4 for a3c on images, else 0)."""
    learning_rate_schedule: AutoStr = None
    """How the step size falls: linear, or exponential, by the same factor in equal times (default: exponential for a3c
    on images, else linear)."""
    learning_rate_anneal_steps: AutoInt = None
    """Env steps over which the step size falls, which may be more than the run has (default: all it has)."""
    optimizer: AutoStr = None
    """muon, adam, radam or rmsprop; its statistics are shared by all workers' experience (default: by method)."""
    optimizer_epsilon: AutoFloat = None
    """Added to the optimizer's denominator, rmsprop: under its root (default: 1e-8 for the Q methods on images,
    else 1e-5)."""
    max_grad_norm: AutoFloat = None
    """Longest gradient (L2 norm of all parameters); 0 for no limit (default: by method)."""

    entropy_coefficient: Annotated[AutoFloat, alias("--beta")] = None
    """a3c: weight of the entropy bonus at the start (default: 0.01)."""
    final_entropy_coefficient: AutoFloat = None
    """a3c: its weight from --entropy-anneal-steps on (default: 0.003 for images, 0.01 for vectors)."""
    entropy_anneal_steps: AutoInt = None
    """a3c: env steps over which the weight of the entropy bonus falls, linearly; at most all (default: 1.5M)."""
    exploration_persistence: AutoFloats = None
    """a3c: env steps, on average, for which an environment samples its actions with the same random numbers: with more
    than 1, moves that are tried last longer. Environments take the values in turn; returns are reported of those with
    the least only (default: 4 for images, 1 1 1 8 for
    vectors)."""
    value_coefficient: float = 0.5
    """a3c: weight of the value loss."""
    normalise_advantages: AutoBool = None
    """a3c: divide the advantages by the root of the mean of their squares over the last updates (default: for
    vectors)."""
    policy_clip: AutoFloat = None
    """a3c: how far from the policy that played, as in PPO, a step counts no more; 0 for no limit, but V-trace's weight,
    the ratio of the policies, at most 1 (default: 0.2)."""
    correction: AutoStr = None
    """a3c: correction for fragments played with older weights: vtrace, or none, which takes the values for its
    targets as the workers' networks gave them (default: vtrace for images, none for vectors)."""

    epsilon_initial: float = 1.0
    """Q methods: share of random actions at the start."""
    epsilon_final: AutoFloats = None
    """Q methods: final shares of random actions; each environment samples one of them (default: 0.01 for images,
    0.1 0.01 0.5 for vectors)."""
    epsilon_probabilities: AutoFloats = None
    """Q methods: probability of each of --epsilon-final (default: equal; 0.4 0.3 0.3 for vectors)."""
    epsilon_anneal_frames: AutoInt = None
    """Q methods: frames until the final epsilon is reached (default: 1M, at most a tenth of the run)."""
    target_interval: AutoInt = None
    """Q methods: env steps between copies into the target network; 0 for none: the newest weights are the target
    (default: by method)."""

    double: bool = False
    """Q-learning with a target network: the network itself chooses the action whose value the target network gives."""
    dueling: bool = False
    """Q methods: the network's action values are a state value plus each action's advantage."""

    queue_size: int = 1
    """Fragments that each worker's lane of the queue holds; the bound on how stale experience can be."""
    publish_interval: Annotated[int, alias("--swap-freq")] = 1
    """Updates between broadcasts of the weights to the workers."""
    reward_scale: AutoFloat = None
    """Multiplies rewards before they are clipped and learned from; reported returns stay raw (default: 0.1 for a3c on
    vectors, else 1)."""
    reward_clip: AutoFloat = None
    """Largest absolute reward learned from; 0 for no limit (default: 1 for images, none for vectors)."""
    life_loss_ends: AutoBool = None
    """Atari: learn as if losing a life ended the episode; play and report full games all the same (default: for
    images)."""

    network: AutoStr = None
    """a3c (the paper's), nature, impala or small for images, mlp for vectors; or your own, as MODULE:CLASS (default:
    mlp for vectors, small for 1-step Q and SARSA on images, else a3c)."""
    layer_norm: AutoBool = None
    """Normalise the activations of every hidden layer (default: True, with --preset paper False)."""
    recurrent: bool = False
    """An LSTM between the network and its heads, which remembers the game so far."""
    sequence_length: AutoInt = None
    """--recurrent: env steps in a row that gradients go back through, a divisor of --n-step (default: the largest one
    up to 20)."""
    frame_stack: AutoInt = None
    """Newest frames in one observation (default: 4 for images, 1 for vectors and with --recurrent)."""
    frame_size: AutoInt = None
    """Side of the square frames that images are resized to, in pixels (default: 42 for the network small, else 84)."""
    frame_skip: AutoInt = None
    """Frames that each action lasts (default: 4 for Atari, whatever its id says; else 1)."""

    device: str = "auto"
    """The learner's device: auto, cpu or cuda."""
    precision: AutoStr = None
    """The arithmetic of learning and acting: float32 or bf16 (default: bf16 for images where a GPU, AMX or AVX-512
    BF16 multiplies it, else float32)."""
    save_interval: Annotated[int, alias("--save-freq")] = 1_000_000
    """Env steps between weights files, and between saved states."""
    keep: int = 2
    """States to keep, the newest ones; --resume goes on from them."""
    resume: OpenStr = None
    """Go on with a run: its directory; or auto, to go on with --run-dir where there is a run, else begin it."""
    worker_timeout: float = 120.0
    """Seconds without a sign of life after which a worker counts as hanging, and is replaced; at least 600
    while it starts."""
    max_restarts: int = 100
    """How many workers that died or hung are replaced until the learner ends; one more ends the run."""
    max_learner_restarts: int = 0
    """Times that a learner which died or hung starts again, with new workers, from the newest saved state."""
    deterministic: bool = False
    """One worker, in step with the learner: the run repeats bit for bit on the same machine, also when it was stopped
    and resumed. Games begin anew at every --save-interval, and a resumed run goes back to the last one. Slow."""
    report_interval: float = 5.0
    """Seconds between reports; a run's first ones come sooner."""
    quiet: bool = False
    """Print only warnings, errors, restarts, where a run goes on, that it stops, and where the results are."""

    def __post_init__(self) -> None:
        """Refuse what cannot work. Raises UsageError with the reason."""
        check(self)

    def learning_rate_at(self, env_steps: int) -> float:
        """Step size after `env_steps`."""
        steps = self.learning_rate_anneal_steps or self.total_steps
        start, end = self.learning_rate, self.final_learning_rate
        if self.learning_rate_schedule == "exponential":
            assert start and end
            return float(start * (end / start) ** min(1.0, env_steps / steps))
        return float(self._falling(start, end, env_steps, steps))

    def entropy_coefficient_at(self, env_steps: int) -> float:
        """Weight of the entropy bonus after `env_steps`."""
        assert self.entropy_anneal_steps
        steps = min(self.entropy_anneal_steps, self.total_steps)
        return float(self._falling(self.entropy_coefficient, self.final_entropy_coefficient, env_steps, steps))

    def epsilon_at(self, env_steps: int, final: Any) -> Any:
        """Share of random actions after `env_steps`, on its way to `final`, a number or an array."""
        assert self.frame_skip and self.epsilon_anneal_frames is not None
        return self._falling(
            self.epsilon_initial, final, env_steps * self.frame_skip, max(1, self.epsilon_anneal_frames)
        )

    def _falling(self, start: float | None, end: Any, done: int, over: int) -> Any:
        """From `start` linearly to `end`, while `done` goes from 0 to `over`; then `end`."""
        assert start is not None and end is not None
        return end + (start - end) * max(0.0, 1 - done / over)

    def resolved(self, kind: str, frame_skip: int) -> TrainConfig:
        """Fill every open field for observations of `kind` "image" or "vector" and the environment's frame skip.

        Raises UsageError where `kind`, or a default, and a given value cannot work together.
        """
        check_kind(self, kind)
        processes = self.processes or (1 if self.deterministic else usable_cores())
        defaults = open_settings(self.preset, self.method, kind, processes)
        defaults |= {"processes": processes, "frame_skip": frame_skip}
        defaults.setdefault("epsilon_anneal_frames", min(1_000_000, self.total_steps * frame_skip // 10))
        if kind == "image":
            defaults["frame_size"] = FRAME_SIZES.get(self.network or defaults["network"], 84)
        for name in ("learning_rate", "entropy_coefficient"):  # one that is given may lie below its default end
            if getattr(self, name) is not None:
                defaults[f"final_{name}"] = min(getattr(self, name), defaults[f"final_{name}"])
        if self.final_learning_rate == 0:
            defaults["learning_rate_schedule"] = "linear"
        if self.epsilon_final and self.epsilon_final != defaults["epsilon_final"]:
            defaults["epsilon_probabilities"] = (1 / len(self.epsilon_final),) * len(self.epsilon_final)
        if self.recurrent:
            defaults["frame_stack"] = 1  # the network remembers the older ones itself
            defaults["sequence_length"] = self.sequence_length or _sequence_length(self.n_step or defaults["n_step"])
        missing = {name: value for name, value in defaults.items() if getattr(self, name) is None}
        settled = dataclasses.replace(self, **missing)
        if self.batch_size is None and settled.queue_steps < defaults["batch_size"]:
            settled = dataclasses.replace(settled, batch_size=settled.queue_steps)
        return settled

    @property
    def queue_steps(self) -> int:
        """Env steps that the queue holds when all of its slots are full."""
        assert self.processes and self.n_step and self.envs_per_process
        return self.processes * self.queue_size * self.n_step * self.envs_per_process

    def without_place(self) -> TrainConfig:
        """The same for a run in any directory, of which a file that may move elsewhere should not tell."""
        return dataclasses.replace(self, run_dir=None, resume=None)

    def to_json(self) -> dict[str, Any]:
        """Plain values, as `config.json` and the weights file hold them."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Any) -> TrainConfig:
        """Raises UsageError if `values` is no dict, or holds a setting that does not exist or cannot be."""
        if not isinstance(values, dict):
            raise UsageError("the configuration is no JSON object")
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise UsageError(f"unknown settings in the configuration: {', '.join(unknown)}")
        arguments: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
        for name, kind in get_type_hints(cls).items():
            if name not in arguments or _fits(arguments[name], kind):
                continue
            arguments[name] = (values[name],)  # one value where several may stand
            if not _fits(arguments[name], kind):
                raise UsageError(f"{name} in the configuration is {values[name]!r}, of another type than {flag(name)}")
        return cls(**arguments)


def _fits(value: Any, kind: Any) -> bool:
    """Whether `value` is of the type `kind`: a plain one, a tuple of any length, or one of them or None."""
    if isinstance(kind, UnionType):
        return any(_fits(value, single) for single in get_args(kind))
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_fits(item, get_args(kind)[0]) for item in value)
    return type(value) is kind or (kind is float and type(value) is int)


def _sequence_length(n_step: int) -> int:
    """The longest that divides `n_step`. Raises UsageError if gradients would hardly go back at all."""
    length = max(length for length in range(1, LONGEST_SEQUENCE + 1) if n_step % length == 0)
    if length < min(n_step, SHORTEST_SEQUENCE):
        wanted = f"sequences of {SHORTEST_SEQUENCE} to {LONGEST_SEQUENCE} steps"
        raise UsageError(f"--n-step {n_step} cannot be cut into {wanted}; choose another, or give --sequence-length")
    return length
