"""Compiles Triton's kernels of models and of their streams into TRITON_CACHE_DIR, without a GPU.

TRITON_CACHE_DIR=build/gpu/triton python benchmarks/warm.py --target 90 --models v1 v3 --shapes 1x1 32x10

A machine with that GPU, this Triton and these sources then finds them compiled. What takes part is asked of the calls
themselves, which launch nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from stub_driver import stand_in  # before Triton comes in
from zoo import DTYPES, ZOO, placed

import fastvoc
from fastvoc.kernels import ahead, launch
from fastvoc.kernels.tuned import compile_for
from fastvoc.nn import pieces
from fastvoc.nn.wide import WideOnCpu
from fastvoc.vocoder import Vocoder

_CHUNK = 25  # frames of a stream's chunk
_CHUNKS = 12  # after which a stream is where all later chunks find it


def launches(name: str, dtype: torch.dtype, shapes: list[tuple[int, float]]) -> Iterator[launch.Launch]:
    """What calls of these shapes launch, and chunks of a stream where the model is a vocoder."""
    entry = ZOO[name]
    model: Any = entry.model("cpu", dtype)
    with torch.inference_mode(), fastvoc.use_backend("lstm=torch,*=triton"), launch.record(dry=True) as recording:
        for batch, seconds in shapes:
            entry.run(model, *placed(entry.inputs(model, seconds, batch), "cpu", dtype))
        if hasattr(model.config, "num_mels"):
            mel = entry.inputs(model, _CHUNK * model.config.hop / model.config.sample_rate, 1)[0].float()[0]
            streams = fastvoc.Streams(Vocoder(model, model.config), check=False)
            for _ in range(_CHUNKS):
                streams.step({"a": mel})
    yield from recording.launches


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", type=int, default=90, choices=ahead.TARGETS, help="compute capability, times ten")
    parser.add_argument("--models", nargs="+", choices=ZOO, required=True)
    parser.add_argument("--shapes", nargs="+", default=["1x1"], metavar="BxS", help="items x seconds of audio")
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=["bf16"])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    stand_in(args.target)
    WideOnCpu.stays_wide = lambda *_: False  # type: ignore[method-assign]
    pieces.cuttable = lambda *_: False
    shapes = [(int(b), float(s)) for b, s in (shape.split("x") for shape in args.shapes)]
    wanted: dict[ahead.Specialization, launch.Launch] = {}
    with compile_for(f"sm_{args.target}"):
        for name in args.models:
            for dtype in args.dtype:
                wanted |= {ahead.specialize(each): each for each in launches(name, DTYPES[dtype], shapes)}
    start = time.perf_counter()

    def compiled(each: launch.Launch) -> None:
        each.kernel.warmup(grid=each.grid, **each.arguments, **each.options, enable_fp_fusion=True)

    with ThreadPoolExecutor(args.threads) as threads:
        list(threads.map(compiled, wanted.values()))
    print(f"{len(wanted)} kernels for sm_{args.target} in {time.perf_counter() - start:.1f} s")
    return 0 if wanted else 1


if __name__ == "__main__":
    sys.exit(main())
