"""Ours against the rivals on the CPU: a process per model, which is ended when a rival does not come back, and one more
for each rival that slows the others.

Run by `benchmarks/models.py --rivals`; called with a list of tasks on standard input, this file is that process.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import harness
import rivals
import torch
from harness import Table
from torch import Tensor
from zoo import DTYPES, ZOO, placed, refusal

OURS = "cpp"
# Times the best rival at 1 s and 10 s, by precision; EnCodec's are over torch, eager and compiled, and over the others.
BARS: dict[str, dict[str, tuple[float, float]]] = {
    "v1": {"fp32": (1.6, 1.6), "bf16": (1.1, 1.1)},
    "v2": {"fp32": (1.5, 1.5), "bf16": (1.6, 1.6)},
    "v3": {"fp32": (1.7, 1.7), "bf16": (1.6, 1.6)},
    "cosyvoice2": {"fp32": (1.4, 1.4), "bf16": (1.15, 1.15)},
    "chatterbox": {"fp32": (1.4, 1.4), "bf16": (1.15, 1.15)},
    "vocos": {"fp32": (1.1, 1.1), "bf16": (1.05, 1.05)},
    **{
        f"encodec-{rate}-{way}": {"fp32": (1.3, 1.1), "bf16": (1.4, 1.1)}
        for rate in ("24k", "48k")
        for way in ("encode", "decode")
    },
}
MODELS = tuple(name for name in BARS if name != "chatterbox")
_ALONE = ("compile",)  # OpenVINO takes up to twice as long in a process that ran it
_SHORT = {"encodec": 1.3}  # over torch eager for 0.1 s; 2 for the convolutional models


_answers = sys.stdout


@dataclass(frozen=True)
class Task:
    """One comparison; `skip` maps rivals that are not tried to the reason."""

    model: str
    dtype: str
    batch: int
    seconds: float
    threads: int
    budget: float
    rivals: tuple[str, ...]
    skip: dict[str, str]

    @property
    def key(self) -> tuple[str, float, int, str]:
        return self.model, self.seconds, self.batch, self.dtype

    @property
    def kind(self) -> tuple[str, bool]:
        """What tasks have in common that share a process."""
        return self.model, any(rival in _ALONE for rival in self.rivals)

    def parts(self) -> list[Task]:
        """The same, with the rivals that share a process together."""
        groups = tuple(r for r in self.rivals if r not in _ALONE), *((r,) for r in self.rivals if r in _ALONE)
        return [replace(self, rivals=group) for group in groups if group]


def bar(row: dict[str, Any], rival: str) -> float | None:
    """What the ratio over a rival has to be."""
    if row["seconds"] < 0.5:
        return _SHORT.get(row["model"].partition("-")[0], 2.0) if rival == "torch" else None
    pair = BARS.get(row["model"], {}).get(row["dtype"])
    return None if pair is None else pair[0 if rival in ("torch", "compile") else 1]


def say(**facts: Any) -> None:
    print(json.dumps(facts), file=_answers, flush=True)


def error_of(found: Any, ours: Any) -> float:
    """Relative L2 of a rival's result, or the part of its codes that differ."""
    theirs, mine = ([t] if isinstance(t, Tensor) else list(t) for t in (found, ours))
    if [t.shape for t in theirs] != [t.shape for t in mine]:
        return float("inf")
    worst = 0.0
    for a, b in zip(theirs, mine, strict=True):
        if not b.is_floating_point():
            worst = max(worst, float((a != b).double().mean()))
            continue
        worst = max(worst, float((a.double() - b.double()).norm() / b.double().norm().clamp_min(1e-30)))
    return worst


