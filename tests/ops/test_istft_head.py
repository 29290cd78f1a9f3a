"""istft_head against published heads, torch.istft and its own meaning in float64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from op_cases import strided
from torch import Tensor

from fastvoc.errors import ArgumentError, DtypeError, ShapeError
from fastvoc.ops.istft_head import IstftHeadParams, istft_head, istft_head_ref
from helpers import assert_golden, golden, implementations, relative_l2

each_impl = pytest.mark.parametrize("impl", implementations("istft_head"))


def make(n_fft: int, hop: int, **options: Any) -> IstftHeadParams:
    return IstftHeadParams(n_fft, hop, torch.hann_window(n_fft), **options)


PARAMS = {
    "hift": make(16, 4, clip=1e2, phase="sin", clamp=0.99),
    "hiftnet": make(16, 4, phase="sin"),
    "vocos-mel": make(1024, 256, clip=1e2),
    "vocos-encodec": make(1280, 320, padding="same", clip=1e2),
    "same-16": make(16, 4, padding="same"),
    "hop-no-divisor": make(20, 6, padding="same"),
    "one-bin": IstftHeadParams(2, 1, torch.tensor([0.5, 1.0])),
    "thirds": make(90, 30),
    "dense": make(48, 5),
    "odd-half": make(50, 10, clip=3.0),
    "whole": make(16, 4, padding="none", clip=1e2),
    "whole-odd": make(50, 9, padding="none"),
    "rectangular": IstftHeadParams(24, 24, torch.ones(24), padding="same"),
}
each_case = pytest.mark.parametrize("params", PARAMS.values(), ids=PARAMS.keys())


def draw(params: IstftHeadParams, batch: int, frames: int, spread: float = 3.0) -> Tensor:
    rows = params.n_fft // 2 + 1
    return torch.cat([torch.randn(batch, rows, frames), torch.randn(batch, rows, frames) * spread], 1)


def double(params: IstftHeadParams) -> IstftHeadParams:
    return replace(params, window=params.window.double())


@each_impl
@pytest.mark.parametrize("case", ["vocos_mel_center", "vocos_mel_same", "vocos_encodec"])
def test_golden(case: str, impl: str) -> None:
    data = golden(case)
    params = (
        make(1280, 320, padding="same", clip=1e2)
        if case == "vocos_encodec"
        else make(1024, 256, padding="center" if case == "vocos_mel_center" else "same", clip=1e2)
    )
    x = torch.cat([data.middle["head_log_magnitude"], data.middle["head_phase"]], 1)
    name = "wav_0" if case == "vocos_encodec" else "wav"
    assert_golden(istft_head(x, params, backend=impl)[:, 0], data, name)


@each_impl
@each_case
def test_equals_the_meaning(params: IstftHeadParams, impl: str, nan_poison: None) -> None:
    for frames in (1, 2, 3, 7, 15, 16, 17, 33, 100):
        if frames < params.shortest:
            continue
        x = draw(params, 2, frames)
        y = istft_head(x, params, backend=impl)
        expected = istft_head_ref(x.double(), double(params))
        assert y.shape == expected.shape == (2, 1, params.output_length(frames))
        assert relative_l2(y, expected) < 2e-6, frames


@each_impl
@pytest.mark.parametrize("n_fft", [16, 1024])
def test_equals_torch_istft(n_fft: int, impl: str) -> None:
    params = make(n_fft, n_fft // 4)
    x = draw(params, 2, 37)
    magnitude, phase = x.double().chunk(2, 1)
    window = params.window.double()
    expected = torch.istft(torch.polar(magnitude.exp(), phase), n_fft, n_fft // 4, window=window)
    assert relative_l2(istft_head(x, params, backend=impl)[:, 0], expected) < 2e-6


@each_impl
@pytest.mark.parametrize("spread", [100.0, 1e4, 1e7])
def test_unbounded_phase(spread: float, impl: str) -> None:
    for name in ("hift", "vocos-mel"):
        params = PARAMS[name]
        x = draw(params, 1, 40, spread)
        assert relative_l2(istft_head(x, params, backend=impl), istft_head_ref(x.double(), double(params))) < 2e-6


@each_impl
def test_magnitudes_of_any_size(impl: str) -> None:
    """Overflowing magnitudes clip; without a clip they are infinite as in torch; tiny ones vanish."""
    clipped, free = PARAMS["hift"], PARAMS["hiftnet"]
    x = draw(clipped, 1, 40)
    x[:, :9] = torch.linspace(-300, 300, 40)
    expected = istft_head_ref(x.double(), double(clipped))
    torch.testing.assert_close(istft_head(x, clipped, backend=impl).double(), expected, rtol=0, atol=2e-5)
    assert not istft_head(x, free, backend=impl).isfinite().all()
    x[:, :9] = -1000
    assert not istft_head(x, free, backend=impl).any()


@each_impl
@each_case
def test_ragged_batch_equals_single_items(params: IstftHeadParams, impl: str, nan_poison: None) -> None:
    lengths = torch.tensor([21, params.shortest, 40])
    x = torch.full((3, params.n_fft + 2, 40), torch.nan)
    for i, n in enumerate(lengths.tolist()):
        x[i, :, :n] = draw(params, 1, n)[0]
    batched = istft_head(x, params, lengths=lengths, backend=impl)
    for i, n in enumerate(lengths.tolist()):
        alone = istft_head(x[i : i + 1, :, :n], params, backend=impl)[0]
        assert torch.equal(batched[i, :, : alone.shape[1]], alone)
        assert not batched[i, :, alone.shape[1] :].any()


@each_impl
@each_case
def test_layout_of_the_input_does_not_matter(params: IstftHeadParams, impl: str) -> None:
    x = draw(params, 2, 37)
    expected = istft_head(x, params, backend=impl)
    for name, view in strided(x).items():
        y = istft_head(view, params, backend=impl)
        if impl == "cpp":
            assert torch.equal(y, expected), name
        else:
            torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)


@each_impl
def test_nan_reaches_the_frames_that_hold_it(impl: str) -> None:
    params = PARAMS["vocos-mel"]
    x = draw(params, 1, 30)
    clean = istft_head(x, params, backend=impl)
    x[0, 700, 11] = torch.nan
    y = istft_head(x, params, backend=impl)
    touched = y[0, 0].isnan().nonzero().flatten()
    assert touched.min() == 11 * 256 - 512
    assert touched.max() == 11 * 256 + 511
    kept = ~y.isnan()
    torch.testing.assert_close(y[kept], clean[kept], rtol=0, atol=0 if impl == "cpp" else 1e-6)


def test_autograd_reaches_the_input() -> None:
    params = double(PARAMS["hift"])
    x = draw(params, 1, 5).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: istft_head(x, replace(params, clamp=None)), x)


@each_impl
def test_too_few_frames_are_refused(impl: str) -> None:
    for name, shortest in (("hift", 2), ("vocos-encodec", 1)):
        assert PARAMS[name].shortest == shortest
    x = draw(PARAMS["hift"], 2, 9)
    with pytest.raises(ShapeError, match="at least 2 frames"):
        istft_head(x[:, :, :1], PARAMS["hift"], backend=impl)
    with pytest.raises(ShapeError, match="at least 2 frames"):
        istft_head(x, PARAMS["hift"], lengths=torch.tensor([9, 1]), backend=impl)


def test_wrong_arguments_are_named() -> None:
    params = PARAMS["hift"]
    with pytest.raises(ShapeError, match=r"x: expected \[B > 0, 18"):
        istft_head(torch.randn(1, 17, 5), params)
    with pytest.raises(DtypeError, match="x: expected"):
        istft_head(torch.randn(1, 18, 5).half(), params)
    with pytest.raises(ArgumentError, match="lengths: expected"):
        istft_head(torch.randn(1, 18, 5), params, lengths=torch.tensor([6]))
    for field, value in {
        "n_fft": 15,
        "hop": 0,
        "window": torch.ones(15),
        "padding": "valid",
        "clip": 0.0,
        "phase": "cos",
        "clamp": -1.0,
    }.items():
        with pytest.raises((ArgumentError, ShapeError), match=f"istft_head: {field}: expected"):
            replace(params, **{field: value})
    with pytest.raises(ArgumentError, match="even n_fft - hop"):
        make(16, 5, padding="same")
    with pytest.raises(ArgumentError, match="without weight"):
        make(16, 16)


@each_impl
@each_case
def test_takes_bfloat16_and_computes_in_float32(params: IstftHeadParams, impl: str, nan_poison: None) -> None:
    lengths = torch.tensor([40, params.shortest + 2])
    x = draw(params, 2, 40).to(torch.bfloat16)
    expected = istft_head(x.float(), params, lengths, backend=impl)
    for view in strided(x).values():
        y = istft_head(view, params, lengths, backend=impl)
        assert y.dtype is torch.float32
        if impl == "cpp":
            assert torch.equal(y, expected)
        assert relative_l2(y, expected) < 1e-6
    with pytest.raises(DtypeError, match=r"x: expected torch\.float32"):
        istft_head(x.half(), params, backend=impl)
