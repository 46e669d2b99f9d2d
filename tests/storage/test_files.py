"""Files whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from asyncq.errors import UsageError
from asyncq.storage.files import read_weights_bytes, refuse_unwritable, write_whole


def test_what_is_written_is_there_and_nothing_else(tmp_path: Path) -> None:
    write_whole(tmp_path / "new" / "a", b"one")
    write_whole(tmp_path / "new" / "a", b"two")
    assert read_weights_bytes(tmp_path / "new" / "a") == b"two"
    assert os.listdir(tmp_path / "new") == ["a"]


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_whole(tmp_path / "a", b"one")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(tmp_path / "a", b"two")
    assert os.listdir(tmp_path) == ["a"] and (tmp_path / "a").read_bytes() == b"one"


def test_places_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    refuse_unwritable(tmp_path / "new")
    for name, said in ((".", "directory"), ("absent/a", "there is no directory"), ("pipe", "no ordinary file")):
        with pytest.raises(UsageError, match=said):
            refuse_unwritable(tmp_path / name)


def test_what_cannot_be_read_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "empty.h5").touch()
    os.mkfifo(tmp_path / "pipe")
    for name, said in (
        ("", "is a directory"),
        ("absent.h5", "there is no"),
        ("empty.h5", "empty"),
        ("pipe", "no ordinary"),
    ):
        with pytest.raises(UsageError, match=said):
            read_weights_bytes(tmp_path / name)
