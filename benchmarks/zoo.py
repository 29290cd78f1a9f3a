"""The models of the benchmarks at their published sizes, with random weights: time does not depend on the values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import zoo_encodec as encodec
import zoo_hift as hift
import zoo_mimi as mimi
import zoo_whole as whole
from torch import Tensor, nn

from fastvoc.errors import FastvocError
from fastvoc.models.bigvgan import BIGVGAN_BASE_24K_100, BIGVGAN_V2_24K_100
from fastvoc.models.dac import DAC_24K, DAC_44K
from fastvoc.models.encodec_config import ENCODEC_24K, ENCODEC_48K
from fastvoc.models.families import build
from fastvoc.models.hifigan import HIFIGAN_V1, HIFIGAN_V2, HIFIGAN_V3
from fastvoc.models.hift_config import CHATTERBOX, COSYVOICE1, COSYVOICE2, COSYVOICE3, HIFTNET
from fastvoc.models.kokoro_config import KOKORO
from fastvoc.models.mimi_config import MIMI
from fastvoc.models.nsf_hifigan import RVC_40K
from fastvoc.models.snac import SNAC_24K, SNAC_44K
from fastvoc.models.univnet import UNIVNET_24K_100
from fastvoc.models.vocos_config import VOCOS_ENCODEC_24K, VOCOS_MEL_24K

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_VOCOS_BANDWIDTH_ID = 2  # 6 kbit/s, as in the EnCodec rows


def placed(inputs: tuple[Any, ...], device: str, dtype: torch.dtype) -> tuple[Any, ...]:
    """Tensors on a device, floats in a dtype."""
    return tuple(
        x.to(device, dtype if x.is_floating_point() else x.dtype) if isinstance(x, Tensor) else x for x in inputs
    )


def refusal(run: Callable[[], Any], device: str = "cpu") -> str | None:
    """Why one of our own implementations does not take a call.

    On CUDA also how it fails: a kernel's fault shows where the device is waited for, and is this one's alone.
    """
    try:
        run()
        if device == "cuda":
            torch.cuda.synchronize()
    except FastvocError as error:
        return str(error).splitlines()[0][:200]
    except Exception as error:
        if device != "cuda":
            raise
        return " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return None


@dataclass(frozen=True)
class Split:
    """A model in three: what torch does before, the plain network that others can run, what torch does after.

    before(model, *inputs) -> the network's inputs; core(model, *those) -> its output; after(model, output, *inputs).
    stated(model)(run, *values): the core as fastvoc's networks are stated, where torch's exporters do not take it.
    """

    before: Callable[..., tuple[Tensor, ...]]
    core: Callable[..., Any]
    after: Callable[..., Any]
    stated: Callable[[Any], Callable[..., Any]] | None = None


@dataclass(frozen=True)
class Entry:
    """A row of the benchmarks: what goes in for some seconds of audio, and what is timed."""

    config: Callable[[], Any]
    inputs: Callable[[nn.Module, float, int], tuple[Any, ...]]
    run: Callable[..., Any]
    split: Split

    def model(self, device: str = "cpu", dtype: torch.dtype = torch.float32) -> nn.Module:
        """The model, ready to be called."""
        torch.manual_seed(0)
        model: nn.Module = build(self.config())
        for parameter in model.parameters():
            fan = parameter[0].numel() if parameter.dim() > 1 else 1
            parameter.data.copy_(torch.randn(parameter.shape) * (0.5 / max(fan, 1) ** 0.5))
        return model.to(device, dtype).eval().requires_grad_(False)

    def seconds(self, audio: float) -> float:
        """Seconds of audio that whole frames of it make."""
        config = self.config()
        return max(1, round(audio * config.sample_rate / config.hop)) * config.hop / config.sample_rate


def _mel(model: nn.Module, audio: float, batch: int) -> tuple[Any, ...]:
    config: Any = model.config
    frames = max(1, round(audio * config.sample_rate / config.hop))
    return (torch.randn(batch, config.num_mels, frames),)


def _vocode(model: nn.Module, mel: Tensor, backend: str | None = None) -> Tensor:
    wav: Tensor = model(mel, backend=backend)
    return wav


def vocoder(config: Callable[[], Any]) -> Entry:
    """Log-mel in, samples out."""
    whole = Split(lambda _, mel: (mel,), lambda model, mel: model(mel, backend="torch"), lambda _, wav, mel: wav)
    return Entry(config, _mel, _vocode, whole)


def _hift(config: Callable[[], Any]) -> Entry:
    return Entry(config, _mel, _vocode, Split(hift.heard, hift.spectrum, hift.sounding))


def _sung(model: Any, audio: float, batch: int) -> tuple[Any, ...]:
    (latent,) = _mel(model, audio, batch)
    return latent, 100 + 200 * torch.rand(batch, latent.shape[2])


def _sing(model: nn.Module, latent: Tensor, f0: Tensor, backend: str | None = None) -> Tensor:
    wav: Tensor = model(latent, f0=f0, backend=backend)
    return wav


def _spoken(model: Any, audio: float, batch: int) -> tuple[Any, ...]:
    (asr,) = _mel(model, audio, batch)
    f0 = 100 + 200 * torch.rand(batch, 2 * asr.shape[2])
    return asr, f0, torch.rand(f0.shape), torch.randn(batch, model.config.style_dim)


def _speak(model: nn.Module, asr: Tensor, f0: Tensor, n: Tensor, style: Tensor, backend: str | None = None) -> Tensor:
    wav: Tensor = model(asr, f0=f0, n=n, style=style, backend=backend)
    return wav


def _styled(model: Any, asr: Tensor, f0: Tensor, n: Tensor, style: Tensor) -> tuple[Tensor, ...]:
    """What the network of Kokoro takes: features, F0, energy, the source's spectrum, the styles of its norms."""
    har = model.stft(model.make_source(f0, backend="torch"), backend="torch").to(asr.dtype)
    return asr, f0[:, None], n[:, None], har, model.reading("_styled")(style[:, :, None], backend="torch")