def work(task: Task) -> dict[str, Any]:
    """Prepares the rivals, sees that they compute the same, and times them in turn."""
    entry, dtype = ZOO[task.model], DTYPES[task.dtype]
    model = entry.model("cpu", dtype)
    plain = model if dtype == torch.float32 else entry.model()
    inputs = placed(entry.inputs(model, task.seconds, task.batch), "cpu", dtype)

    @torch.inference_mode()
    def ours() -> Any:
        return entry.run(model, *inputs, backend=OURS)

    row: dict[str, Any] = {"model": task.model, "seconds": task.seconds, "batch": task.batch, "dtype": task.dtype}
    failed, runs, errors = dict(task.skip), {}, {}
    with torch.inference_mode():
        reference = entry.run(plain, *placed(inputs, "cpu", torch.float32), backend="torch")
    say(doing=OURS)
    if (problem := refusal(ours)) is not None:
        failed[OURS] = problem
    else:
        runs[OURS], errors[OURS] = ours, error_of(ours(), reference)
        ours()
    for rival in task.rivals:
        if rival in failed:
            continue
        say(doing=rival)
        own = model if rival in ("torch", "compile") else plain
        made = rivals.prepare(rival, entry, own, inputs, dtype, task.threads)
        if isinstance(made, rivals.Failed):
            failed[rival] = made.error
        else:
            runs[rival], errors[rival] = made[0], error_of(made[1], reference)
    say(doing="timing")
    if not runs or not task.budget:
        return row | {"impls": {}, "failed": failed}
    rested: dict[str, list[float]] = {}
    times = harness.interleaved(runs, task.budget, least=1, warm=True, rested=rested)
    rows = harness.summary(times, next(iter(runs)))
    for name, figures in rows.items():
        figures["rested_s"] = statistics.median(rested[name])
        figures["real_time"] = task.batch * entry.seconds(task.seconds) / figures["median_s"]
        figures["error"] = errors[name]
    row |= {"impls": rows, "failed": failed}
    if OURS in runs:
        over = {r: harness.ratio(times[r], times[OURS]) for r in task.rivals if r in runs}
        row |= {"best": OURS, "over": over, "over_best": min(over.values(), default=None)}
        row["over_rested"] = {r: harness.ratio(rested[r], rested[OURS]) for r in over}
    return row


def serve() -> None:
    """The process: tasks as JSON lines in, what it does and its results as JSON lines out."""
    global _answers
    # What the rivals print must not come between the answers.
    _answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        task = Task(**json.loads(line))
        torch.set_num_threads(task.threads)
        say(row=work(replace(task, rivals=tuple(task.rivals))))


class Worker:
    """A process that works on tasks."""

    def __init__(self) -> None:
        command = [sys.executable, __file__]
        # A group of its own, since a compiler in it starts processes, too.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
        self._rest = b""

    def tell(self, task: Task) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(task)).encode() + b"\n")
        self._process.stdin.flush()

    def hear(self, seconds: float) -> dict[str, Any] | None:
        """The next line, None when none comes in time or the process has ended."""
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as waiting:
            waiting.register(self._process.stdout, selectors.EVENT_READ)
            until = time.monotonic() + seconds
            while b"\n" not in self._rest:
                if not waiting.select(max(until - time.monotonic(), 0)):
                    return None
                if not (more := os.read(self._process.stdout.fileno(), 65536)):
                    return None
                self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    def end(self) -> int | None:
        """Ends the process with all that it started; its exit code if it had ended by itself."""
        code = self._process.poll()
        if code is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        return code


def results(tasks: list[Task], limit: float) -> Iterator[dict[str, Any]]:
    """The row of every task; a rival that takes longer than `limit` to prepare, or crashes, is left out and named."""
    worker, kind = Worker(), tasks[0].kind
    for task in tasks:
        if task.kind != kind:
            worker.end()
            worker, kind = Worker(), task.kind
        skip: dict[str, str] = {}
        row = None
        while row is None:
            worker.tell(replace(task, skip=skip))
            doing = "start"
            while (heard := worker.hear(limit if doing != "timing" else 10 * limit + 60 * task.budget)) is not None:
                doing = heard.get("doing", doing)
                if row := heard.get("row"):
                    break
            if row is None:
                code = worker.end()
                worker = Worker()
                if doing not in task.rivals:
                    raise SystemExit(f"{task.key}: {doing}: the process ended with {code}, None for no answer")
                skip[doing] = f"did not finish in {limit:.0f} s" if code is None else f"the process died ({code})"
        yield row
    worker.end()


