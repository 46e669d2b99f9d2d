"""What limits a training, and what would help: told from who waits for whom, or from what each part costs alone."""

from __future__ import annotations

from collections.abc import Mapping

HELP = {
    "emulation": "more or faster cores help, or more --processes where environments wait",
    "inference": "a smaller --network or more --envs-per-process helps",
    "learning": "fewer --passes, a larger --batch-size, a smaller --network or a (faster) GPU helps",
}
SHORT = 0.05
"""Waits below this share of the time are the ordinary taking of turns."""


def dearest_part(seconds: Mapping[str, float]) -> str:
    """Of the parts of an env step, by name in `HELP`, the one that costs most, and what would help."""
    part = max(seconds, key=lambda name: seconds[name])
    return f"{part} costs most: {HELP[part]}"


def bottleneck(waits: Mapping[str, float], processes: int, cores: int) -> str:
    """Which side of the queue holds the other up.

    Args:
        waits: shares of the time, 0 to 1: `learner` waited for fragments, `workers` (their mean) for a free slot.
        processes: how many workers there are.
        cores: what they and the learner share.
    """
    learner, workers = waits["learner"], waits["workers"]
    if max(learner, workers) < SHORT:
        return "nobody waits: only more or faster cores help"
    if workers >= learner:
        return f"the learner limits, workers wait {workers:.0%} of the time: {HELP['learning']}"
    advice = "more --processes help" if processes < cores else HELP["emulation"]
    return f"the workers limit, the learner waits {learner:.0%} of the time: {advice}"
