"""Ours against the rivals on the CPU: each in a process of its own, so that no library's threads sit in another's turn.

Run by `benchmarks/models.py --rivals`, which hands the turns over; called with the name of one of them, this file is
its process. One that takes too long or dies is left out and named.
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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import harness
import rivals
import torch
from table import Table
from torch import Tensor
from zoo import DTYPES, ZOO, placed, refusal

OURS = "cpp"
# Times torch, eager and compiled, and times the others, by precision.
BARS: dict[str, dict[str, tuple[float, float]]] = {
    "v1": {"fp32": (1.6, 1.6), "bf16": (1.1, 1.1)},
    "v2": {"fp32": (1.5, 1.5), "bf16": (1.6, 1.6)},
    "v3": {"fp32": (1.7, 1.7), "bf16": (1.6, 1.6)},
    "cosyvoice2": {"fp32": (1.4, 1.4), "bf16": (1.15, 1.15)},
    "chatterbox": {"fp32": (1.4, 1.4), "bf16": (1.15, 1.15)},
    "vocos": {"fp32": (1.1, 1.1), "bf16": (1.05, 1.05)},
    "kokoro": {"fp32": (1.8, 1.5)},
    **{
        f"encodec-{rate}-{way}": {"fp32": (1.3, 1.1), "bf16": (1.4, 1.1)}
        for rate in ("24k", "48k")
        for way in ("encode", "decode")
    },
}
MODELS = tuple(name for name in BARS if name not in ("chatterbox", "kokoro"))
_SHORT = {"encodec": 1.3}  # over torch eager for 0.1 s; 2 for the convolutional models


@dataclass(frozen=True)
class Task:
    """One comparison."""

    model: str
    dtype: str
    batch: int
    seconds: float
    threads: int

    @property
    def key(self) -> tuple[str, float, int, str]:
        return self.model, self.seconds, self.batch, self.dtype


def bar(row: dict[str, Any], rival: str) -> float | None:
    """What the ratio over a rival has to be."""
    if row["seconds"] < 0.5:
        return _SHORT.get(row["model"].partition("-")[0], 2.0) if rival == "torch" else None
    pair = BARS.get(row["model"], {}).get(row["dtype"])
    return None if pair is None else pair[0 if rival in ("torch", "compile") else 1]


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


@torch.inference_mode()
def contender(name: str, task: Task) -> tuple[Callable[[], Any], float] | str:
    """What runs the task, and how far it is from float32 in torch; or why nothing does."""
    entry, dtype = ZOO[task.model], DTYPES[task.dtype]
    torch.set_num_threads(task.threads)
    model = entry.model("cpu", dtype)
    plain = model if dtype == torch.float32 else entry.model()
    torch.manual_seed(0)
    inputs = placed(entry.inputs(model, task.seconds, task.batch), "cpu", dtype)
    reference = entry.run(plain, *placed(inputs, "cpu", torch.float32), backend="torch")

    @torch.inference_mode()
    def ours() -> Any:
        return entry.run(model, *inputs, backend=OURS)

    if name == OURS:
        problem = refusal(ours)
        return problem if problem is not None else (ours, error_of(ours(), reference))
    made = rivals.prepare(name, entry, model if name in ("torch", "compile") else plain, inputs, dtype, task.threads)
    return made.error if isinstance(made, rivals.Failed) else (made[0], error_of(made[1], reference))


def serve(name: str) -> None:
    """The process: on standard input a task, which it prepares, or an empty object, at which it takes its turn."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the rivals print must not come between the answers
    run: Callable[[], Any] = int
    for line in sys.stdin:
        said = json.loads(line)
        if said:
            made = contender(name, Task(**said))
            if isinstance(made, str):
                answer: dict[str, Any] = {"failed": made}
            else:
                run, off = made
                answer = {"error": off}
        else:
            answer = dict(zip(("rested", "usual"), harness.by_clock(run), strict=True))
        print(json.dumps(answer), file=answers, flush=True)


