"""Several processes train as one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fastvoc.cli.train import train
from fastvoc.errors import ArgumentError, FastvocError
from fastvoc.training import checkpoint
from fastvoc.training.parallel import Crew, launch


@pytest.fixture
def config(tmp_path: Path, tiny_fields: dict[str, Any]) -> Path:
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps({**tiny_fields, "steps": 3}))
    return path


def test_two_processes_make_the_updates_of_one(config: Path, folder: Path, tmp_path: Path) -> None:
    runs = []
    for processes in (1, 2):
        out = tmp_path / f"run{processes}"
        train(config, data=folder, out=out, threads=1, processes=processes)
        newest = checkpoint.newest(out)
        assert newest == out / "do_00000003"
        runs.append(checkpoint.read(newest))
    for name, tensor in runs[0].generator.items():
        torch.testing.assert_close(runs[1].generator[name], tensor, rtol=1e-3, atol=2e-5, msg=name)
    for name, tensor in runs[0].mpd.items():
        torch.testing.assert_close(runs[1].mpd[name], tensor, rtol=1e-3, atol=2e-5, msg=name)


def test_a_batch_that_cannot_be_shared_is_refused(config: Path, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="--processes: a batch of 2 cannot be cut into 3"):
        train(config, data=folder, out=tmp_path / "run", processes=3)
    assert not (tmp_path / "run").exists()


def _fail_in_the_second(crew: Crew) -> None:
    if crew.rank == 1:
        raise SystemExit(3)
    crew.any(False)


def test_a_failing_process_ends_the_run() -> None:
    with pytest.raises(FastvocError, match="of 2 failed"):
        launch(2, _fail_in_the_second)
