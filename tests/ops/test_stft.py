"""stft against published features, torch.stft and its own meaning in float64."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
import torch
from op_contract import stft_params
from torch.nn import functional as F

from fastvoc.errors import ArgumentError, DtypeError, ShapeError
from fastvoc.ops.stft import StftParams, stft, stft_ref
from helpers import assert_golden, golden, implementations, relative_l2

each_impl = pytest.mark.parametrize("impl", implementations("stft"))
HIFT = ("chatterbox_hift", "cosyvoice1_hift", "cosyvoice2_hift", "cosyvoice3_causal_hift")


SHAPES = ((16, 4), (16, 5), (20, 6), (2, 1), (1024, 256), (1280, 320), (50, 7), (48, 48))


@each_impl
@pytest.mark.parametrize("case", HIFT)
def test_golden_complex(case: str, impl: str) -> None:
    data = golden(case)
    source = data.inputs["source"] if "source" in data.inputs else data.outputs["source"]
    assert_golden(stft(source, stft_params(), backend=impl)[:, :, :600], data, "mid.source_stft")


@each_impl
def test_golden_polar(impl: str) -> None:
    data = golden("hiftnet_original")
    magnitude, angle = stft(data.inputs["source"][:, None], stft_params(features="polar"), backend=impl).chunk(2, 1)
    assert_golden(magnitude, data, "mid.har_magnitude")
    assert_golden(angle, data, "mid.har_phase")


@each_impl
@pytest.mark.parametrize("padding", ["reflect", "same", "none"])
@pytest.mark.parametrize(("n_fft", "hop"), SHAPES)
def test_equals_torch_stft(
    n_fft: int, hop: int, padding: Literal["reflect", "same", "none"], impl: str, nan_poison: None
) -> None:
    if padding == "same" and (n_fft - hop) % 2:
        with pytest.raises(ArgumentError, match=f"hop: padding same needs an even n_fft - hop, got {n_fft - hop}"):
            stft_params(n_fft, hop, padding=padding)
        return
    params = stft_params(n_fft, hop, padding=padding)
    for samples in (
        max(n_fft // 2 + 1 if padding == "reflect" else 1, n_fft - 2 * params.side),
        n_fft,
        3 * n_fft + 1,
        40 * hop + 3 + n_fft,
    ):
        x = torch.randn(2, 1, samples)
        window = torch.hann_window(n_fft).double()
        mode = "reflect" if padding == "reflect" else "constant"
        padded = F.pad(x.double(), (params.side, params.side), mode=mode)[:, 0]
        z = torch.stft(padded, n_fft, hop, window=window, center=False, return_complex=True)
        expected = torch.cat([z.real, z.imag], 1)
        y = stft(x, params, backend=impl)
        assert y.shape == expected.shape == (2, n_fft + 2, params.output_length(samples))
        assert relative_l2(y, expected) < 2e-6, samples


@each_impl
@pytest.mark.parametrize(("n_fft", "hop"), SHAPES)
def test_polar_is_the_same_in_magnitude_and_angle(n_fft: int, hop: int, impl: str, nan_poison: None) -> None:
    params = stft_params(n_fft, hop, "polar")
    x = torch.randn(2, 1, 7 * n_fft + 3)
    magnitude, angle = stft(x, params, backend=impl).double().chunk(2, 1)
    wide = stft_ref(x.double(), replace(params, window=params.window.double(), features="complex"))
    real, imag = wide.chunk(2, 1)
    assert relative_l2(torch.cat([magnitude * angle.cos(), magnitude * angle.sin()], 1), wide) < 3e-6
    assert relative_l2(magnitude, torch.complex(real, imag).abs()) < 2e-6
    assert angle.abs().max() <= torch.pi + 1e-6


@each_impl
def test_angles_of_real_values_are_never_minus_pi(impl: str) -> None:
    for _ in range(5):
        for n_fft, hop in ((16, 4), (20, 5)):
            x = torch.randn(2, 1, 400)
            angle = stft(x, stft_params(n_fft, hop, "polar"), backend=impl)[:, n_fft // 2 + 1 :]
            real = torch.cat([angle[:, 0].flatten(), angle[:, -1].flatten(), angle[:, :, 0].flatten()])
            assert set(real.tolist()) == {0.0, torch.tensor(torch.pi).item()}
    skewed = StftParams(16, 4, torch.rand(16) + 0.1, "polar")
    assert not skewed.first_is_real
    angle = stft(torch.randn(1, 1, 400), skewed, backend=impl)[:, 9:]
    assert angle[:, 1:8, 0].abs().min() > 0


@each_impl
def test_silence_has_magnitude_and_angle_zero(impl: str) -> None:
    y = stft(torch.zeros(1, 1, 100), stft_params(features="polar"), backend=impl)
    assert torch.equal(y, torch.zeros_like(y))


@each_impl
def test_short_signals_cannot_be_reflected(impl: str) -> None:
    with pytest.raises(ShapeError, match="reflect padding of 8"):
        stft(torch.randn(1, 1, 8), stft_params(), backend=impl)
    with pytest.raises(ShapeError, match="reflect padding of 8"):
        stft(torch.randn(2, 1, 80), stft_params(), lengths=torch.tensor([80, 8]), backend=impl)


@each_impl
def test_too_few_samples_make_no_frame(impl: str) -> None:
    with pytest.raises(ShapeError, match="at least 12 samples, got 11"):
        stft(torch.randn(1, 1, 11), stft_params(16, 12, padding="same"), backend=impl)
    with pytest.raises(ShapeError, match="at least 16 samples, got 15"):
        stft(torch.randn(1, 1, 15), stft_params(padding="none"), backend=impl)
    with pytest.raises(ShapeError, match="at least 16 samples, got 9"):
        stft(torch.randn(2, 1, 80), stft_params(padding="none"), lengths=torch.tensor([80, 9]), backend=impl)


def test_autograd_reaches_the_input() -> None:
    x = torch.randn(1, 1, 30, dtype=torch.float64, requires_grad=True)
    params = StftParams(8, 3, torch.hann_window(8).double())
    assert torch.autograd.gradcheck(lambda x: stft(x, params), x)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ShapeError, match=r"x: expected \[B > 0, 1"):
        stft(torch.randn(1, 2, 50), stft_params())
    with pytest.raises(DtypeError, match="x: expected"):
        stft(torch.randn(1, 1, 50).double(), stft_params())
    with pytest.raises(ArgumentError, match="lengths: expected"):
        stft(torch.randn(1, 1, 50), stft_params(), lengths=torch.tensor([51]))
    with pytest.raises(ArgumentError, match="features: expected"):
        stft_params(features="mel")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="padding: expected"):
        stft_params(padding="zeros")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="n_fft: expected"):
        stft_params(n_fft=15)
    with pytest.raises(ArgumentError, match="hop: expected"):
        stft_params(hop=17)
    with pytest.raises(ShapeError, match="window: expected"):
        replace(stft_params(), window=torch.ones(8))