class Seat:
    """The process of one contender."""

    def __init__(self, name: str) -> None:
        self.ended = False
        # A group of its own, since a compiler in it starts processes, too.
        self._process = subprocess.Popen(
            [sys.executable, __file__, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"},  # to import neighbours
        )

    def ask(self, said: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Its answer; "failed" says that none came in time, or that the process has ended, as it then has."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(said).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return {"failed": f"the process died ({self.end()})"}
        rest, until = b"", time.monotonic() + seconds
        with selectors.DefaultSelector() as waiting:
            waiting.register(self._process.stdout, selectors.EVENT_READ)
            while not rest.endswith(b"\n"):
                if not waiting.select(max(until - time.monotonic(), 0)):
                    self.end()
                    return {"failed": f"did not finish in {seconds:g} s"}
                if not (more := os.read(self._process.stdout.fileno(), 65536)):
                    return {"failed": f"the process died ({self.end()})"}
                rest += more
        answer: dict[str, Any] = json.loads(rest)
        return answer

    def end(self) -> int:
        """Ends the process with all that it started; its exit code."""
        self.ended = True
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        return self._process.wait()


class Seats:
    """The contenders' processes, begun when they are first asked and again after they have ended."""

    def __init__(self) -> None:
        self._seats: dict[str, Seat] = {}

    def ask(self, name: str, said: dict[str, Any], seconds: float) -> dict[str, Any]:
        if name not in self._seats:
            self._seats[name] = Seat(name)
        answer = self._seats[name].ask(said, seconds)
        if self._seats[name].ended:
            del self._seats[name]
        return answer

    def end(self) -> None:
        for seat in self._seats.values():
            seat.end()
        self._seats.clear()


@contextmanager
def beside(loops: int) -> Iterator[None]:
    """So many processes that do nothing but take processor time."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(loops)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def turns(seats: Seats, names: Sequence[str], budget: float, limit: float) -> dict[str, list[dict[str, Any]]]:
    """What each contender says of its turns, round by round, every other round in the opposite order.

    The answer of one that failed is the last of its list, which is then shorter.
    """
    said: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    playing, start, rounds = list(names), time.monotonic(), 0
    while playing and (rounds == 0 or time.monotonic() - start < budget):
        for name in playing[::-1] if rounds % 2 else playing:
            said[name].append(seats.ask(name, {}, limit))
        playing = [name for name in playing if "failed" not in said[name][-1]]
        rounds += 1
    return said


def compare(seats: Seats, task: Task, wanted: Sequence[str], args: Any) -> dict[str, Any]:
    """Prepares the contenders, sees that they compute the same, and times them in turn."""
    row: dict[str, Any] = {"model": task.model, "seconds": task.seconds, "batch": task.batch, "dtype": task.dtype}
    row |= {"threads": task.threads, "busy": args.busy}
    failed: dict[str, str] = {}
    errors: dict[str, float] = {}
    for name in (OURS, *wanted):
        answer = seats.ask(name, asdict(task), args.limit)
        if "failed" in answer:
            failed[name] = answer["failed"]
        else:
            errors[name] = answer["error"]
    if not args.budget:
        return row | {"impls": {}, "failed": failed}
    with beside(os.cpu_count() or 1 if args.busy else 0):
        said = turns(seats, list(errors), args.budget, 10 * args.limit)
    failed |= {name: answers[-1]["failed"] for name, answers in said.items() if "failed" in answers[-1]}
    said = {name: answers for name, answers in said.items() if name not in failed}
    if not said:
        return row | {"impls": {}, "failed": failed}
    times, rested = ({n: [a[kind] for a in answers] for n, answers in said.items()} for kind in ("usual", "rested"))
    rows = harness.summary(times, next(iter(times)))
    for name, figures in rows.items():
        figures["rested_s"] = statistics.median(rested[name])
        figures["real_time"] = task.batch * ZOO[task.model].seconds(task.seconds) / figures["median_s"]
        figures["error"] = errors[name]
    row |= {"impls": rows, "failed": failed}
    if OURS in rows:
        over = {name: harness.ratio(times[name], times[OURS]) for name in wanted if name in rows}
        row |= {"best": OURS, "over": over, "over_best": min(over.values(), default=None)}
        row["over_rested"] = {name: harness.ratio(rested[name], rested[OURS]) for name in over}
    return row


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
        Task(name, dtype, batch, audio, args.threads)
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
    start, seats = time.monotonic(), Seats()
    left = [task for task in tasks if task.key not in done]
    for i, task in enumerate(left, 1):
        if i > 1 and task.model != left[i - 2].model:
            seats.end()
        row = done[task.key] = compare(seats, task, wanted, args)
        figures = ", ".join(f"{r} {x:.2f}" for r, x in row.get("over", {}).items())
        where = f"{row['model']} {row['dtype']} {row['batch']} x {row['seconds']:g} s"
        print(f"[{i}/{len(left)}, {time.monotonic() - start:.0f} s] {where}: {figures or row['failed']}", flush=True)
        if args.write is not None and args.budget:
            harness.merge(file, "cpu", [row])
    seats.end()
    show([done[task.key] for task in tasks])


if __name__ == "__main__":
    serve(sys.argv[1])
