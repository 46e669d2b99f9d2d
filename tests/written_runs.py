"""Run directories as a training leaves them, written by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from asyncq.config import TrainConfig

SETTINGS = {"method": "a3c", "env": "CartPole-v1", "passes": 2, "frame_skip": 1, "processes": 2}


def a_run(run: Path, points: dict[int, Any], **settings: Any) -> Path:
    """A run's directory with returns at env steps, ten env steps a second."""
    run.mkdir(parents=True)
    (run / "config.json").write_text(json.dumps(TrainConfig.from_json(SETTINGS | settings).to_json()))
    reports = [
        {
            "env_steps": x,
            "seconds": x / 10,
            "sps": 10.0,
            "episodic_return": y,
            "lag": None if y is None else {"mean": 1.5, "max": 3},
        }
        for x, y in points.items()
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(report) + "\n" for report in reports))
    return run
