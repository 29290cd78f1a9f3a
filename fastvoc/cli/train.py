"""`fastvoc train`: trains a HiFi-GAN or a Vocos from a folder of speech."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastvoc.errors import ArgumentError

if TYPE_CHECKING:
    from rich.console import Console

    from fastvoc.training.config import TrainConfig
    from fastvoc.training.loop import Report
    from fastvoc.training.parallel import Crew
    from fastvoc.training.trainer import Losses, Trainer


def train(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="HiFi-GAN's config.json, with fastvoc's own fields.")
    ],
    data: Annotated[Path, typer.Option(help="Folder of clips (audio or .npy), or a text file that lists them.")],
    out: Annotated[Path, typer.Option(help="Folder of the run: checkpoints, validation samples, config.json.")],
    valid: Annotated[Path | None, typer.Option(help="Held-out clips, folder or list.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Updates at which to end, if not the config's.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0, help="End after this time, whatever the steps.")] = None,
    resume: Annotated[bool, typer.Option("--resume/--no-resume", help="Go on from OUT's newest checkpoint.")] = True,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads a process; torch's choice by default.")
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="Processes that share every batch.")] = 1,
) -> None:
    """Train HiFi-GAN, or Vocos where the config says so, or go on from g_/do_ checkpoints, also HiFi-GAN's original.

    A checkpoint is written every 5 minutes and at the end; Ctrl-C ends after the running update, with a checkpoint.

    Example: fastvoc train config_v2.json --data LJSpeech/wavs --valid LJSpeech/valid.txt --out runs/v2 --minutes 60
    """
    from fastvoc.training.config import TrainConfig
    from fastvoc.training.data import find_clips
    from fastvoc.training.parallel import launch

    settings = TrainConfig.read(config)
    if steps is not None:
        settings = settings.replace(steps=steps)
    if settings.batch_size % processes:
        raise ArgumentError(f"--processes: a batch of {settings.batch_size} cannot be cut into {processes} equal parts")
    training, held_out = find_clips(data), [] if valid is None else find_clips(valid)
    if shared := {p.resolve() for p in training} & {p.resolve() for p in held_out}:
        raise ArgumentError(f"--valid: {min(shared)} is a training clip too")
    launch(processes, partial(_train, settings, training, held_out, out, minutes, resume, threads))


def _train(
    settings: TrainConfig,
    training: list[Path],
    held_out: list[Path],
    out: Path,
    minutes: float | None,
    resume: bool,
    threads: int | None,
    crew: Crew,
) -> None:
    import torch
    from rich.console import Console

    from fastvoc.training.data import Clips
    from fastvoc.training.loop import open_run, run
    from fastvoc.training.trainer import Trainer
    from fastvoc.training.validation import Validation

    if threads is not None:
        torch.set_num_threads(threads)
    console = Console(stderr=True, quiet=not crew.leads)
    with console.status(f"Reading {len(training) + len(held_out)} clips"):
        clips = Clips(training, settings, (crew.rank, crew.size))
        trainer = Trainer(settings, clips)
        validation = Validation(held_out, settings.model(), trainer.mel) if held_out and crew.leads else None
        open_run(out, settings, trainer, resume=resume, leads=crew.leads)
    console.print(f"{clips.seconds / 60:.1f} minutes of speech, {len(clips)} batches an epoch, step {trainer.steps}")
    with _progress(console, trainer) as report:
        measures = run(trainer, out, validation, minutes=minutes, report=report, crew=crew)
    console.print(f"Step {trainer.steps}: {out / f'g_{trainer.steps:08d}'}")
    if measures:
        console.print(", ".join(f"{name} {value:.3f}" for name, value in measures.items()))


@contextmanager
def _progress(console: Console, trainer: Trainer) -> Iterator[Report]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    losses_column = TextColumn("{task.fields[losses]}")
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), losses_column)
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("train", total=trainer.config.steps, completed=trainer.steps, losses="")

        def report(trainer: Trainer, losses: Losses) -> None:
            text = " ".join(f"{name} {value:.3f}" for name, value in losses.items())
            progress.update(task, completed=trainer.steps, losses=text)

        yield report
