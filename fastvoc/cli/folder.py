"""A folder of inputs: what to make, and making it with several files at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fastvoc.cli.synthesis import MEL_FILES, read_input, speed, synthesise
from fastvoc.errors import ArgumentError, FastvocError
from fastvoc.runtime.threads import set_num_threads
from fastvoc.sound.audio import write_audio
from fastvoc.sound.files import READABLE
from fastvoc.vocoder import Vocoder


@dataclass(frozen=True)
class Plan:
    """Pairs of input and output still to make, how many outputs are there already, and files passed over by suffix."""

    target: Path
    todo: tuple[tuple[Path, Path], ...]
    finished: int
    skipped: Counter[str]


@dataclass(frozen=True)
class Done:
    """Seconds of sound that one file gave, and what was done to its audio."""

    seconds: float
    notes: tuple[str, ...]


def plan_folder(source: Path, target: str, *, force: bool) -> Plan:
    """Finds the inputs of a folder and their places under `target`; outputs that exist are finished without `force`.

    Inputs are the files with a suffix of READABLE or MEL_FILES; others are counted, hidden ones are not looked at.

    Raises ArgumentError when `target` is no place for a folder, nothing is found, or two inputs share an output.
    """
    out = Path(target)
    if target == "-" or (out.exists() and not out.is_dir()):
        raise ArgumentError(f"OUT: IN is a folder, so expected a folder, got {target!r}")
    if out.resolve() == source.resolve():
        raise ArgumentError(f"OUT: expected another folder than IN, got {target!r}")
    places: dict[Path, Path] = {}
    skipped: Counter[str] = Counter()
    for path in sorted(source.rglob("*")):
        inner = path.relative_to(source)
        hidden = any(part.startswith(".") for part in inner.parts)
        if hidden or path.is_dir() or out.resolve() in path.resolve().parents:
            continue
        if path.suffix.lower() not in READABLE | MEL_FILES:
            skipped[path.suffix.lower() or "no suffix"] += 1
            continue
        place = out / inner.with_suffix(".wav")
        if place in places:
            raise ArgumentError(f"IN: {places[place]} and {path} would both become {place}")
        places[place] = path
    if not places:
        passed = f" ({_passed_over(skipped)})" if skipped else ""
        raise ArgumentError(f"IN: no audio and no mel files in {source}{passed}")
    todo = tuple((path, place) for place, path in places.items() if force or not place.exists())
    return Plan(out, todo, len(places) - len(todo), skipped)


def _passed_over(skipped: Counter[str]) -> str:
    suffixes = ", ".join(f"{count} {suffix}" for suffix, count in sorted(skipped.items()))
    return f"{skipped.total()} files skipped, their suffix means no audio and no mel that can be read: {suffixes}"


def run_folder(voc: Vocoder, plan: Plan, *, jobs: int, float32: bool) -> None:
    """Makes what a plan asks for, `jobs` files at a time; a broken file is told and passed over. Ends as `follow`."""
    if jobs > 1:
        set_num_threads(max(1, torch.get_num_threads() // jobs))
    follow(plan, _by_threads(voc, plan, jobs, float32))


def follow(plan: Plan, made: Iterable[tuple[Path, Done | str]]) -> None:
    """Shows how a plan goes: what each input gave, or what it failed with, in any order.

    Ends with a summary, and with exit code 1 when a file failed.
    """
    console = Console(stderr=True)
    done: list[Done] = []
    failed = 0
    start = perf_counter()
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[file]}"))
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("vocode", total=len(plan.todo), file="")
        for path, result in made:
            progress.update(task, advance=1, file=path.name)
            if isinstance(result, Done):
                done.append(result)
                continue
            failed += 1
            text = result if str(path) in result else f"{path}: {result}"
            progress.console.print(f"error: {text}", style="red", soft_wrap=True, markup=False, highlight=False)
    seconds = sum(file.seconds for file in done)
    for note in sorted({note for file in done for note in file.notes}):
        typer.echo(f"{sum(note in file.notes for file in done)} files: {note}", err=True)
    if plan.skipped:
        typer.echo(_passed_over(plan.skipped), err=True)
    counts = f"{len(done)} written, {plan.finished} already there, {failed} failed"
    took = f"; {speed(seconds, perf_counter() - start)}" if done else ""
    typer.echo(f"{plan.target}: {counts}{took}", err=True)
    if failed:
        raise typer.Exit(1)


def _by_threads(voc: Vocoder, plan: Plan, jobs: int, float32: bool) -> Iterator[tuple[Path, Done | str]]:
    with _pool(jobs) as pool:
        names = {pool.submit(attempt, voc, path, place, float32): path for path, place in plan.todo}
        for future in as_completed(names):
            yield names[future], future.result()


@contextmanager
def _pool(jobs: int) -> Iterator[ThreadPoolExecutor]:
    """A pool that, when the block is left by an exception, begins no more files."""
    pool = ThreadPoolExecutor(jobs, thread_name_prefix="vocode")
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def attempt(voc: Vocoder, path: Path, place: Path, float32: bool) -> Done | str:
    """Makes one file: what it gave, or what it failed with."""
    try:
        item = read_input(path, voc)
        _, wav = synthesise(voc, item)
        place.parent.mkdir(parents=True, exist_ok=True)
        write_audio(place, wav, voc.sample_rate, float32=float32)
    except (FastvocError, OSError) as error:
        return str(error)
    return Done(len(wav) / voc.sample_rate, item.notes)
