"""Files of models of every family, small and with random weights, and every way to use what is loaded from one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from codec_models import MONO, STEREO, lively
from recording import Rerun
from stream_families import MAKERS, _hifigan, _hift, randomised
from torch import Tensor

import fastvoc
from fastvoc.checkpoints import Checkpoint
from fastvoc.codec import Codec
from fastvoc.errors import ArgumentError
from fastvoc.graphs.graphed import Graphed
from fastvoc.models.vocos_config import VocosConfig
from fastvoc.nn.quantized import RANGE
from fastvoc.runtime import library as _library
from fastvoc.sound.audio import mono, read_audio, resample
from fastvoc.vocoder import Vocoder
from helpers import ROOT

_CODES: dict[str, Any] = {
    "input_channels": 6,
    "dim": 24,
    "intermediate_dim": 40,
    "num_layers": 2,
    "n_fft": 64,
    "hop_length": 16,
    "padding": "same",
    "adanorm_num_embeddings": 2,
    "num_codebooks": 3,
    "codebook_size": 16,
}


def _int8() -> Checkpoint:
    voc = _hifigan(upsample_rates=(4, 2), upsample_kernel_sizes=(8, 4), upsample_initial_channel=64)
    ranges = {f"{name}.{RANGE}": torch.tensor([-2.0, 2.0]) for name in voc.model.int8_layers()}
    assert ranges
    return Checkpoint(voc.config, {**voc.model.state_dict(), **ranges}, "test", quantization="int8")


_MODELS: dict[str, Callable[[], Any]] = {
    **MAKERS,
    "hift-jdc": lambda: _hift(num_mels=80, f0_network="jdc"),
    "vocos-codes": lambda: randomised(VocosConfig(**_CODES)),
    "codec-mono": lambda: Codec(lively(MONO), MONO),
    "codec-stereo": lambda: Codec(lively(STEREO), STEREO),
    "int8": _int8,
}
NAMES = sorted(_MODELS)


def saved(name: str, folder: Path) -> Path:
    """The file of a model in a folder, written when it is first asked for."""
    path = folder / f"{name}.safetensors"
    if not path.exists():
        torch.manual_seed(0)
        fastvoc.save(_MODELS[name](), path)
    return path


def speech() -> Tensor:
    """Two seconds of speech at 22.05 kHz [44100]."""
    wav, rate = read_audio(ROOT / "fastvoc" / "assets" / "demo.flac")
    return resample(mono(wav), rate, 22050)[22050:66150]


class Uses:
    """Inputs for a model, made once, and everything that it makes of them."""

    def __init__(self, loaded: Vocoder | Codec) -> None:
        draw = torch.Generator().manual_seed(3)
        if isinstance(loaded, Codec):
            self.wav = 0.3 * torch.randn(2, loaded.channels, 5000, generator=draw)
            self.lengths = [5000, 4100]
        else:
            self.mel = torch.randn(2, loaded.n_mels, 24, generator=draw)
            self.lengths = [24, 17]
            self.f0 = 100 + 100 * torch.rand(24, generator=draw)
            books = getattr(loaded.config, "num_codebooks", 0)
            self.codes = (
                torch.randint(0, loaded.config.codebook_size, (2, books, 24), generator=draw) if books else None
            )

    def __call__(self, loaded: Vocoder | Codec) -> dict[str, Tensor]:
        """Every result by the name of its way."""
        loaded.warmup()
        found = self._codec(loaded) if isinstance(loaded, Codec) else self._vocoder(loaded)
        assert all(t.isfinite().all() for t in found.values())
        return found

    def once(self, loaded: Vocoder | Codec) -> Tensor:
        """What one call makes of them."""
        if isinstance(loaded, Codec):
            return loaded(self.wav[0], loaded.bandwidths[0])
        wav: Tensor = loaded(self.mel[0], **getattr(loaded.model, "warmup_inputs", {}))
        return wav

    def _vocoder(self, voc: Vocoder) -> dict[str, Tensor]:
        mel, first = self.mel, self.mel[0]
        inputs: dict[str, Any] = dict(getattr(voc.model, "warmup_inputs", {}))
        drawn = {"seed": [3, 4]} if "seed" in getattr(voc.model, "inputs", ()) else {}
        found = {
            "call": voc(first, **inputs),
            "batch": voc(mel, self.lengths, **inputs, **drawn),
            "numpy": voc(first.numpy(), exact=True, **inputs),
            "later": voc(mel, torch.tensor(self.lengths, device="cpu"), check="later", **inputs),
        }
        found |= {f"each {i}": wav for i, wav in enumerate(voc.each([first, mel[1, :, :9]], **inputs))}
        voc.check()
        if _graphable(voc):
            found["graph"] = Graphed(voc, capture=Rerun()).warmup([24], 2, **inputs)(mel, self.lengths, **inputs)
        if hasattr(voc.model, "predict_f0"):
            found["f0"] = voc.f0(mel, self.lengths)
        if self.codes is not None:
            found["codes"] = voc.decode_codes(self.codes, self.lengths, **inputs)
        if type(getattr(voc.model, "f0_predictor", None)).__name__ == "Jdc":  # reads all frames at once
            return found
        one, two = voc.stream(**inputs), voc.stream(**inputs)
        parts = [one.push(first[:, :9])]
        two.restore(one.state())
        found["stream"] = torch.cat([*parts, two.push(first[:, 9:20]), two.flush(first[:, 20:])])
        early = voc.stream(lookahead=0, exact=False, **inputs)
        found["early"] = torch.cat([early.push(first[:, :13]), early.push(first[:, 13:]), early.flush()])
        if "f0" in getattr(voc.model, "STREAM_OPTIONS", ()):
            given = voc.stream(f0=True)
            parts = [given.push(first[:, :9], f0=self.f0[:9].tolist()), given.flush(first[:, 9:], f0=self.f0[9:])]
            found["stream with f0"] = torch.cat(parts)
        pool = fastvoc.Streams(voc)
        for name in ("a", "b"):
            pool.open(name, **inputs)
        made = [pool.step({"a": first[:, part], "b": mel[1, :, part]})["b"] for part in (slice(0, 9), slice(9, 20))]
        found["pool"] = torch.cat([*made, pool.close("b")])
        return found

    def _codec(self, codec: Codec) -> dict[str, Tensor]:
        bandwidth = codec.bandwidths[-1]
        made = codec.encode(self.wav, bandwidth, self.lengths)
        found = {f"codes {i}": segment for i, segment in enumerate(made.segments)}
        found |= {"decode": codec.decode(made), "both": codec(self.wav[0].numpy(), codec.bandwidths[0])}
        plain = codec.encode(self.wav, bandwidth)
        found["plain"] = codec.decode(plain.segments, plain.scale, [4999, 4000])
        try:
            coder = codec.encoding(bandwidth).stream()
        except ArgumentError:  # a model that works on whole segments
            return found
        parts = [coder.push(self.wav[0, :, :3000]), coder.flush(self.wav[0, :, 3000:])]
        found["encoding"] = torch.cat(parts, 1)
        decoder = codec.decoding(len(parts[0])).stream()
        found["decoding"] = torch.cat([decoder.push(parts[0].numpy()), decoder.flush(parts[1].numpy())], 1)
        if _graphable(codec):
            found["graph"] = Graphed(codec, capture=Rerun())(plain.codes)
        return found


def samples_of(loaded: Vocoder, mel: Any) -> bytes:
    """The bytes of a call, in a process that gets the vocoder pickled; it must find this function by its import."""
    made: bytes = loaded(torch.from_numpy(mel), check=False).numpy().tobytes()
    return made


def _graphable(loaded: Vocoder | Codec) -> bool:
    """Whether the implementations that run take lengths without reading them on the host."""
    return loaded.backend is None and _library.cpu_problem() is None
