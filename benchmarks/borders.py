"""What borders cost on speech: overlap and recompute as peers stream, and streams with less than exact look-ahead.

python benchmarks/borders.py ../shared/speech/valid              # the embedded voice on clips of speech
python benchmarks/borders.py clips --model g_02500000 --chunk 10

Error: relative L2 of all samples against one call. Worst: the same over the 10 ms of a clip where it is largest, beside
the mean level of the clip.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import harness
import torch
from table import Table
from torch import Tensor

import fastvoc
from fastvoc.training.data import find_clips, read_clip


def chunks(mel: Tensor, size: int) -> Iterator[tuple[int, int]]:
    """The frames of every chunk."""
    return pairwise([*range(0, mel.shape[1], size), mel.shape[1]])


def streamed(voc: Any, mel: Tensor, size: int, lookahead: int | None) -> Tensor:
    """In chunks with so much look-ahead; exact when None."""
    with voc.stream(lookahead=lookahead) as live:
        return torch.cat([*(live.push(mel[:, a:b]) for a, b in chunks(mel, size)), live.flush()])


def overlapped(voc: Any, mel: Tensor, size: int, margin: int) -> Tensor:
    """In calls of their own with so many frames on either side, which are cut off."""
    parts = []
    for a, b in chunks(mel, size):
        low = max(a - margin, 0)
        wav = voc(mel[:, low : b + margin], check=False, exact=True)
        parts.append(wav[(a - low) * voc.hop : (b - low) * voc.hop])
    return torch.cat(parts)


def errors(wav: Tensor, whole: Tensor, window: int) -> tuple[float, float]:
    """Of all samples, and of the worst window, beside the mean level: what is wrong in silence is not loud."""
    gap, level = (wav.double() - whole.double()).square(), whole.double().square().mean()
    worst = max(piece.mean() / level for piece in gap.split(window))
    return float((gap.mean() / level).sqrt()), float(worst.sqrt())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, help="folder or list of clips of speech")
    parser.add_argument(
        "--model", default="hifigan", help="what fastvoc.load takes: a name, a file, a folder, a hub id"
    )
    parser.add_argument("--chunk", type=int, default=5, help="frames of a chunk")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="write the result file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    voc = fastvoc.load(args.model)
    mels = [voc.mel(read_clip(path, voc.sample_rate)) for path in find_clips(args.clips)]
    wholes = [voc(mel, exact=True) for mel in mels]
    exact = voc.latency.frames
    ways: list[tuple[str, int, Callable[[Tensor, int], Tensor]]] = [
        ("overlap", n, lambda mel, n: overlapped(voc, mel, args.chunk, n)) for n in sorted({1, 2, 4, 8, exact})
    ]
    ways += [("look-ahead", n, lambda mel, n: streamed(voc, mel, args.chunk, n)) for n in range(exact + 1)]
    table, rows = Table("way", "frames", "ms later", "error", "worst"), []
    for way, frames, run in ways:
        window = voc.sample_rate // 100
        found = [errors(run(mel, frames), whole, window) for mel, whole in zip(mels, wholes, strict=True)]
        late = 1000 * frames * voc.hop / voc.sample_rate
        row = {"way": way, "frames": frames, "late_ms": late, "chunk_frames": args.chunk, "model": args.model}
        row |= {"error": fmean(error for error, _ in found), "worst": max(worst for _, worst in found)}
        rows.append(row)
        table.add_row(way, str(frames), f"{late:.0f}", f"{row['error']:.1e}", f"{row['worst']:.1e}")
    table.print()
    if args.write:
        print(f"written: {harness.write('borders', 'cpu', rows)}")


if __name__ == "__main__":
    main()
