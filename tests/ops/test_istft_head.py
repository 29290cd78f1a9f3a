"""istft_head against published heads, torch.istft and its own meaning in float64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from op_cases import double, strided
from op_contract import ISTFT, istft_params, spectrum

from fastvoc.errors import ArgumentError, DtypeError, ShapeError
from fastvoc.ops.istft_head import IstftHeadParams, istft_head, istft_head_ref
from helpers import assert_golden, golden, implementations, relative_l2

each_impl = pytest.mark.parametrize("impl", implementations("istft_head"))


each_case = pytest.mark.parametrize("params", ISTFT.values(), ids=ISTFT.keys())


@each_impl
@pytest.mark.parametrize("case", ["vocos_mel_center", "vocos_mel_same", "vocos_encodec"])
def test_golden(case: str, impl: str) -> None:
    data = golden(case)
    params = (
        istft_params(1280, 320, padding="same", clip=1e2)
        if case == "vocos_encodec"
        else istft_params(1024, 256, padding="center" if case == "vocos_mel_center" else "same", clip=1e2)
    )
    x = torch.cat([data.middle["head_log_magnitude"], data.middle["head_phase"]], 1)
    name = "wav_0" if case == "vocos_encodec" else "wav"
    assert_golden(istft_head(x, params, backend=impl)[:, 0], data, name)


@each_impl
@pytest.mark.parametrize("n_fft", [16, 1024])
def test_equals_torch_istft(n_fft: int, impl: str) -> None:
    params = istft_params(n_fft, n_fft // 4)
    x = spectrum(params, 2, 37)[0]
    magnitude, phase = x.double().chunk(2, 1)
    window = params.window.double()
    expected = torch.istft(torch.polar(magnitude.exp(), phase), n_fft, n_fft // 4, window=window)
    assert relative_l2(istft_head(x, params, backend=impl)[:, 0], expected) < 2e-6


@each_impl
@pytest.mark.parametrize("spread", [100.0, 1e4, 1e7])
def test_unbounded_phase(spread: float, impl: str) -> None:
    for name in ("hift", "vocos-mel"):
        params = ISTFT[name]
        x = spectrum(params, 1, 40, spread)[0]
        assert relative_l2(istft_head(x, params, backend=impl), istft_head_ref(x.double(), double(params))) < 2e-6


@each_impl
def test_magnitudes_of_any_size(impl: str) -> None:
    """Overflowing magnitudes clip; without a clip they are infinite as in torch; tiny ones vanish."""
    clipped, free = ISTFT["hift"], ISTFT["hiftnet"]
    x = spectrum(clipped, 1, 40)[0]
    x[:, :9] = torch.linspace(-300, 300, 40)
    expected = istft_head_ref(x.double(), double(clipped))
    torch.testing.assert_close(istft_head(x, clipped, backend=impl).double(), expected, rtol=0, atol=2e-5)
    assert not istft_head(x, free, backend=impl).isfinite().all()
    x[:, :9] = -1000
    assert not istft_head(x, free, backend=impl).any()


@each_impl
def test_nan_reaches_the_frames_that_hold_it(impl: str) -> None:
    params = ISTFT["vocos-mel"]
    x = spectrum(params, 1, 30)[0]
    clean = istft_head(x, params, backend=impl)
    x[0, 700, 11] = torch.nan
    y = istft_head(x, params, backend=impl)
    touched = y[0, 0].isnan().nonzero().flatten()
    assert touched.min() == 11 * 256 - 512
    assert touched.max() == 11 * 256 + 511
    kept = ~y.isnan()
    torch.testing.assert_close(y[kept], clean[kept], rtol=0, atol=0 if impl == "cpp" else 1e-6)


def test_autograd_reaches_the_input() -> None:
    params = double(ISTFT["hift"])
    x = spectrum(params, 1, 5)[0].double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: istft_head(x, replace(params, clamp=None)), x)


@each_impl
def test_too_few_frames_are_refused(impl: str) -> None:
    for name, shortest in (("hift", 2), ("vocos-encodec", 1)):
        assert ISTFT[name].shortest == shortest
    x = spectrum(ISTFT["hift"], 2, 9)[0]
    with pytest.raises(ShapeError, match="at least 2 frames"):
        istft_head(x[:, :, :1], ISTFT["hift"], backend=impl)
    with pytest.raises(ShapeError, match="at least 2 frames"):
        istft_head(x, ISTFT["hift"], lengths=torch.tensor([9, 1]), backend=impl)


def test_wrong_arguments_are_named() -> None:
    params = ISTFT["hift"]
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
        istft_params(16, 5, padding="same")
    with pytest.raises(ArgumentError, match="without weight"):
        istft_params(16, 16)


@each_impl
@each_case
def test_takes_bfloat16_and_computes_in_float32(params: IstftHeadParams, impl: str, nan_poison: None) -> None:
    lengths = torch.tensor([40, params.shortest + 2])
    x = spectrum(params, 2, 40)[0].to(torch.bfloat16)
    expected = istft_head(x.float(), params, lengths, backend=impl)
    for view in strided(x).values():
        y = istft_head(view, params, lengths, backend=impl)
        assert y.dtype is torch.float32
        if impl == "cpp":
            assert torch.equal(y, expected)
        assert relative_l2(y, expected) < 1e-6
    with pytest.raises(DtypeError, match=r"x: expected torch\.float32"):
        istft_head(x.half(), params, backend=impl)
