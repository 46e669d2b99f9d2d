"""Doctor: what is wrong is told apart from what is not, with the way to mend it; a training refuses the hopeless."""

from __future__ import annotations

import errno
import os
import platform
import resource
import shutil
import tempfile
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from asyncq import doctor
from asyncq.cli import run
from asyncq.doctor import Level, cores, examine, gpu, memory, open_files, processor, refuse_hopeless, space
from asyncq.errors import UsageError

Usage = namedtuple("Usage", "total used free")


def test_this_machine_can_train(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--run-dir", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(list(examine(tmp_path, 1)))
    assert all(line.split()[0] in {"ok", "warning"} for line in lines)


@pytest.mark.parametrize(("processes", "level"), [(8, Level.OK), (9, Level.WARNING)])
def test_many_more_workers_than_cores_are_a_warning(
    monkeypatch: pytest.MonkeyPatch, processes: int, level: Level
) -> None:
    monkeypatch.setattr(doctor, "usable_cores", lambda: 4)
    assert cores(processes).level is level


@pytest.mark.parametrize(("machine", "level"), [("x86_64", Level.OK), ("aarch64", Level.WARNING)])
def test_a_processor_that_writes_in_another_order_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, machine: str, level: Level
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert processor().level is level


def test_too_few_open_files_are_an_error_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (100, 4096))
    finding = open_files(16)
    assert finding.level is Level.ERROR
    assert "ulimit -n 224" in finding.text
    monkeypatch.setattr(resource, "getrlimit", lambda which: (100, 100))
    assert "docker run --ulimit" in open_files(16).text
    assert open_files(2).level is Level.OK


def test_more_workers_than_the_memory_holds_are_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "usable_memory", lambda: 4e9)
    assert memory(15).level is Level.OK
    assert memory(23).level is Level.WARNING
    with pytest.raises(UsageError, match=r"memory: 4.0 GB may be used, 24 workers .* 4.1 or more, .*; choose fewer"):
        refuse_hopeless(tmp_path, 24)


@pytest.mark.parametrize(("free", "level"), [(3e9, Level.OK), (1e9, Level.WARNING), (5e7, Level.ERROR)])
def test_space_for_the_run_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: float, level: Level
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1e12, 0, free))
    assert space(tmp_path / "not" / "there" / "yet").level is level


def test_a_training_refuses_what_is_hopeless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    refuse_hopeless(tmp_path, 2)

    def refuse(dir: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(UsageError, match=r"run directory: .* cannot be written: Permission denied"):
        refuse_hopeless(tmp_path, 2)


@pytest.mark.parametrize(
    ("files", "cuda", "said"),
    [
        (set(), None, "none; the learner uses the processor"),
        ({"/proc/driver/nvidia/version"}, None, "start it with --gpus all"),
        ({"/proc/driver/nvidia/version", "/dev/nvidiactl"}, None, "install a CUDA build"),
        ({"/proc/driver/nvidia/version", "/dev/nvidiactl"}, "13.0", "built for CUDA 13.0, cannot use it"),
    ],
)
def test_a_gpu_that_cannot_be_used(
    files: set[str], cuda: str | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "exists", lambda path: str(path) in files)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert said in gpu().text
