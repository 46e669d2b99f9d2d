"""The table of methods agrees with the names that the configuration accepts."""

from __future__ import annotations

from asyncq import checks
from asyncq.methods import METHODS


def test_every_method_of_the_configuration_exists() -> None:
    assert set(METHODS) == set(checks.METHODS)


def test_every_method_names_its_heads() -> None:
    assert {name: method.HEADS for name, method in METHODS.items()} == {
        "a3c": "policy-value",
        "n-step-q": "q",
        "one-step-q": "q",
        "one-step-sarsa": "q",
    }
