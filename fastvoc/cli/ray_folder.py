"""A folder of inputs made by the workers of a Ray cluster: the files, names and messages of `run_folder`."""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator, Mapping
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from fastvoc.cli.folder import Done, Plan, attempt
from fastvoc.errors import BackendError, FastvocError
from fastvoc.ray.package import import_ray, through_actors
from fastvoc.ray.work import Source
from fastvoc.runtime.threads import set_num_threads

if TYPE_CHECKING:
    import pyarrow as pa

_BLOCK = 16  # files of a task, at most


class Files:
    """A worker: a table of inputs and their places in, what became of each out."""

    def __init__(self, source: Source, threads: int, float32: bool, mark: Path) -> None:
        if not mark.exists():
            raise FastvocError(f"OUT: {mark.parent} on this node is not the folder that the command began with")
        set_num_threads(threads)
        self.voc, self.float32 = source.vocoder(), float32

    def __call__(self, table: pa.Table) -> pa.Table:
        import pyarrow as pa

        kinds = {"number": pa.int64(), "error": pa.string(), "seconds": pa.float64(), "told": pa.string()}
        kinds["notes"] = pa.list_(pa.string())
        return pa.Table.from_pylist([self._row(row) for row in table.to_pylist()], pa.schema(list(kinds.items())))

    def _row(self, row: Mapping[str, Any]) -> dict[str, object]:
        with redirect_stderr(StringIO()) as told:
            done = attempt(self.voc, Path(row["path"]), Path(row["place"]), self.float32)
        found = {"number": row["number"], "told": told.getvalue()}
        if isinstance(done, str):
            return {**found, "error": done, "seconds": 0.0, "notes": []}
        return {**found, "error": None, "seconds": done.seconds, "notes": list(done.notes)}


def made_by_ray(
    plan: Plan, source: Source, address: str, *, workers: int | None, threads: int, gpu: bool, float32: bool
) -> Iterator[tuple[Path, Done | str]]:
    """What became of each file of a plan, as workers finish: what it gave, or what it failed with.

    address: of a cluster; "" for the one that is there or, where none is, one of this machine. Raises BackendError
    where there is no such cluster, FastvocError where Ray is not installed.
    """
    import_ray("data")
    import ray

    own = not ray.is_initialized()
    if own:
        _connect(address)
    try:
        yield from _run(plan, source, workers=workers, threads=threads, gpu=gpu, float32=float32)
    finally:
        if own:
            ray.shutdown()


def _connect(address: str) -> None:
    import ray

    try:
        ray.init(address=address or None, log_to_driver=False, logging_level="error")
    except (ConnectionError, ValueError) as error:
        raise BackendError(f"--ray: no cluster at {address or 'hand'} ({error})") from error


def _run(
    plan: Plan, source: Source, *, workers: int | None, threads: int, gpu: bool, float32: bool
) -> Iterator[tuple[Path, Done | str]]:
    import ray
    import ray.data

    room = int(ray.cluster_resources().get("GPU" if gpu else "CPU", 1) / (1 if gpu else threads))
    most = max(1, min(room if workers is None else workers, len(plan.todo)))
    least = max(1, min(room, most))
    plan.target.mkdir(parents=True, exist_ok=True)
    mark = plan.target.absolute() / f".{secrets.token_hex(8)}.job"
    context = ray.data.DataContext.get_current()
    shown, context.enable_progress_bars = context.enable_progress_bars, False
    mark.write_text("a command writes here\n")
    try:
        items = [
            {"number": i, "path": str(path.absolute()), "place": str(place.absolute())}
            for i, (path, place) in enumerate(plan.todo)
        ]
        blocks = max(most, math.ceil(len(items) / _BLOCK))
        dataset = ray.data.from_items(items, override_num_blocks=min(blocks, len(items)))
        settings = {"source": source, "threads": threads, "float32": float32, "mark": mark}
        gpus = 1 if gpu else None
        mapped = through_actors(dataset, Files, settings, (least, most), num_cpus=threads, num_gpus=gpus)
        for table in mapped.iter_batches(batch_size=None, batch_format="pyarrow"):
            for row in table.to_pylist():
                error = row["error"]
                if row["told"]:
                    typer.echo(row["told"], nl=False, err=True)
                yield plan.todo[row["number"]][0], Done(row["seconds"], tuple(row["notes"])) if error is None else error
    finally:
        context.enable_progress_bars = shown
        mark.unlink(missing_ok=True)
