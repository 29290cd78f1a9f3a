"""Python calls that a request makes, counted by `sys.setprofile` over all code: python benchmarks/calls.py [--json]."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch

from fastvoc.codec import Codec
from fastvoc.models.encodec import Encodec
from fastvoc.models.encodec_config import EncodecConfig
from fastvoc.models.hifigan import HIFIGAN_V2, HifiGan
from fastvoc.vocoder import Vocoder


def count(run: Callable[[], Any], where: Counter[str] | None = None) -> int:
    """Python functions entered by a call of `run`, after two calls that count nothing."""
    run()
    run()
    calls = 0

    def profile(frame: FrameType, event: str, _: Any) -> None:
        nonlocal calls
        if event == "call":
            calls += 1
            if where is not None:
                where[f"{frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_code.co_name}"] += 1

    sys.setprofile(profile)
    try:
        run()
    finally:
        sys.setprofile(None)
    return calls - 1  # run itself


def small_codec() -> Codec:
    """EnCodec's shape with few channels and random weights."""
    torch.manual_seed(0)
    config = EncodecConfig(n_filters=4, dimension=16, bandwidths=(6.0,))
    return Codec(Encodec(config).eval().requires_grad_(False), config)


def requests() -> dict[str, Callable[[], Any]]:
    """What is counted: HiFi-GAN V2 on 40 frames, EnCodec on 50 frames of all its codebooks."""
    voc = Vocoder(HifiGan(HIFIGAN_V2).eval().requires_grad_(False), HIFIGAN_V2)
    codec = small_codec()
    mel = torch.randn(80, 40) - 5
    codes = torch.randint(0, 1024, (codec.config.n_q, 50))
    live, sound = voc.stream(), codec.decoding(codec.config.n_q).stream()
    for _ in range(4):  # past the beginning, where every chunk is like the last
        live.push(mel)
        sound.push(codes)
    return {
        "voc(mel, check=False)": lambda: voc(mel, check=False),
        "voc(mel, lengths, check=False)": lambda: voc(mel[None], [40], check=False),
        "voc.stream().push, 10 frames": lambda: live.push(mel[:, :10]),
        "codec.decode": lambda: codec.decode(codes),
        "codec.decoding().stream().push": lambda: sound.push(codes[:, :2]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--where", action="store_true", help="print which functions")
    options = parser.parse_args()
    found = {}
    for name, run in requests().items():
        where: Counter[str] = Counter()
        found[name] = count(run, where)
        if options.where:
            print(f"\n{name}")
            for what, times in where.most_common(40):
                print(f"  {times:4d} {what}")
    print(json.dumps(found, indent=1) if options.json else "\n".join(f"{n:5d}  {name}" for name, n in found.items()))


if __name__ == "__main__":
    main()
