"""Entries that take samples, mels or codes: any dtype gives what float32 (codes: int64) gives, or a typed error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from compat_models import MODELS, codec, tensors
from stream_families import MAKERS
from torch import Tensor

from fastvoc.compat import bigvgan, encodec, hifigan, transformers, vocos
from fastvoc.compat.upstream import Attributes
from fastvoc.errors import FastvocError
from fastvoc.sound import audio, mel
from fastvoc.sound.mel import HIFIGAN_22K
from fastvoc.streams.pieces import CodecEncoder
from fastvoc.vocoder import Vocoder

FLOATS = (torch.float64, torch.float16, torch.bfloat16, torch.int16, torch.int32, torch.uint8, torch.bool)
CODES = (torch.int32, torch.int16, torch.uint8, torch.int8, torch.float32, torch.float16, torch.bool)


@dataclass(frozen=True)
class Entry:
    """A function of one tensor `x` (or numpy array), and the dtypes that it must take."""

    call: Callable[[Any], Any]
    x: Tensor
    takes: tuple[torch.dtype, ...] = ()


def _whole(*shape: int, low: int = -5, high: int = 6) -> Tensor:
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(1))


WAV, LONG, STEREO = _whole(4000).float(), _whole(1, 4000).float(), _whole(2, 4000).float()
HALVES = (torch.float64, torch.float16, torch.bfloat16)
SCALES = (*HALVES, torch.int16, torch.int32)
MEL_ARGS = (1024, 80, 22050, 256, 1024, 0.0, 8000.0)


def _hifigan() -> Vocoder:
    voc = MAKERS["hifigan-1"]()
    voc.mel_config = mel.MelConfig(22050, 64, 64, 8, 6)
    return voc


def _pushed(stream: Any, x: Any) -> Tensor:
    return torch.cat([stream.push(x[..., :1500]), stream.push(x[..., 1500:]), stream.flush()], -1)


def _extracted(extractor: Any, x: Any, **options: Any) -> Any:
    x = (x.float() if x.dtype == torch.bfloat16 else x).numpy() if isinstance(x, Tensor) else x
    return dict(extractor(x, sampling_rate=extractor.sampling_rate, return_tensors="pt", **options))


def _pieces(x: Tensor) -> Any:
    encoder = CodecEncoder(codec(), 3.6)
    return [torch.from_numpy(codes.astype(np.int64)) for codes, _ in [*encoder.push(x), *encoder.finish()]]


ENTRIES: dict[str, Entry] = {
    **{name: Entry(lambda x, m=m: m.run(m.made(), x), m.input()) for name, m in MODELS.items()},
    "voc": Entry(lambda x: _hifigan()(x, check=False), _whole(6, 90).float(), HALVES),
    "voc checked": Entry(lambda x: MAKERS["hift-sample"]()(x), _whole(6, 90).float(), HALVES),
    "voc univnet": Entry(lambda x: MAKERS["univnet"]()(x), _whole(6, 90).float(), HALVES),
    "voc vocos": Entry(lambda x: MAKERS["vocos-same"]()(x), _whole(6, 90).float(), HALVES),
    "voc bigvgan": Entry(lambda x: MAKERS["bigvgan-1"]()(x), _whole(6, 90).float(), HALVES),
    "voc.each": Entry(lambda x: _hifigan().each([x, x[:, :40]], check=False), _whole(6, 90).float(), HALVES),
    "voc.examine": Entry(lambda x: [str(_hifigan().examine(x)), torch.ones(1)], _whole(6, 90).float(), HALVES),
    "voc.f0": Entry(lambda x: MAKERS["hift-sample"]().f0(x), _whole(6, 90).float(), HALVES),
    "voc f0": Entry(lambda x: MAKERS["hift-sample"]()(_whole(6, 90).float(), f0=x), 100 + 10 * _whole(90).float()),
    "voc noise": Entry(lambda x: MAKERS["univnet"]()(_whole(6, 90).float(), noise=x), _whole(5, 90).float(), HALVES),
    "voc.mel": Entry(lambda x: _hifigan().mel(x), WAV, (torch.float16, torch.bfloat16)),
    "voc.stream": Entry(lambda x: _pushed(MAKERS["hifigan-1"]().stream(), x), _whole(6, 90).float(), HALVES),
    "codec.encode": Entry(lambda x: codec().encode(x, 3.6).segments, LONG, HALVES),
    "codec.encode stereo": Entry(lambda x: [*(c := codec(True).encode(x, 1.5)).segments, c.scale], STEREO, HALVES),
    "codec.encoding": Entry(lambda x: _pushed(codec().encoding(3.6).stream(), x), WAV, HALVES),
    "codec pieces": Entry(_pieces, LONG, HALVES),
    "codec.decode scale": Entry(
        lambda x: codec(True).decode(_whole(2, 4, 12, low=0, high=64), x), _whole(2, 1, low=1).float(), HALVES
    ),
    "MelSpectrogram": Entry(mel.MelSpectrogram(HIFIGAN_22K), WAV, (torch.float16, torch.bfloat16)),
    "MelStream": Entry(lambda x: _pushed(mel.MelStream(HIFIGAN_22K), x), WAV, (torch.float16, torch.bfloat16)),
    "hifigan.mel_spectrogram": Entry(lambda x: hifigan.mel_spectrogram(x, *MEL_ARGS), LONG, (torch.float16,)),
    "bigvgan.get_mel_spectrogram": Entry(
        lambda x: bigvgan.get_mel_spectrogram(
            x,
            Attributes(
                n_fft=1024, num_mels=80, sampling_rate=22050, hop_size=256, win_size=1024, fmin=0.0, fmax=8000.0
            ),
        ),
        LONG,
        (torch.float16,),
    ),
    "vocos.MelSpectrogramFeatures": Entry(vocos.MelSpectrogramFeatures(mel.VOCOS_24K), LONG, (torch.float16,)),
    "EncodecFeatureExtractor": Entry(lambda x: _extracted(transformers.EncodecFeatureExtractor(), x), WAV, SCALES),
    "EncodecFeatureExtractor stereo": Entry(
        lambda x: _extracted(transformers.EncodecFeatureExtractor(2, 48000, chunk_length_s=0.05, overlap=0.01), x),
        STEREO,
        SCALES,
    ),
    "UnivNetFeatureExtractor": Entry(
        lambda x: _extracted(transformers.UnivNetFeatureExtractor(), x, generator=np.random.default_rng(0)), WAV, SCALES
    ),
    "VocosFeatureExtractor": Entry(lambda x: _extracted(transformers.VocosFeatureExtractor(), x), WAV, SCALES),
    "convert_audio": Entry(lambda x: encodec.convert_audio(x, 16000, 24000, 1), STEREO, (torch.float16,)),
    "convert_audio same rate": Entry(lambda x: encodec.convert_audio(x, 24000, 24000, 1), STEREO / 8),
    "audio.resample": Entry(lambda x: audio.resample(x, 16000, 24000), WAV, (torch.float16, torch.float64)),
    "audio.mono": Entry(audio.mono, STEREO / 8),
    "codec.decode": Entry(lambda x: codec().decode(x), _whole(4, 12, low=0, high=64), CODES[:4]),
    "codec.decoding": Entry(
        lambda x: _pushed(codec().decoding(4).stream(), x), _whole(4, 12, low=0, high=64), CODES[:4]
    ),
}
for _name, _takes in {
    "transformers.EncodecModel stereo": SCALES,
    "encodec.EncodecModel stereo": SCALES,
    "transformers.EncodecModel": SCALES,
    "encodec.EncodecModel": SCALES,
    "dac.DAC": SCALES,
    "dac.DAC latent": HALVES,
    "snac.SNAC": SCALES,
    "transformers.DacModel": SCALES,
    "transformers.DacModel latent": HALVES,
    "transformers.MimiModel": SCALES,
    "dac.DAC codes": CODES[:4],
    "snac.SNAC codes": CODES[:4],
    "transformers.DacModel codes": CODES[:4],
    "transformers.MimiModel codes": CODES[:4],
    "transformers.VocosWithEncodecModel": CODES[:4],
    "transformers.EncodecModel codes": CODES[:4],
    "encodec.EncodecModel codes": CODES[:4],
    "encodec.Quantizer": CODES[:4],
    "vocos.Vocos codes": CODES[:4],
    "cosyvoice.HiFTGenerator": HALVES,
    "transformers.HiFTNetVocoder": HALVES,
}.items():
    ENTRIES[_name] = Entry(ENTRIES[_name].call, ENTRIES[_name].x, _takes)
NUMPY = [
    *("voc", "voc checked", "voc.each", "voc.examine", "voc.f0", "voc f0", "voc noise", "voc.mel", "voc.stream"),
    *("codec.encode", "codec.encode stereo", "codec.encoding", "codec.decode", "codec.decode scale", "codec.decoding"),
    *("EncodecFeatureExtractor", "EncodecFeatureExtractor stereo", "UnivNetFeatureExtractor", "VocosFeatureExtractor"),
    *("transformers.VocosWithEncodecModel", "vocos.Vocos codes"),
]


def same(ours: Any, theirs: Any) -> bool:
    pairs = list(zip(tensors(ours), tensors(theirs), strict=True))
    return bool(pairs) and all(a.shape == b.shape and _same(a, b) for a, b in pairs)


def _same(a: Tensor, b: Tensor) -> bool:
    if a.dtype == torch.float64 and b.dtype == torch.float32:  # front ends compute in float64 for float64
        return torch.allclose(a.float(), b, rtol=0, atol=1e-4)
    return torch.equal(a.double(), b.double())


def attempt(entry: Entry, x: Any) -> Any:
    """What comes out, None where the entry refuses."""
    try:
        return entry.call(x)
    except FastvocError:
        return None


@pytest.mark.parametrize("name", ENTRIES)
def test_torch(name: str) -> None:
    entry = ENTRIES[name]
    expected = entry.call(entry.x)
    for dtype in FLOATS if entry.x.is_floating_point() else CODES:
        x = entry.x.to(dtype)
        if not torch.equal(x.to(entry.x.dtype), entry.x):
            continue  # does not hold these numbers
        got = attempt(entry, x)
        assert got is None or same(got, expected), dtype
        assert got is not None or dtype not in entry.takes, dtype


@pytest.mark.parametrize("name", NUMPY)
def test_numpy(name: str) -> None:
    entry = ENTRIES[name]
    expected = entry.call(entry.x)
    for kind in ("f8", "f4", ">f4", "f2", "i2", ">i2", "u2", "?"):
        x = entry.x.numpy().astype(kind)
        if not np.array_equal(x.astype(entry.x.numpy().dtype), entry.x.numpy()):
            continue
        got = attempt(entry, x)
        assert got is None or same(got, expected), kind
        assert got is not None or (np.dtype(kind).kind == "f") is not entry.x.is_floating_point(), kind
