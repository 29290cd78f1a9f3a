"""Streams against one call: what the first chunk costs, what every chunk costs, and what peers' overlap would.

python benchmarks/streaming.py                       # chunks of 1, 5, 10 and 25 frames over 10 s of audio, 2 threads
python benchmarks/streaming.py --models v1 --chunks 5 --write
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import harness
import torch
from harness import Table
from torch import Tensor, nn
from zoo import ZOO

from fastvoc.streaming import context_frames

OVERLAP = 8  # frames on either side that overlap-and-recompute streaming commonly takes


def streamed(model: nn.Module, mel: Tensor, chunk: int, backend: str) -> tuple[list[float], Tensor]:
    """Seconds of every chunk, the flush last, and the samples."""
    stream, times, parts = model.stream(backend), [], []
    frames = mel.shape[2]
    for t in [*range(0, frames, chunk), None]:
        start = time.perf_counter()
        parts.append(stream.step(mel[:, :, :0] if t is None else mel[:, :, t : t + chunk], t is None))
        times.append(time.perf_counter() - start)
    return times, torch.cat(parts, 2)


def overlapped(model: nn.Module, mel: Tensor, chunk: int, hop: int, backend: str) -> tuple[float, Tensor]:
    """The same by running each chunk with OVERLAP frames on either side and cutting them off: seconds, samples."""
    start, parts, frames = time.perf_counter(), [], mel.shape[2]
    for t in range(0, frames, chunk):
        low, high = max(t - OVERLAP, 0), min(t + chunk + OVERLAP, frames)
        wav = model(mel[:, :, low:high], backend=backend)
        parts.append(wav[:, :, (t - low) * hop : (min(t + chunk, frames) - low) * hop])
    return time.perf_counter() - start, torch.cat(parts, 2)


def measure(name: str, chunk: int, audio: float, budget: float, backend: str) -> dict[str, Any]:
    """One model at one chunk size: streamed and overlapped against one call, interleaved."""
    entry = ZOO[name]
    model = entry.model()
    hop = model.config.hop
    (mel,) = entry.inputs(model, audio, 1)
    rows: dict[str, list[float]] = {"whole": [], "streamed": [], "overlapped": [], "first": [], "chunk": []}
    with torch.inference_mode():
        whole = model(mel, backend=backend)
        began = time.perf_counter()
        while time.perf_counter() - began < budget or len(rows["whole"]) < 3:
            start = time.perf_counter()
            model(mel, backend=backend)
            rows["whole"].append(time.perf_counter() - start)
            times, wav = streamed(model, mel, chunk, backend)
            rows["streamed"].append(sum(times))
            rows["first"].append(times[0])
            rows["chunk"].append(statistics.median(times[1:-1] or times))
            seconds, cut = overlapped(model, mel, chunk, hop, backend)
            rows["overlapped"].append(seconds)
    ratio = [s / w for s, w in zip(rows["streamed"], rows["whole"], strict=True)]
    recompute = [s / w for s, w in zip(rows["overlapped"], rows["whole"], strict=True)]
    length = min(cut.shape[2], whole.shape[2])
    return {
        "model": name,
        "chunk_frames": chunk,
        "seconds": audio,
        "latency_frames": context_frames(model, hop, backend)[1],
        "first_chunk_ms": 1e3 * statistics.median(rows["first"]),
        "chunk_ms": 1e3 * statistics.median(rows["chunk"]),
        "streamed_over_whole": statistics.median(ratio),
        "overlapped_over_whole": statistics.median(recompute),
        "streamed_error": _relative(wav, whole),
        "overlapped_error": _relative(cut[:, :, :length], whole[:, :, :length]),
    }


def _relative(ours: Tensor, whole: Tensor) -> float:
    return ((ours.double() - whole.double()).norm() / whole.double().norm()).item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=ZOO, default=["v1", "v2", "v3"])
    parser.add_argument("--chunks", nargs="+", type=int, default=[1, 5, 10, 25])
    parser.add_argument("--seconds", type=float, default=10.0)
    harness.add_arguments(parser, budget=10.0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    table = Table("model", "chunk", "first ms", "chunk ms", "x whole", "x whole, overlap", "error", "error, overlap")
    rows = []
    for name in args.models:
        for chunk in args.chunks:
            row = measure(name, chunk, args.seconds, args.budget, args.impl[-1])
            rows.append(row)
            costs = f"{row['streamed_over_whole']:.2f}", f"{row['overlapped_over_whole']:.2f}"
            errors = f"{row['streamed_error']:.1e}", f"{row['overlapped_error']:.1e}"
            table.add_row(name, str(chunk), f"{row['first_chunk_ms']:.2f}", f"{row['chunk_ms']:.2f}", *costs, *errors)
    table.print()
    if args.write:
        print(f"written: {harness.write('streaming', args.device, rows)}")


if __name__ == "__main__":
    main()
