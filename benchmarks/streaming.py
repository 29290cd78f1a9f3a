"""Streams against one call: what the first chunk costs, what every chunk costs, and what peers' overlap would.

python benchmarks/streaming.py                       # chunks of 1, 5, 10 and 25 frames over 10 s of audio, 2 threads
python benchmarks/streaming.py --models v1 --chunks 5 --write

An exact stream equals an exact call bit for bit; a fast one (exact=False) computes as the default call does. The codecs
have one kind of both. Costs are medians over rounds in which all run in turn.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import harness
import torch
from table import Table
from torch import Tensor
from zoo import ZOO
from zoo_encodec import BANDWIDTH

from fastvoc.runtime.registry import use_exact
from fastvoc.streams.stream import context_frames

OVERLAP = 8  # frames on either side that overlap-and-recompute streaming commonly takes
MODELS = ["v1", "cosyvoice2", "vocos", "encodec-24k-decode", "encodec-24k-encode", "v2", "v3"]


@dataclass(frozen=True)
class Case:
    """A model on a signal [1, C, T] in time: `call` maps all of it, `stream(exact)` begins a stream.

    A frame is `frame` steps of the input and `made` of the output.
    """

    x: Tensor
    call: Callable[[Tensor], Tensor]
    stream: Callable[[bool], Any]
    frame: int
    made: int
    latency: int

    def pieces(self, chunk: int) -> list[tuple[int, int]]:
        """The input steps of every chunk."""
        size, steps = chunk * self.frame, self.x.shape[2]
        return [(t, min(t + size, steps)) for t in range(0, steps, size)]


def case(name: str, audio: float, backend: str) -> Case:
    """One row of the zoo for so many seconds."""
    entry = ZOO[name]
    model: Any = entry.model()
    (x,) = entry.inputs(model, audio, 1)
    hop = model.config.hop
    if name.endswith("-encode"):
        books = model.config.codebooks(BANDWIDTH)

        def encode(wav: Tensor) -> Tensor:
            codes: Tensor = model.encode(wav, books, backend=backend)[0][0]
            return codes

        return Case(x, encode, lambda _: model.encode_stream(books, backend), hop, 1, 0)
    if name.endswith("-decode"):
        decode = entry.run
        return Case(x, lambda c: decode(model, c, backend=backend), lambda _: model.decode_stream(backend), 1, hop, 0)
    ahead = context_frames(model, hop, backend)[1]

    def stream(exact: bool) -> Any:
        return model.stream(backend, exact=exact)

    return Case(x, lambda mel: model(mel, backend=backend), stream, 1, hop, ahead)


def streamed(c: Case, chunk: int, exact: bool) -> tuple[list[float], Tensor]:
    """Seconds of every chunk, the flush last, and the output."""
    stream, times, parts = c.stream(exact), [], []
    for low, high in [*c.pieces(chunk), (0, 0)]:
        start = time.perf_counter()
        parts.append(stream.step(c.x[:, :, low:high], high == 0))
        times.append(time.perf_counter() - start)
    return times, torch.cat(parts, 2)


def overlapped(c: Case, chunk: int) -> tuple[float, Tensor]:
    """The same by running each chunk with OVERLAP frames on either side and cutting them off: seconds, output."""
    start, parts, margin = time.perf_counter(), [], OVERLAP * c.frame
    for begin, end in c.pieces(chunk):
        low = max(begin - margin, 0)
        y = c.call(c.x[:, :, low : end + margin])
        first, last = ((t - low) // c.frame * c.made for t in (begin, end))
        parts.append(y[:, :, first:last])
    return time.perf_counter() - start, torch.cat(parts, 2)


def measure(name: str, chunk: int, audio: float, budget: float, backend: str) -> dict[str, Any]:
    """One model at one chunk size: both kinds of stream, both kinds of call, and overlap, interleaved."""
    c = case(name, audio, backend)
    times: dict[str, list[float]] = {k: [] for k in ("whole", "exact", "stream", "fast", "overlap", "first", "chunk")}

    def timed(kind: str, run: Callable[[], Tensor]) -> Tensor:
        start = time.perf_counter()
        y = run()
        times[kind].append(time.perf_counter() - start)
        return y

    def exactly() -> Tensor:
        with use_exact():
            return c.call(c.x)

    with torch.inference_mode():
        c.call(c.x), exactly(), streamed(c, chunk, True), streamed(c, chunk, False)
        began = time.perf_counter()
        while time.perf_counter() - began < budget or len(times["whole"]) < 3:
            whole, exact = timed("whole", lambda: c.call(c.x)), timed("exact", exactly)
            spent, wav = streamed(c, chunk, True)
            times["stream"].append(sum(spent))
            spent, fast = streamed(c, chunk, False)
            times["fast"].append(sum(spent))
            times["first"].append(spent[0])
            times["chunk"].append(statistics.median(spent[1:-1] or spent))
            seconds, cut = overlapped(c, chunk)
            times["overlap"].append(seconds)
    length = min(cut.shape[2], whole.shape[2])
    return {
        "model": name,
        "chunk_frames": chunk,
        "seconds": audio,
        "latency_frames": c.latency,
        "first_chunk_ms": 1e3 * statistics.median(times["first"]),
        "chunk_ms": 1e3 * statistics.median(times["chunk"]),
        "fast_over_whole": harness.ratio(times["fast"], times["whole"]),
        "exact_over_exact": harness.ratio(times["stream"], times["exact"]),
        "exact_over_whole": harness.ratio(times["stream"], times["whole"]),
        "overlapped_over_whole": harness.ratio(times["overlap"], times["whole"]),
        "exact_equal": torch.equal(wav, exact),
        "fast_error": difference(fast, whole),
        "overlapped_error": difference(cut[:, :, :length], whole[:, :, :length]),
        "rounds": len(times["whole"]),
    }


def difference(ours: Tensor, whole: Tensor) -> float:
    """Relative L2 of samples; of codes the share that differs."""
    if not whole.is_floating_point():
        return (ours != whole).double().mean().item()
    return ((ours.double() - whole.double()).norm() / whole.double().norm()).item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=ZOO, default=MODELS)
    parser.add_argument("--chunks", nargs="+", type=int, default=[1, 5, 10, 25])
    parser.add_argument("--seconds", type=float, default=10.0)
    harness.add_arguments(parser, budget=10.0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    costs = "fast / default", "exact / exact", "exact / default", "overlap / default"
    table = Table("model", "chunk", "first ms", "chunk ms", *costs, "bits", "fast error", "overlap error")
    rows = []
    for name in args.models:
        for chunk in args.chunks:
            row = measure(name, chunk, args.seconds, args.budget, args.impl[-1])
            rows.append(row)
            ratios = (
                row[f"{kind}_over_{over}"]
                for kind, over in (("fast", "whole"), ("exact", "exact"), ("exact", "whole"), ("overlapped", "whole"))
            )
            ms = f"{row['first_chunk_ms']:.2f}", f"{row['chunk_ms']:.2f}"
            errors = f"{row['fast_error']:.1e}", f"{row['overlapped_error']:.1e}"
            table.add_row(name, str(chunk), *ms, *(f"{r:.2f}" for r in ratios), str(row["exact_equal"]), *errors)
    table.print()
    if args.write is not None:
        path = harness.merge(args.write or "streaming", args.device, rows, ("model", "seconds", "chunk_frames"))
        print(f"written: {path}")


if __name__ == "__main__":
    main()
