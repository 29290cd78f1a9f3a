"""Mimi decoded by frames of 80 ms, as speech models make them: our stream against Transformers' own streaming.

python benchmarks/mimi_frames.py --threads 1 --write codecs-avx2-1

Each has a process of its own with the same sizes and random weights, to which the turns are handed; a turn is so many
frames of a stream that goes on, behind enough of them to fill the transformer's window.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
import torch
from table import Table
from torch import Tensor
from zoo import ZOO
from zoo_mimi import BOOKS

CONTENDERS = ("ours", "transformers")
BEFORE, TURN = 130, 10  # frames that fill the window of 250 steps, and of a turn


def ours() -> Callable[[Tensor], Tensor]:
    """Codes [1, 8, 1] of the next frame to its samples, by our stream."""
    model: Any = ZOO["mimi-decode"].model()
    stream = model.decode_stream("cpp")
    return lambda codes: stream.step(codes, False)  # type: ignore[no-any-return]


def transformers() -> Callable[[Tensor], Tensor]:
    """The same by Transformers' model, which hands on the keys and values of its transformer."""
    sys.path.remove(str(Path(__file__).parent))  # whose kernels.py is not the package that Transformers looks for
    from transformers import MimiConfig, MimiModel

    model = MimiModel(MimiConfig()).eval()
    kept: list[Any] = [None]

    def decode(codes: Tensor) -> Tensor:
        made = model.decode(codes, decoder_cache=kept[0], use_cache=True, return_dict=True)
        kept[0] = made.decoder_cache
        wav: Tensor = made.audio_values
        return wav

    return decode


@torch.inference_mode()
def serve(name: str, threads: int) -> None:
    """The process: at every line of standard input a turn; answers the seconds of each of its frames."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    decode = {"ours": ours, "transformers": transformers}[name]()
    frames = torch.randint(0, 2048, (64, 1, BOOKS, 1))
    for i in range(BEFORE):
        decode(frames[i % 64])
    print(json.dumps("ready"), flush=True)
    for _ in sys.stdin:
        times = []
        for frame in frames[:TURN]:
            began = time.perf_counter()
            decode(frame)
            times.append(time.perf_counter() - began)
        print(json.dumps(times), flush=True)


def turns(threads: int, budget: float) -> dict[str, list[float]]:
    """The median frame of every turn, each contender in turn until the budget of seconds is spent."""
    seats = {
        name: subprocess.Popen(
            [sys.executable, __file__, "--serve", name, "--threads", str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for name in CONTENDERS
    }

    def answer(name: str) -> Any:
        out = seats[name].stdout
        assert out is not None
        line = out.readline()
        if not line:
            raise SystemExit(f"{name}: the process died ({seats[name].wait()})")
        return json.loads(line)

    found: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for name in CONTENDERS:
        answer(name)
    began, rounds = time.monotonic(), 0
    while rounds < 3 or time.monotonic() - began < budget:
        for name in CONTENDERS[::-1] if rounds % 2 else CONTENDERS:
            seat = seats[name].stdin
            assert seat is not None
            seat.write("\n")
            seat.flush()
            found[name].append(statistics.median(answer(name)))
        rounds += 1
    for process in seats.values():
        process.kill()
        process.wait()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--budget", type=float, default=20.0, help="seconds of turns")
    parser.add_argument("--write", help="the name of a result file to merge into")
    parser.add_argument("--serve", choices=CONTENDERS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.serve, args.threads)
        return
    torch.set_num_threads(args.threads)
    times = turns(args.threads, args.budget)
    row: dict[str, Any] = {"model": "mimi-frames", "seconds": 0.08, "batch": 1, "dtype": "fp32"}
    row |= {"threads": args.threads, "impls": harness.summary(times, "ours")}
    row["over"] = {"transformers": harness.ratio(times["transformers"], times["ours"])}
    table = Table("contender", "median ms a frame", "least", "ours is times as fast")
    for name, of in row["impls"].items():
        table.add_row(name, f"{1e3 * of['median_s']:.2f}", f"{1e3 * of['best_s']:.2f}", f"{1 / of['speedup']:.2f}")
    table.print()
    if args.write:
        print(f"written: {harness.merge(args.write, 'cpu', [row])}")


if __name__ == "__main__":
    main()