def _kokoro_spectrum(model: Any, *inputs: Tensor) -> Tensor:
    spectrum: Tensor = model.reading("spectrum", (1, 2, 2, 120, 0))(*inputs, backend="torch")
    return spectrum


def _spectrum(model: Any, features: Tensor) -> Tensor:
    """What the network of Vocos gives to its inverse transform."""
    config = model.config
    row = None if config.adanorm_num_embeddings is None else torch.full((len(features),), _VOCOS_BANDWIDTH_ID)
    spectrum: Tensor = model.head.out(model.backbone(features, row, backend="torch"), backend="torch")
    return spectrum


def _codes(model: nn.Module, audio: float, batch: int) -> tuple[Any, ...]:
    config: Any = model.config
    frames = max(1, round(audio * config.sample_rate / config.hop))
    return (torch.randint(0, config.codebook_size, (batch, 8, frames)),)


def _decode(model: Any, codes: Tensor, backend: str | None = None) -> Tensor:
    wav: Tensor = model.decode_codes(codes, backend=backend, bandwidth_id=_VOCOS_BANDWIDTH_ID)
    return wav


_RVC = Split(
    lambda model, latent, f0: (latent, model.make_source(f0, backend="torch").to(latent.dtype)),
    lambda model, latent, source: model(latent, source=source, backend="torch"),
    lambda _, wav, latent, f0: wav,
)
_KOKORO = Split(_styled, _kokoro_spectrum, lambda model, x, *_: model.istft(x, backend="torch"))
_VOCOS_MEL = Split(lambda _, mel: (mel,), _spectrum, lambda model, x, _: model.head.istft(x, backend="torch"))
_VOCOS_CODES = Split(
    lambda model, codes: (model.codes_to_features(codes, backend="torch"),),
    _spectrum,
    lambda model, x, _: model.head.istft(x, backend="torch"),
)

_ENCODE = Split(encodec.pieces, encodec.latents, encodec.quantised)
_DECODE = Split(encodec.looked_up, encodec.sounds, encodec.joined)
_WHOLE_ENCODE = Split(lambda _, wav: (wav,), whole.latents, whole.quantised)
_WHOLE_DECODE = Split(whole.looked_up, whole.sounds, whole.alone)


def _whole_codec(name: str, config: Any) -> dict[str, Entry]:
    return {
        f"{name}-encode": Entry(lambda: config, whole.samples, whole.encode, _WHOLE_ENCODE),
        f"{name}-decode": Entry(lambda: config, whole.codes, whole.decode, _WHOLE_DECODE),
    }


ZOO: dict[str, Entry] = {
    "bigvgan-base": vocoder(lambda: BIGVGAN_BASE_24K_100),
    "bigvgan-v2": vocoder(lambda: BIGVGAN_V2_24K_100),
    "encodec-24k-encode": Entry(lambda: ENCODEC_24K, encodec.samples, encodec.encode, _ENCODE),
    "encodec-24k-decode": Entry(lambda: ENCODEC_24K, encodec.codes, encodec.decode, _DECODE),
    "encodec-48k-encode": Entry(lambda: ENCODEC_48K, encodec.samples, encodec.encode, _ENCODE),
    "encodec-48k-decode": Entry(lambda: ENCODEC_48K, encodec.codes, encodec.decode, _DECODE),
    **_whole_codec("dac-24k", DAC_24K),
    **_whole_codec("dac-44k", DAC_44K),
    **_whole_codec("snac-24k", SNAC_24K),
    **_whole_codec("snac-44k", SNAC_44K),
    "chatterbox": _hift(lambda: CHATTERBOX),
    "cosyvoice1": _hift(lambda: COSYVOICE1),
    "cosyvoice2": _hift(lambda: COSYVOICE2),
    "cosyvoice3": _hift(lambda: COSYVOICE3),
    "hiftnet": _hift(lambda: HIFTNET),
    "mimi-encode": Entry(
        lambda: MIMI, mimi.samples, mimi.encode, Split(lambda _, wav: (wav,), mimi.latents, mimi.quantised, mimi.stated)
    ),
    "mimi-decode": Entry(
        lambda: MIMI, mimi.codes, mimi.decode, Split(mimi.looked_up, mimi.sounds, lambda _, wav, *__: wav)
    ),
    "kokoro": Entry(lambda: KOKORO, _spoken, _speak, _KOKORO),
    "rvc": Entry(lambda: RVC_40K, _sung, _sing, _RVC),
    "univnet": vocoder(lambda: UNIVNET_24K_100),
    "v1": vocoder(lambda: HIFIGAN_V1),
    "v2": vocoder(lambda: HIFIGAN_V2),
    "v3": vocoder(lambda: HIFIGAN_V3),
    "vocos": Entry(lambda: VOCOS_MEL_24K, _mel, _vocode, _VOCOS_MEL),
    "vocos-encodec": Entry(lambda: VOCOS_ENCODEC_24K, _codes, _decode, _VOCOS_CODES),
}
