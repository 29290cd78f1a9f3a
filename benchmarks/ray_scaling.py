"""What workers of Ray Data gain: the same mels by one process, by one worker and by two, in turn.

python benchmarks/ray_scaling.py            # HiFi-GAN V2, a thread each
python benchmarks/ray_scaling.py --write    # and keep the figures

A worker has one CPU, and so one thread, as the process has. `process` makes the batches that a worker makes of a block,
without Ray; the actors of a job are started and have loaded their model before the clock runs, as in a job of hours.
The samples are compared with `voc.each`, bit for bit. With RAY_ADDRESS set, on the cluster there.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from typing import Any

import numpy as np
import ray
import torch
from harness import RESULTS, machine
from service import vocoder
from table import Table

from fastvoc.ray.batches import batches
from fastvoc.ray.vocoding import Vocoding
from fastvoc.ray.work import Source
from fastvoc.ray.worker import Worker
from fastvoc.vocoder import Vocoder

FRAMES = 8000


@ray.remote(num_cpus=1)
class Actor:
    """A worker of a job, as Ray Data runs it: blocks in, blocks out through the object store."""

    def __init__(self, voc: Vocoder) -> None:
        self.worker = Worker(Vocoding(Source.of(voc, "cpu", None, None)), 1, FRAMES, None, None)

    def run(self, table: Any) -> Any:
        return self.worker(table)


def block(mels: list[np.ndarray[Any, Any]], first: int) -> Any:
    import pyarrow as pa

    values = pa.array([list(mel) for mel in mels], pa.list_(pa.list_(pa.float32())))
    return pa.table({"id": list(range(first, first + len(mels))), "mel": values})


def by_process(voc: Vocoder, blocks: list[list[np.ndarray[Any, Any]]]) -> float:
    began = time.perf_counter()
    for mels in blocks:
        for batch in batches([mel.shape[1] for mel in mels], FRAMES):
            voc.each([mels[i] for i in batch], check=False)
    return time.perf_counter() - began


def by_actors(actors: list[Any], tables: list[Any], found: dict[int, np.ndarray[Any, Any]]) -> float:
    """Each actor has two blocks in flight, as Ray Data gives them."""
    began = time.perf_counter()
    left = list(tables)
    flying = {actor.run.remote(left.pop()): actor for actor in actors * 2 if left}
    while flying:
        (ready,), _ = ray.wait(list(flying), num_returns=1)
        actor = flying.pop(ready)
        if left:
            flying[actor.run.remote(left.pop())] = actor
        made = ray.get(ready)
        for name, wav in zip(made.column("id").to_pylist(), made.column("wav"), strict=True):
            found[name] = wav.values.to_numpy()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="v2")
    parser.add_argument("--blocks", type=int, default=12)
    parser.add_argument("--rows", type=int, default=8, help="of a block, 2 to 6 s each")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", nargs="?", const="amd-epyc-2core", metavar="NAME", help="folder of the result file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    voc = vocoder(options.model)
    rng = np.random.default_rng(0)
    per_second = voc.sample_rate / voc.hop
    sizes = rng.integers(round(2 * per_second), round(6 * per_second), (options.blocks, options.rows))
    blocks = [[(2 * rng.standard_normal((voc.n_mels, n)) - 5).astype(np.float32) for n in row] for row in sizes]
    tables = [block(mels, i * options.rows) for i, mels in enumerate(blocks)]
    seconds = int(sizes.sum()) / per_second
    new = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": 2, "include_dashboard": False}
    ray.init(log_to_driver=False, logging_level="error", **new)
    two = [Actor.remote(voc) for _ in range(2)]
    found: dict[int, np.ndarray[Any, Any]] = {}
    by_actors(two, tables[:4], found)
    by_process(voc, blocks[:1])
    times: dict[str, list[float]] = {"process": [], "one worker": [], "two workers": []}
    for _ in range(options.rounds):
        times["process"].append(by_process(voc, blocks))
        times["one worker"].append(by_actors(two[:1], tables, found))
        times["two workers"].append(by_actors(two, tables, found))
    flat = [mel for mels in blocks for mel in mels]
    equal = all(np.array_equal(found[i], voc.each([mel], check=False)[0].numpy()) for i, mel in enumerate(flat))
    rows = [
        {"by": name, "least_s": min(taken), "median_s": statistics.median(taken), "real_time": seconds / min(taken)}
        for name, taken in times.items()
    ]
    over = {name: min(times["process"]) / min(times[name]) for name in ("one worker", "two workers")}
    table = Table("by", "least s", "median s", "x real time", title=f"{options.model}, {seconds:.0f} s of audio")
    for row in rows:
        table.add_row(row["by"], f"{row['least_s']:.2f}", f"{row['median_s']:.2f}", f"{row['real_time']:.1f}")
    table.print()
    print(f"over one process: {over}; equal to voc.each bit for bit: {equal}")
    if options.write:
        path = RESULTS / options.write / "ray.json"
        facts = {"machine": machine("cpu"), "ray": ray.__version__, "model": options.model, "audio_s": seconds}
        path.write_text(json.dumps({**facts, "rows": rows, "over_process": over, "equal": equal}, indent=1) + "\n")
        print(f"wrote {path}")
    ray.shutdown()


if __name__ == "__main__":
    main()
