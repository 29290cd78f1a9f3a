"""The CUDA kernels of sources, spectra and codes, compiled as plain C++, against the ops' meaning in float64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from cuda_emulation import DTYPES, RUN
from op_cases import double
from op_contract import ISTFT, istft_params, spectrum
from torch import Tensor

from fastvoc.ops.istft_head import OP as ISTFT_OP
from fastvoc.ops.istft_head import IstftHeadParams, istft_head_ref
from fastvoc.ops.nsf_source import KINDS, NsfSourceParams, begin, nsf_source_ref
from fastvoc.ops.nsf_source import OP as NSF_OP
from fastvoc.ops.rvq_decode import RvqParams, rvq_decode_ref
from helpers import assert_golden, golden, relative_l2

ROUNDING = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def synthesize(x: Tensor, params: IstftHeadParams, lengths: Tensor | None = None) -> Tensor:
    return RUN["istft_head"](x, ISTFT_OP.impls["cuda"].pack(params), lengths)


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
def test_istft_head_in_narrow_numbers(dtype: torch.dtype) -> None:
    params = ISTFT["hift"]
    x = spectrum(params, 1, 40)[0].to(dtype)
    wide = synthesize(x, params)
    assert wide.dtype == torch.float32
    assert relative_l2(wide, istft_head_ref(x.double(), double(params))) < 1e-6
    narrow = synthesize(x, replace(params, window=params.window.to(dtype)))
    assert narrow.dtype == dtype
    assert relative_l2(narrow, wide) < ROUNDING[dtype]


@pytest.mark.golden
@pytest.mark.parametrize("case", ["vocos_mel_center", "vocos_mel_same", "vocos_encodec"])
def test_istft_head_golden(case: str) -> None:
    data, codes = golden(case), case == "vocos_encodec"
    padding = "center" if case == "vocos_mel_center" else "same"
    params = istft_params(1280 if codes else 1024, 320 if codes else 256, padding=padding, clip=1e2)
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
def test_nsf_source_marks_what_an_infinite_f0_spoils(kind: str) -> None:
    params, f0 = source(kind), contour(1, 12)
    f0[0, 0, 4] = torch.inf
    expected = nsf_source_ref(f0, params)
    assert torch.equal(excite(f0, params).isnan(), expected.isnan())


def test_rvq_decode_clamps_codes() -> None:
    books, codes = torch.randn(2, 5, 3), torch.tensor([[[-9, 2, 5], [0, 2**62, -(2**63)]]])
    expected = rvq_decode_ref(codes.clamp(0, 4), RvqParams(books))
    assert torch.equal(RUN["rvq_decode"](codes, (books,)), expected)
