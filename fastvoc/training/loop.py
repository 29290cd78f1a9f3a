"""Runs a trainer: checkpoints, resumption, validation, an end by steps, by time or by a signal."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from fastvoc.errors import ArgumentError
from fastvoc.runtime.io import atomic_path
from fastvoc.training import checkpoint
from fastvoc.training.config import TrainConfig
from fastvoc.training.parallel import Crew
from fastvoc.training.trainer import Losses, Trainer
from fastvoc.training.validation import Validation

KEEP = 3
Report = Callable[[Trainer, Losses], None]


def open_run(folder: Path, config: TrainConfig, trainer: Trainer, *, resume: bool, leads: bool = True) -> None:
    """Makes `folder` the run's: resumes from its newest complete checkpoint; the leader writes the configuration there.

    Raises ArgumentError when there is a checkpoint and `resume` is false, so that no run is overwritten.
    """
    folder.mkdir(parents=True, exist_ok=True)
    newest = checkpoint.newest(folder)
    if newest is not None and not resume:
        raise ArgumentError(f"{folder}: holds {newest.name} of an earlier run; choose another folder or resume it")
    if newest is not None:
        trainer.load(checkpoint.read(newest))
    if not leads:
        return
    with atomic_path(folder / "config.json") as temporary:
        temporary.write_text(json.dumps(config.to_dict(), indent=2) + "\n", encoding="utf-8")


def run(
    trainer: Trainer,
    folder: Path,
    valid: Validation | None,
    *,
    minutes: float | None = None,
    report: Report | None = None,
    crew: Crew | None = None,
) -> dict[str, float]:
    """Trains until `config.steps`, for `minutes`, or until SIGINT or SIGTERM, and always ends with a checkpoint.

    `report` is called after every update. In a `crew` of processes only the leader writes and reports. Returns the
    measures of the last validation, which comes at the end too, unless a signal ended the run.
    """
    c, crew = trainer.config, crew or Crew()
    for optimiser in (trainer.optim_g, trainer.optim_d):
        crew.average_gradients(optimiser)
    start = saved_at = time.monotonic()
    measures: dict[str, float] = {}
    with _signals() as stopped:
        while trainer.steps < c.steps:
            late = minutes is not None and time.monotonic() - start >= minutes * 60
            if crew.any(late or bool(stopped)):
                break
            losses = trainer.step()
            if not crew.leads:
                continue
            if report is not None:
                report(trainer, losses)
            if time.monotonic() - saved_at >= c.checkpoint_minutes * 60:
                _save(trainer, folder)
                saved_at = time.monotonic()
            if valid is not None and trainer.steps % c.validation_interval == 0:
                measures = _validate(trainer, folder, valid)
        if crew.leads:
            _save(trainer, folder)
        if valid is not None and crew.leads and not stopped:
            measures = _validate(trainer, folder, valid)
    return measures


def _save(trainer: Trainer, folder: Path) -> None:
    checkpoint.write(folder, trainer.state())
    checkpoint.prune(folder, KEEP)


def _validate(trainer: Trainer, folder: Path, valid: Validation) -> dict[str, float]:
    measures = valid.measure(trainer.best_generator)
    valid.write(trainer.best_generator, folder / "samples" / f"{trainer.steps:08d}", trainer.config.valid_samples)
    with (folder / "validation.jsonl").open("a", encoding="utf-8") as log:
        log.write(json.dumps({"steps": trainer.steps, **measures}) + "\n")
    return measures


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM instead of obeying them, so that an update is never cut in two.

    Outside the main thread, which alone gets signals, it does nothing.
    """
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return

    def note(number: int, _: FrameType | None) -> None:
        caught.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
