"""The overlay: pictures are enlarged, bars are as long as what they stand for."""

from __future__ import annotations

import numpy as np

from asyncq.overlay import BAR, BLUE, HEIGHT, LINE, MARGIN, ORANGE, PANEL, Overlay
from asyncq.shared import Array


def bars(picture: Array, color: tuple[int, int, int]) -> list[int]:
    """Lengths of the bars of `color`, top to bottom."""
    rows = (picture[:, -PANEL:] == color).all(-1).sum(1)
    return [int(length) for before, length in zip(np.r_[0, rows], rows, strict=False) if length > 1 and before <= 1]


def test_probabilities_have_bars_of_their_length() -> None:
    screen = np.full((210, 160, 3), 7, np.uint8)
    picture = Overlay(["NOOP", "FIRE", "LEFT"], probabilities=True).beside(
        screen, 3.0, [0.5, 0.25, 0.25], chosen=1, value=0.1
    )
    assert picture.shape == (HEIGHT, 320 + PANEL, 3)
    assert (picture[:, :320] == 7).all()
    assert bars(picture, ORANGE) == [round(BAR / 4) + 1]
    assert bars(picture, BLUE) == [round(BAR / 2) + 1, round(BAR / 4) + 1]


def test_values_are_drawn_from_the_least_to_the_greatest() -> None:
    overlay = Overlay(["a", "b", "c"], probabilities=False)
    picture = overlay.beside(np.zeros((400, 600, 3), np.uint8), 0.0, [-1.0, 1.0, 0.0], 1, 1.0)
    assert bars(picture, ORANGE) == [BAR + 1]
    assert bars(picture, BLUE) == [BAR // 2 + 1]


def test_all_18_actions_of_a_joystick_stand_beside_ataris_screen() -> None:
    names = [f"action {action}" for action in range(18)]
    picture = Overlay(names, probabilities=True).beside(np.zeros((210, 160, 3), np.uint8), 0.0, [0.5] * 18, 17, 0.0)
    assert (len(bars(picture, BLUE)), len(bars(picture, ORANGE))) == (17, 1)


def test_more_actions_than_there_is_room_for_are_left_out() -> None:
    names = [f"action {action}" for action in range(40)]
    picture = Overlay(names, probabilities=True).beside(np.zeros((420, 10, 3), np.uint8), 0.0, [1.0] * 40, 39, 0.0)
    assert picture.shape == (420, 10 + PANEL, 3)
    assert len(bars(picture, BLUE)) == (420 - 2 * MARGIN) // LINE - 3
    assert not bars(picture, ORANGE)
