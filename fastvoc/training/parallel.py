"""Training processes on one machine that act as one: each takes a part of every batch, gradients are averaged."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from fastvoc.errors import FastvocError


class Crew:
    """The processes of a run as one of them sees them: its own number and how many there are."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @property
    def leads(self) -> bool:
        """Whether this process writes and reports for all."""
        return self.rank == 0

    def average_gradients(self, optimiser: torch.optim.Optimizer) -> None:
        """From now on the optimiser steps along the mean gradient of all processes."""
        if self.size > 1:
            optimiser.register_step_pre_hook(self._average)

    def any(self, flag: bool) -> bool:
        """Whether any process says so; all must ask at the same place."""
        if self.size == 1:
            return flag
        votes = torch.tensor([float(flag)], dtype=torch.float32, device="cpu")
        distributed.all_reduce(votes)
        return votes.item() > 0

    def _average(self, optimiser: torch.optim.Optimizer, *_: Any) -> None:
        parameters = [p for group in optimiser.param_groups for p in group["params"] if p.grad is not None]
        flat = torch.cat([p.grad.flatten() for p in parameters])
        distributed.all_reduce(flat)
        parts = (flat / self.size).split([p.numel() for p in parameters])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter)


def launch(size: int, work: Callable[[Crew], None]) -> None:
    """Calls `work` in `size` processes at once and waits for all; in this one when size is 1.

    SIGINT and SIGTERM are passed on to the processes. `work` must be picklable.
    Raises FastvocError when one of them fails; the rest are ended.
    """
    if size == 1:
        work(Crew())
        return
    with tempfile.TemporaryDirectory() as folder:
        meeting = Path(folder) / "meeting"
        context = multiprocessing.get_context("spawn")
        crew = [context.Process(target=_join, args=(rank, size, meeting, work)) for rank in range(size)]
        for process in crew:
            process.start()
        with _passed_on(crew):
            while waiting := [p for p in crew if p.exitcode is None]:
                multiprocessing.connection.wait([p.sentinel for p in waiting])
                if any(p.exitcode for p in crew):
                    for process in waiting:
                        process.terminate()
    if failed := [i for i, p in enumerate(crew) if p.exitcode]:
        raise FastvocError(f"training process {failed[0]} of {size} failed; its message stands above")


def _join(rank: int, size: int, meeting: Path, work: Callable[[Crew], None]) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=size)
    try:
        work(Crew(rank, size))
    finally:
        distributed.destroy_process_group()


@contextmanager
def _passed_on(crew: list[Any]) -> Iterator[None]:
    """A terminal sends SIGINT to the whole group by itself; a plain kill reaches only this process."""

    def forward(number: int, _: Any) -> None:
        for process in crew:
            if process.exitcode is None:
                os.kill(process.pid, number)

    before = {n: signal.signal(n, forward) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
