"""`fastvoc.patch` on Kokoro's models: before, between and after."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from kokoro_package import CustomSTFT, KModel, KPipeline, TorchSTFT
from torch import Tensor, nn

import fastvoc
from fastvoc.compat import kokoro
from fastvoc.errors import ArgumentError
from helpers import relative_l2


def made(**options: Any) -> KModel:
    torch.manual_seed(0)
    model = KModel(**options).eval()
    for name, parameter in model.named_parameters():
        if name.endswith(".norm.weight"):
            nn.init.uniform_(parameter, 0.5, 1.5)
        elif name.endswith(".norm.bias"):
            nn.init.normal_(parameter)
    return model


def spoken() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(4)
    f0 = 150 + 100 * torch.rand(2, 20, generator=draw)
    f0[:, 4:7] = 0
    features = torch.randn(2, 6, 10, generator=draw)
    return features, f0, torch.randn(2, 20, generator=draw), torch.randn(2, 5, generator=draw)


def one_spectrum(monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """Has the package's decoder hear this source's spectrum, whatever F0 is; [2, 18, 161]."""
    har = torch.cat([torch.rand(2, 9, 161), torch.randn(2, 9, 161)], 1)
    monkeypatch.setattr(TorchSTFT, "transform", lambda self, x: har.chunk(2, 1))
    return har


@pytest.mark.parametrize("place", ["decoder", "model.decoder"])
def test_a_model_and_a_pipeline(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, given = made(), spoken()
    whole: Any = model if place == "decoder" else KPipeline(model)
    original = model.decoder
    done = fastvoc.patch(whole)
    assert (done.model, done.place, done.replaced) == (type(whole).__name__, place, "Decoder")
    assert str(done).endswith(" million parameters) now runs on fastvoc")
    new: Any = model.decoder
    assert isinstance(new, kokoro.Decoder)
    har = one_spectrum(monkeypatch)
    asr, f0, n, style = given
    with torch.no_grad():
        wanted = original(*given)
        assert relative_l2(new._model(asr, f0=f0, n=n, style=style, har=har), wanted) <= 1e-5
    with pytest.raises(ArgumentError, match="runs on fastvoc already"):
        fastvoc.patch(whole)
    fastvoc.unpatch(whole)
    assert model.decoder is original
    with torch.no_grad():
        assert torch.equal(model.decoder(*given), wanted)


def test_a_patched_model_speaks_and_torchs_generator_decides_its_noise() -> None:
    model, given = made(), spoken()
    with torch.no_grad():
        before = model.decoder(*given)
        torch.manual_seed(3)
        fastvoc.patch(model)
        wav = model.decoder(*given)
        torch.manual_seed(3)
        assert torch.equal(model.decoder(*given), wav)
        assert not torch.equal(model.decoder(*given), wav)
    assert wav.shape == before.shape
    assert 0.7 < float(wav.square().mean().sqrt() / before.square().mean().sqrt()) < 1.4


def test_what_a_model_computed_before_is_what_it_computes_after() -> None:
    """Nothing of the comparison stays: not in torch's generator, not in the old decoder."""
    model, given = made(), spoken()
    torch.manual_seed(3)
    with torch.no_grad():
        before = model.decoder(*given)
    torch.manual_seed(3)
    fastvoc.patch(model)
    fastvoc.unpatch(model)
    with torch.no_grad():
        assert torch.equal(model.decoder(*given), before)
    assert "transform" not in vars(model.decoder.generator.stft)
    assert model.decoder.generator.m_source.l_sin_gen.noise_std == 0.003


def test_autocast() -> None:
    model, (asr, f0, n, style) = made(), spoken()
    with torch.autocast("cpu", torch.bfloat16):
        fastvoc.patch(model)
        torch.manual_seed(1)
        with torch.no_grad():
            wav = model.decoder(asr.bfloat16(), f0.bfloat16(), n.bfloat16(), style.bfloat16())
    torch.manual_seed(1)
    with torch.no_grad():
        rounded = (x.bfloat16().float() for x in (asr, f0, n, style))
        assert torch.equal(wav, model.decoder(*rounded))


def refused(model: KModel, message: str) -> None:
    before = model.decoder
    with pytest.raises(ArgumentError, match=message):
        fastvoc.patch(model)
    assert model.decoder is before


def test_another_transform_and_another_source_are_named() -> None:
    refused(made(stft=CustomSTFT), "Decoder: not built like Kokoro's .*disable_complex")
    model = made()
    model.decoder.generator.m_source.l_sin_gen.noise_std = 0.01
    refused(model, r"not built like Kokoro's \(noise_std 0\.01, expected 0\.003\)")


def test_another_shape_and_another_arithmetic_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    model = made()
    model.decoder.generator.noise_res[1].convs1[0] = nn.Conv1d(4, 4, 7)
    refused(model, r"tensor 'generator\.noise_res\.1\.convs1\.0\.weight' is \[4, 4, 7\], expected \[4, 4, 11\]")
    model = made()
    del model.decoder.asr_res
    refused(model, "Decoder: not built like Kokoro's")
    model = made()
    model.decoder.generator.m_source.l_sin_gen.register_forward_hook(lambda _, __, y: 1.1 * y)
    refused(model, "Decoder computes something else than fastvoc's decoder")
    model = made()
    model.decoder.generator.conv_post.register_forward_hook(lambda _, __, y: 1.1 * y)
    refused(model, "Decoder computes something else than fastvoc's decoder")


def test_a_pipeline_without_a_model_is_not_known() -> None:
    with pytest.raises(ArgumentError, match=r"no decoder that is known in a KPipeline; expected .*Kokoro's KPipeline"):
        fastvoc.patch(KPipeline(None))
