"""What the agent thinks, drawn beside what it sees."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from asyncq.shared import Array

HEIGHT = 420
"""Least height of a picture with its panel, in pixels; smaller ones are enlarged by a whole factor."""
PANEL = 260
"""Width of the panel, in pixels."""
MARGIN, LINE, BAR = 14, 18, 90
"""In pixels: a line is as high as lets all 18 actions of Atari's joystick stand beside a screen."""
GREY, WHITE, BLUE, ORANGE = (120, 120, 120), (240, 240, 240), (76, 114, 176), (221, 132, 82)


class Overlay:
    """Draws a panel to the right of pictures: score, each action with its probability or value, the state's value.

    `probabilities` says which of the two: bars of values begin at the least of them.
    """

    def __init__(self, action_names: list[str], probabilities: bool) -> None:
        self.action_names = action_names
        self.probabilities = probabilities
        self.font = ImageFont.load_default(14)

    def beside(self, picture: Array, score: float, preferences: list[float], chosen: int, value: float) -> Array:
        """`picture[H, W, 3]` uint8, enlarged, with its panel. `preferences` are by action."""
        scale = -(-HEIGHT // picture.shape[0])
        large = picture.repeat(scale, axis=0).repeat(scale, axis=1)
        panel = Image.new("RGB", (PANEL, large.shape[0]))
        draw = ImageDraw.Draw(panel)
        draw.text((MARGIN, MARGIN), f"score {score:.10g}", WHITE, self.font)
        draw.text((MARGIN, MARGIN + LINE), f"value {value:.2f}", WHITE, self.font)
        least = 0.0 if self.probabilities else min(preferences)
        span = 1.0 if self.probabilities else max(1e-9, max(preferences) - least)
        shown = (large.shape[0] - 2 * MARGIN) // LINE - 3
        for row, (name, preference) in enumerate(zip(self.action_names[:shown], preferences, strict=False)):
            top = MARGIN + LINE * (3 + row)
            is_chosen = row == chosen
            draw.text((MARGIN, top), name.lower(), WHITE if is_chosen else GREY, self.font)
            left = PANEL - MARGIN - BAR
            draw.text((left - 48, top), f"{preference:.2f}", WHITE if is_chosen else GREY, self.font)
            width = round(BAR * (preference - least) / span)
            draw.rectangle((left, top + 4, left + width, top + LINE - 6), ORANGE if is_chosen else BLUE)
        return np.concatenate([large, np.asarray(panel)], axis=1)
