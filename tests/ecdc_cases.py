"""Streams and language models for the tests of .ecdc files."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import fastvoc
from fastvoc import ecdc
from fastvoc.models.encodec_lm import EncodecLm, EncodecLmConfig
from helpers import GoldenCase

MONO, STEREO = "encodec_24khz", "encodec_48khz"


def golden_lm(case: GoldenCase, kind: str) -> EncodecLm:
    """The language model of the golden files, `kind` is mono or stereo."""
    rate, codebooks = (24000, 4) if kind == "mono" else (48000, 2)
    config = EncodecLmConfig(rate, codebooks, dim=16, layers=2, hidden=64, past=7)
    model = EncodecLm(config)
    model.load_state_dict(torch.load(case.dir / f"encodec_{rate // 1000}khz_lm.th", weights_only=True))
    return model


def golden_stream(case: GoldenCase, kind: str, end: str) -> bytes:
    """A golden file, with the volumes of its segments as square roots are rounded here.

    torch's square root is MKL's, whose last bit depends on the processor: by one step either way.
    """
    data = (case.dir / f"{kind}_{end}.ecdc").read_bytes()
    if kind == "mono":
        return data
    here = fastvoc.load(case.dir / "encodec_48khz.th").encode(case.inputs["audio_stereo"], 3.0).scale
    assert here is not None
    for golden, volume in zip(case.outputs["scale_stereo"], here.flatten(), strict=True):
        assert abs(golden.view(torch.int32) - volume.view(torch.int32)) <= 1
        before, after = (struct.pack("!f", value.item()) for value in (golden, volume))
        assert data.count(before) == 1
        data = data.replace(before, after)
    return data


def rounds_as_golden(case: GoldenCase) -> bool:
    """Whether this processor gives the golden probabilities to the bit, as the files with a language model ask for."""
    model, state = golden_lm(case, "mono"), None
    codes = case.outputs["codes_mono"]
    tokens = torch.cat([torch.zeros_like(codes[:, :, :1]), codes[:, :, :-1] + 1], 2)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for step, expected in enumerate(case.outputs["lm_probs_mono"]):
            with torch.no_grad():
                made, state = model.eval()(tokens[:, :, step : step + 1], state)
            if not torch.equal(made[0, :, 0], expected):
                return False
    finally:
        torch.set_num_threads(before)
    return True


@dataclass(frozen=True)
class ToyLm:
    """Expects each code to be the last one plus the codebook's number; counts that steps come in order."""

    fingerprint: str = ""

    def start(self, codebooks: int) -> ToySteps:
        return ToySteps(codebooks)


class ToySteps:
    def __init__(self, codebooks: int) -> None:
        self._codebooks = codebooks
        self._time = 0

    def step(self, codes: np.ndarray | None) -> np.ndarray:
        assert (codes is None) == (self._time == 0)
        shares = np.full((self._codebooks, 1024), 2, np.int64)
        for k in range(self._codebooks):
            expected = k if codes is None else (int(codes[k]) + k + self._time) % 1024
            shares[k] += 4000
            shares[k, expected] += (1 << 24) - shares[k].sum()
        self._time += 1
        return np.cumsum(shares, axis=1).astype(np.uint32)


def random_codes(codebooks: int, number: int, seed: int = 0) -> np.ndarray:
    """Codes of which every third is what ToyLm expects."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 1024, (codebooks, number)).astype(np.uint16)
    for t in range(1, number):
        likely = (codes[:, t - 1] + np.arange(codebooks) + t) % 1024
        codes[:, t] = np.where(rng.random(codebooks) < 0.3, likely, codes[:, t])
    return codes


def parts_of(header: ecdc.Header, samples: int, seed: int = 0) -> list[tuple[np.ndarray, float | None]]:
    """Random codes and volumes of each segment of a stream."""
    layout = header.layout
    return [
        (
            random_codes(header.codebooks, ecdc.steps(layout.length(i, samples)), seed + i),
            float(np.float32(0.1 + i)) if layout.scaled else None,
        )
        for i in range(layout.count(samples))
    ]


def written(header: ecdc.Header, parts: list[tuple[np.ndarray, float | None]], samples: int, lm: Any = None) -> bytes:
    """The bytes of a stream."""
    file = io.BytesIO()
    with ecdc.Writer(file, header, lm) as writer:
        for codes, scale in parts:
            writer.write(codes, scale)
        writer.close(samples)
    return file.getvalue()


def read(file: Any, lm: Any = None) -> tuple[ecdc.Header, list[tuple[np.ndarray, float | None]]]:
    """Header and whole segments of a stream; bytes or a file object."""
    reader = ecdc.Reader(io.BytesIO(file) if isinstance(file, bytes) else file)
    parts: list[tuple[list[np.ndarray], float | None]] = []
    for block in reader.blocks(lm):
        if block.first:
            parts.append(([], block.scale))
        parts[-1][0].append(block.codes)
    return reader.header, [(np.concatenate(blocks, axis=1), scale) for blocks, scale in parts]


def same(a: list[tuple[np.ndarray, float | None]], b: list[tuple[np.ndarray, float | None]]) -> bool:
    """Whether two lists of segments are equal."""
    return len(a) == len(b) and all(np.array_equal(x[0], y[0]) and x[1] == y[1] for x, y in zip(a, b, strict=True))


# Small streams of every kind: header, samples, language model.
STREAMS: dict[str, tuple[ecdc.Header, int, Any]] = {
    "mono": (ecdc.Header(MONO, 3), 3201, None),
    "mono coded": (ecdc.Header(MONO, 3, lm=True), 3201, ToyLm()),
    "mono portable": (ecdc.Header(MONO, 3, version=ecdc.PORTABLE), 3201, None),
    "mono portable coded": (
        ecdc.Header(MONO, 3, lm=True, version=ecdc.PORTABLE, fingerprint="toy"),
        3201,
        ToyLm("toy"),
    ),
    "stereo": (ecdc.Header(STEREO, 1), 47545, None),
    "stereo coded": (ecdc.Header(STEREO, 1, lm=True), 47545, ToyLm()),
    "stereo portable": (ecdc.Header(STEREO, 1, version=ecdc.PORTABLE), 47545, None),
    "stereo portable coded": (
        ecdc.Header(STEREO, 1, lm=True, version=ecdc.PORTABLE, fingerprint="toy"),
        47545,
        ToyLm("toy"),
    ),
}
