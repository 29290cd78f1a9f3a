"""Codes of real speech against transformers': equal but for near ties, which are counted and measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from codec_models import codec_implementations
from torch import Tensor

import fastvoc
from fastvoc.codec import Codec
from fastvoc.sound.audio import read_audio, resample
from helpers import golden, golden_folder, need

IMPLS = codec_implementations()
CASES = ("hf_encodec_24k_small", "hf_encodec_48k_small")
SPEECH = golden_folder().parent / "speech"


@dataclass
class Agreement:
    """Frames and codes seen; codes that differ; for each frame that differs, how near the tie was where it began."""

    codes: int = 0
    different: int = 0
    gaps: list[float] = field(default_factory=list)

    def add(self, ours: Tensor, theirs: Tensor, latent: Tensor, codebooks: Tensor) -> None:
        """Codes [K, T] of both, and the latent [D, T] in float64 that they are of."""
        self.codes += ours.numel()
        differs = ours != theirs
        self.different += int(differs.sum())
        for t in differs.any(0).nonzero().flatten().tolist():
            # After the first difference in a frame the codebooks see other residuals.
            k = int(differs[:, t].nonzero()[0])
            residual = latent[:, t] - sum(codebooks[i, ours[i, t]] for i in range(k))
            distance = (residual - codebooks[k]).square().sum(1)
            gap = (distance[ours[k, t]] - distance[theirs[k, t]]).abs() / distance.min()
            self.gaps.append(gap.item())

    def __str__(self) -> str:
        worst = max(self.gaps, default=0.0)
        share = 100 * (1 - self.different / self.codes)
        return (
            f"{self.codes} codes, {share:.5f} % equal, {len(self.gaps)} frames begin to differ, widest gap {worst:.2g}"
        )


def clips(codec: Codec, folders: tuple[str, ...], most: int, seconds: float) -> Iterator[Tensor]:
    """Speech [C, S] at the codec's rate; a stereo codec hears two speakers."""
    paths = [path for folder in folders for path in sorted((SPEECH / folder).glob("*.flac"))]
    need("golden", None if paths else f"no speech in {SPEECH}")
    for path in paths[:most]:
        channels = [_mono(path, codec, seconds)]
        if codec.channels == 2:
            channels.append(_mono(paths[(paths.index(path) + 1) % len(paths)], codec, seconds))
        size = min(map(len, channels))
        yield torch.stack([channel[:size] for channel in channels])


def _mono(path: Path, codec: Codec, seconds: float) -> Tensor:
    wav, rate = read_audio(path)
    return resample(wav.mean(0), rate, codec.sample_rate)[: int(seconds * codec.sample_rate)]


def measure(name: str, impl: str, folders: tuple[str, ...], most: int, seconds: float) -> Agreement:
    """Encodes clips at the highest bandwidth with both; the codes of a lower one are the first of these."""
    transformers: Any = pytest.importorskip("transformers")
    folder = golden(name).dir
    codec = fastvoc.load(folder, backend=impl)
    exact = fastvoc.load(folder, backend="torch").model.double()
    theirs = transformers.EncodecModel.from_pretrained(folder).eval()
    codebooks = torch.stack(list(exact.quantizer.codebooks))
    found = Agreement()
    length, stride = codec.config.segment_length, codec.config.segment_stride
    for wav in clips(codec, folders, most, seconds):
        codes = codec.encode(wav, codec.bandwidths[-1])
        with torch.inference_mode():
            expected = theirs.encode(wav[None], bandwidth=codec.bandwidths[-1]).audio_codes
            for i, segment in enumerate(codes.segments):
                start = i * (stride or 0)
                piece = wav[None, :, start : start + (length or wav.shape[1])].double()
                if codec.config.normalize:
                    piece = piece / (piece.mean(1).square().mean().sqrt() + 1e-8)
                latent = exact.encoder(piece, None, "torch")[0]
                found.add(segment[0], expected[i, 0, :, : segment.shape[2]], latent, codebooks)
    return found


@pytest.mark.golden
@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("name", CASES)
def test_a_few_clips(name: str, impl: str) -> None:
    # One near tie changes the rest of its frame: on so few codes that is more than the share of the whole.
    hold_to_the_bar(measure(name, impl, ("valid",), 3, 2.5), share=1e-3)


@pytest.mark.slow
@pytest.mark.golden
@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("name", CASES)
def test_ten_minutes(name: str, impl: str) -> None:
    found = measure(name, impl, ("train", "valid"), 1000, 1000.0)
    print(f"{name}, {impl}: {found}")
    hold_to_the_bar(found)


def hold_to_the_bar(found: Agreement, share: float = 1e-4) -> None:
    assert found.codes > 1000
    assert found.different <= share * found.codes, str(found)
    assert all(gap < 1e-5 for gap in found.gaps), str(found)


def test_the_measure_sees_differences() -> None:
    books = torch.tensor([[[0.0], [1.0]], [[0.0], [0.25]]], dtype=torch.float64)
    found = Agreement()
    ours = torch.tensor([[0, 1, 0], [0, 1, 1]])
    theirs = torch.tensor([[0, 0, 0], [0, 0, 0]])
    found.add(ours, theirs, torch.tensor([[0.0, 0.5 + 1e-9, 0.2]], dtype=torch.float64), books)
    assert (found.codes, found.different, len(found.gaps)) == (6, 3, 2)
    assert found.gaps[0] < 1e-8
    assert found.gaps[1] > 1
    with pytest.raises(AssertionError):
        hold_to_the_bar(found)


@pytest.mark.golden
@pytest.mark.native
@pytest.mark.parametrize("name", CASES)
def test_bfloat16_codes_agree_with_float32(name: str) -> None:
    """The first codebook, which the others refine, nearly always names the same entry."""
    share, first = bfloat16_agreement(name, ("valid",), 3, 2.5)
    assert first > 0.9
    assert share > 0.4


def bfloat16_agreement(name: str, folders: tuple[str, ...], most: int, seconds: float) -> tuple[float, float]:
    """Shares of equal codes in bfloat16 and in float32: of all codebooks, and of the first one."""
    whole, half = (fastvoc.load(golden(name).dir, dtype=dtype, backend="cpp") for dtype in ("fp32", "bf16"))
    equal = []
    for wav in clips(whole, folders, most, seconds):
        pair = [codec.encode(wav, codec.bandwidths[-1]).codes[0] for codec in (whole, half)]
        equal.append((pair[0] == pair[1]).double())
    together = torch.cat(equal, 1)
    return together.mean().item(), together[0].mean().item()
