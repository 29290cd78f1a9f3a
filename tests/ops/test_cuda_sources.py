"""The CUDA kernels of sources, spectra and codes, compiled as plain C++, against the ops' meaning in float64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from cuda_emulation import DTYPES, RUN
from op_cases import double, strided
from torch import Tensor

from fastvoc.ops.istft_head import OP as ISTFT_OP
from fastvoc.ops.istft_head import IstftHeadParams, istft_head_ref
from fastvoc.ops.nsf_source import KINDS, NsfSourceParams, begin, nsf_source_ref
from fastvoc.ops.nsf_source import OP as NSF_OP
from fastvoc.ops.rvq_decode import RvqParams, rvq_decode_ref
from helpers import assert_golden, golden, relative_l2

ROUNDING = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def head(n_fft: int, hop: int, **options: Any) -> IstftHeadParams:
    return IstftHeadParams(n_fft, hop, torch.hann_window(n_fft), **options)


HEADS = {
    "hift": head(16, 4, clip=1e2, phase="sin", clamp=0.99),
    "vocos-mel": head(1024, 256, clip=1e2),
    "vocos-encodec": head(1280, 320, padding="same", clip=1e2),
    "hop-no-divisor": head(20, 6, padding="same"),
    "one-bin": IstftHeadParams(2, 1, torch.tensor([0.5, 1.0])),
    "dense": head(48, 5),
    "odd-half": head(50, 10, clip=3.0),
    "prime": head(26, 5),
    "whole": head(50, 9, padding="none"),
}


def spectrum(params: IstftHeadParams, batch: int, frames: int) -> Tensor:
    rows = params.n_fft // 2 + 1
    return torch.cat([torch.randn(batch, rows, frames), torch.randn(batch, rows, frames) * 3], 1)


def synthesize(x: Tensor, params: IstftHeadParams, lengths: Tensor | None = None) -> Tensor:
    return RUN["istft_head"](x, ISTFT_OP.impls["cuda"].pack(params), lengths)


@pytest.mark.parametrize("name", HEADS)
def test_istft_head_equals_its_meaning(name: str) -> None:
    params = HEADS[name]
    for frames in (params.shortest, params.shortest + 1, 37 if params.n_fft < 500 else 9):
        for layout, x in strided(spectrum(params, 2, frames)).items():
            y = synthesize(x, params)
            assert relative_l2(y, istft_head_ref(x.double(), double(params))) < 1e-6, layout


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
def test_istft_head_in_narrow_numbers(dtype: torch.dtype) -> None:
    params = HEADS["hift"]
    x = spectrum(params, 1, 40).to(dtype)
    wide = synthesize(x, params)
    assert wide.dtype == torch.float32
    assert relative_l2(wide, istft_head_ref(x.double(), double(params))) < 1e-6
    narrow = synthesize(x, replace(params, window=params.window.to(dtype)))
    assert narrow.dtype == dtype
    assert relative_l2(narrow, wide) < ROUNDING[dtype]


@pytest.mark.parametrize("name", ["hift", "hop-no-divisor", "dense"])
def test_istft_head_of_a_ragged_batch_equals_single_items(name: str) -> None:
    params, lengths = HEADS[name], torch.tensor([41, 29, 53])
    x = torch.full((3, params.n_fft + 2, 53), torch.nan)
    for i, n in enumerate(lengths.tolist()):
        x[i, :, :n] = spectrum(params, 1, n)[0]
    batched = synthesize(x, params, lengths)
    for i, n in enumerate(lengths.tolist()):
        alone = synthesize(x[i : i + 1, :, :n], params)
        assert torch.equal(batched[i, :, : alone.shape[2]], alone[0])
        assert not batched[i, :, alone.shape[2] :].any()


@pytest.mark.golden
@pytest.mark.parametrize("case", ["vocos_mel_center", "vocos_mel_same", "vocos_encodec"])
def test_istft_head_golden(case: str) -> None:
    data, codes = golden(case), case == "vocos_encodec"
    padding = "center" if case == "vocos_mel_center" else "same"
    params = head(1280 if codes else 1024, 320 if codes else 256, padding=padding, clip=1e2)
    x = torch.cat([data.middle["head_log_magnitude"], data.middle["head_phase"]], 1)
    assert_golden(synthesize(x, params)[:, 0], data, "wav_0" if codes else "wav")


def source(kind: str = "sample", hop: int = 48, harmonics: int = 8, **options: Any) -> NsfSourceParams:
    return NsfSourceParams(torch.randn(harmonics + 1) * 2, torch.randn(1) * 0.1, 24000, hop, kind, **options)  # type: ignore[arg-type]


def contour(batch: int, frames: int) -> Tensor:
    f0 = 80 + 400 * torch.rand(batch, 1, frames)
    f0[torch.rand(batch, 1, frames) < 0.2] = 0
    f0[torch.rand(batch, 1, frames) < 0.1] = 10
    return f0


def excite(f0: Tensor, params: NsfSourceParams, **given: Tensor) -> Tensor:
    return RUN["nsf_source"](f0, NSF_OP.impls["cuda"].pack(params), **given)


@pytest.mark.parametrize("noise", ["none", "normal", "uniform"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("hop", "harmonics"), [(48, 8), (5, 0), (1, 12)])
def test_nsf_source_equals_its_meaning(kind: str, noise: str, hop: int, harmonics: int) -> None:
    params = source(kind, hop, harmonics, noise=noise)
    f0, seed = contour(2, 300), torch.tensor([7, -(2**62)])
    y = excite(f0, params, seed=seed)
    assert relative_l2(y, nsf_source_ref(f0.double(), double(params), seed=seed)) < 2e-6


@each_dtype
def test_nsf_source_with_given_noise_and_phases(dtype: torch.dtype) -> None:
    params = source("sample")
    params = replace(params, weight=params.weight.to(dtype), bias=params.bias.to(dtype))
    f0, phase = contour(2, 20).to(dtype), torch.randn(2, 9).to(dtype)
    noise = torch.randn(2, 9, 20 * 48).to(dtype)
    y = excite(f0, params, phase=phase, noise=noise)
    expected = nsf_source_ref(f0.double(), double(params), None, phase.double(), None, noise.double())
    assert relative_l2(y, expected) < 2 * ROUNDING[dtype]


@pytest.mark.parametrize("kind", KINDS)
def test_nsf_source_in_pieces_equals_the_whole(kind: str) -> None:
    params = source(kind)
    f0, seed = contour(2, 30), torch.tensor([3, 4])
    whole = excite(f0, params, seed=seed)
    state, reference = begin(params, 2, seed), begin(params, 2, seed)
    at, pieces = 0, []
    for n in (7, 1, 12, 10):
        ahead = f0[:, :, at : at + n + params.lookahead].contiguous()
        frames = torch.tensor([n, n])
        pieces.append(excite(ahead, params, state=state, seed=seed, frames=frames)[:, :, : n * params.hop])
        nsf_source_ref(ahead, params, reference, None, seed, None, None, frames)
        assert torch.equal(state, reference)
        at += n
    assert torch.equal(torch.cat(pieces, 2), whole)


@pytest.mark.parametrize("kind", KINDS)
def test_nsf_source_of_a_ragged_batch_equals_single_items(kind: str) -> None:
    params, lengths, seed = source(kind), torch.tensor([41, 29, 53]), torch.tensor([1, 2, 3])
    f0 = torch.full((3, 1, 53), torch.nan)
    for i, n in enumerate(lengths.tolist()):
        f0[i, :, :n] = contour(1, n)[0]
    batched = excite(f0, params, lengths=lengths, seed=seed)
    for i, n in enumerate(lengths.tolist()):
        alone = excite(f0[i : i + 1, :, :n].contiguous(), params, seed=seed[i : i + 1])
        assert torch.equal(batched[i, :, : n * params.hop], alone[0])
        assert not batched[i, :, n * params.hop :].any()


@pytest.mark.parametrize("kind", KINDS)
def test_nsf_source_marks_what_an_infinite_f0_spoils(kind: str) -> None:
    params, f0 = source(kind), contour(1, 12)
    f0[0, 0, 4] = torch.inf
    expected = nsf_source_ref(f0, params)
    assert torch.equal(excite(f0, params).isnan(), expected.isnan())


@each_dtype
def test_rvq_decode_equals_its_meaning(dtype: torch.dtype) -> None:
    params = RvqParams(torch.randn(5, 19, 33).to(dtype))
    codes, lengths = torch.randint(0, 19, (3, 4, 41)), torch.tensor([41, 7, 23])
    for i, n in enumerate(lengths.tolist()):
        codes[i, :, n:] = torch.iinfo(torch.int64).max
    for layout, x in strided(codes).items():
        y = RUN["rvq_decode"](x, (params.codebooks,), lengths)
        assert relative_l2(y, rvq_decode_ref(codes, double(params), lengths)) < ROUNDING[dtype], layout
    assert not y[1, :, 7:].any()


def test_rvq_decode_clamps_codes() -> None:
    books, codes = torch.randn(2, 5, 3), torch.tensor([[[-9, 2, 5], [0, 2**62, -(2**63)]]])
    expected = rvq_decode_ref(codes.clamp(0, 4), RvqParams(books))
    assert torch.equal(RUN["rvq_decode"](codes, (books,)), expected)