def joined(row: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """One row of two that share a key: our own figures are the first one's."""
    both = row | {part: more.get(part, {}) | row.get(part, {}) for part in ("impls", "over", "over_rested", "failed")}
    return both | {"over_best": min(both["over"].values(), default=None)}


def show(rows: list[dict[str, Any]]) -> None:
    """Ratios over every rival, those below their bar marked with <."""
    table = Table("model", "s", "batch", "dtype", "ms", "x real time", *rivals.RIVALS, "best", "bar")
    for row in sorted(rows, key=lambda r: (r["model"], r["dtype"], r["batch"], r["seconds"])):
        own, over = row["impls"].get(OURS), row.get("over", {})
        cells = []
        for rival in rivals.RIVALS:
            needed = bar(row, rival)
            ratio = over.get(rival)
            low = needed is not None and ratio is not None and ratio < needed
            cells.append("-" if ratio is None else f"{ratio:.2f}{'<' if low else ''}")
        bars = sorted({b for r in rivals.RIVALS if (b := bar(row, r)) is not None}, reverse=True)
        best = row.get("over_best")
        table.add_row(
            row["model"],
            f"{row['seconds']:g}",
            str(row["batch"]),
            row["dtype"],
            f"{1e3 * own['median_s']:.2f}" if own else "-",
            f"{own['real_time']:.1f}" if own else "-",
            *cells,
            f"{best:.2f}" if best else "-",
            " / ".join(f"{b:g}" for b in bars) or "-",
        )
    table.print()
    reasons: dict[str, list[str]] = {}
    for row in rows:
        for impl, reason in row["failed"].items():
            where = f"{row['model']} {row['dtype']} {row['batch']}x{row['seconds']:g}s"
            reasons.setdefault(f"{impl}: {reason}", []).append(where)
    for reason, where in reasons.items():
        print(f"{reason[:160]} ({', '.join(where[:3])}{f' and {len(where) - 3} more' if len(where) > 3 else ''})")


def run(names: list[str], shapes: list[tuple[int, float]], args: Any) -> None:
    """Compares, prints, and merges each result into the file as soon as it is there."""
    wanted = [r for r in rivals.RIVALS if r in (args.only or rivals.RIVALS)]
    tasks = [
        Task(name, dtype, batch, audio, args.threads, args.budget, tuple(wanted), {})
        for name in names
        for dtype in args.dtype
        for batch, audio in shapes
    ]
    file = args.write or "models"
    done = {}
    if args.resume:
        revision = harness.machine("cpu")["revision"]
        known = (r for r in harness.read(file, "cpu") if r.get("revision") == revision and r.get("over"))
        done = {(r["model"], r["seconds"], r["batch"], r["dtype"]): r for r in known}
    parts = sorted((part for task in tasks if task.key not in done for part in task.parts()), key=lambda t: t.kind)
    start = time.monotonic()
    following: Callable[[], Iterator[dict[str, Any]]] = partial(results, parts, args.limit)
    for i, row in enumerate(following() if parts else (), 1):
        key = row["model"], row["seconds"], row["batch"], row["dtype"]
        done[key] = joined(done[key], row) if key in done else row
        figures = ", ".join(f"{r} {x:.2f}" for r, x in row.get("over", {}).items())
        where = f"{row['model']} {row['dtype']} {row['batch']} x {row['seconds']:g} s"
        print(f"[{i}/{len(parts)}, {time.monotonic() - start:.0f} s] {where}: {figures or row['failed']}", flush=True)
        if args.write is not None and args.budget:
            harness.merge(file, "cpu", [done[key]])
    show([done[task.key] for task in tasks])


if __name__ == "__main__":
    serve()
