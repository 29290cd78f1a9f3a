"""`fastvoc train` from end to end on a model that fits into a test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import fastvoc
from fastvoc.cli.train import train
from fastvoc.errors import ArgumentError
from fastvoc.training import checkpoint
from helpers import ROOT


@pytest.fixture
def config(tmp_path: Path, tiny_fields: dict[str, Any]) -> Path:
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps({**tiny_fields, "steps": 3, "validation_interval": 2, "valid_samples": 1}))
    return path


@pytest.fixture
def valid(folder: Path, tmp_path: Path) -> Path:
    """A folder with one clip of its own."""
    target = tmp_path / "valid"
    target.mkdir()
    (folder / "clip2.npy").rename(target / "held.npy")
    return target


def test_three_steps_and_three_more(config: Path, folder: Path, valid: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(config, data=folder, out=out, valid=valid, threads=1)
    assert {p.name for p in out.iterdir()} >= {"g_00000003", "do_00000003", "ema_00000003", "config.json", "samples"}
    log = [json.loads(line) for line in (out / "validation.jsonl").read_text().splitlines()]
    assert [row["steps"] for row in log] == [2, 3]
    assert all(row["mel_l1"] > 0 for row in log)
    assert {p.name for p in (out / "samples" / "00000003").iterdir()} == {"held.wav", "held.png"}
    assert fastvoc.load(out / "ema_00000003")(torch.randn(80, 9).clamp(-4, 2)).shape == (9 * 256,)

    train(config, data=folder, out=out, steps=6)
    assert checkpoint.newest(out) == out / "do_00000006"
    assert json.loads((out / "config.json").read_text())["steps"] == 6


def test_a_run_is_not_overwritten(config: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(config, data=folder, out=out, steps=1)
    with pytest.raises(ArgumentError, match="do_00000001 of an earlier run"):
        train(config, data=folder, out=out, resume=False)


def test_time_ends_a_run(config: Path, folder: Path, tmp_path: Path) -> None:
    train(config, data=folder, out=tmp_path / "run", steps=10**6, minutes=0.01)
    assert checkpoint.newest(tmp_path / "run") is not None


def test_checkpoints_come_by_the_clock_and_the_last_three_stay(folder: Path, tmp_path: Path, config: Path) -> None:
    config.write_text(json.dumps({**json.loads(config.read_text()), "checkpoint_minutes": 1e-9, "steps": 5}))
    train(config, data=folder, out=tmp_path / "run")
    assert sorted(p.name for p in (tmp_path / "run").glob("do_*")) == ["do_00000003", "do_00000004", "do_00000005"]


def test_held_out_clips_must_be_held_out(config: Path, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"clip0\.npy is a training clip too"):
        train(config, data=folder, out=tmp_path / "run", valid=folder)
    assert not (tmp_path / "run").exists()


def test_an_interrupt_ends_with_a_checkpoint(config: Path, folder: Path, tmp_path: Path) -> None:
    program = """if True:
        import sys
        from pathlib import Path
        from fastvoc.cli.train import train
        train(*map(Path, sys.argv[1:]), steps=10**6)
    """
    out = tmp_path / "run"
    command = [sys.executable, "-c", program, str(config), str(folder), str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while not (out / "config.json").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors.decode()
    newest = checkpoint.newest(out)
    assert newest is not None
    assert checkpoint.read(newest).steps > 0
