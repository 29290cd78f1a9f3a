"""Log-mel front ends: a `MelConfig` per model family, which `MelSpectrogram` computes whole or streamed.

On CPU the frames are computed in tiles of a fixed shape, anchored to the item's first frame: the bits of a
frame depend neither on the batch it came in nor on how a stream was cut into chunks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F

from fastvoc.errors import ArgumentError, DtypeError, ShapeError

_TILE = 32  # frames
_MOST_HZ = 1e6
_TILES_AT_ONCE = 64  # bounds the memory: the windowed frames of as many tiles
_CHOICES: dict[str, tuple[Any, ...]] = {
    "scale": ("slaney", "htk"),
    "norm": ("slaney", None),
    "log": ("ln", "log10"),
    "pad": ("reflect_hop", "center"),
    "power": (1.0, 2.0),
}


@dataclass(frozen=True)
class MelConfig:
    """Parameters of a log-mel front end.

    n_fft, win_length, hop_length: samples. sample_rate, f_min, f_max: Hz (f_max None = Nyquist; filters of a larger one
    are empty beyond Nyquist, as librosa's).
    scale and norm choose the filters: "slaney" or "htk" scale, Slaney's area normalisation or peaks of 1.
    log and floor: the logarithm of max(mel, floor). magnitude_eps is added under the root of re^2 + im^2.
    pad: "reflect_hop" reflects (n_fft - hop_length) // 2 samples at both ends (length // hop_length frames),
    "center" n_fft // 2 samples (1 + length // hop_length frames). power: exponent of the magnitude, 1 or 2.

    Raises ArgumentError that names the first illegal field.
    """

    sample_rate: int
    n_fft: int
    win_length: int
    hop_length: int
    n_mels: int
    f_min: float = 0.0
    f_max: float | None = None
    scale: str = "slaney"
    norm: str | None = "slaney"
    log: str = "ln"
    floor: float = 1e-5
    magnitude_eps: float = 1e-9
    pad: str = "reflect_hop"
    power: float = 1.0

    def __post_init__(self) -> None:
        for name in ("sample_rate", "n_fft", "win_length", "hop_length", "n_mels"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ArgumentError(f"{name}: expected a positive integer, got {value!r}")
        for name in ("win_length", "hop_length"):
            if getattr(self, name) > self.n_fft:
                raise ArgumentError(f"{name}: expected at most n_fft = {self.n_fft}, got {getattr(self, name)}")
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ArgumentError(f"{name}: expected one of {allowed}, got {getattr(self, name)!r}")
        for name in ("f_min", "f_max", "floor", "magnitude_eps"):
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number and not (name == "f_max" and value is None):
                raise ArgumentError(f"{name}: expected a number, got {value!r}")
        nyquist = self.sample_rate / 2
        if not 0 <= self.f_min < nyquist:
            raise ArgumentError(f"f_min: expected 0 <= f_min < {nyquist:g} Hz, got {self.f_min!r}")
        if self.f_max is not None and not self.f_min < self.f_max < _MOST_HZ:
            raise ArgumentError(f"f_max: expected {self.f_min:g} < f_max < {_MOST_HZ:g} Hz or None, got {self.f_max!r}")
        if not (math.isfinite(self.floor) and self.floor > 0):
            raise ArgumentError(f"floor: expected a positive number, got {self.floor!r}")
        if not (math.isfinite(self.magnitude_eps) and self.magnitude_eps >= 0):
            raise ArgumentError(f"magnitude_eps: expected zero or a positive number, got {self.magnitude_eps!r}")

    @property
    def padding(self) -> int:
        """Reflected samples at each end."""
        return self.n_fft // 2 if self.pad == "center" else (self.n_fft - self.hop_length) // 2

    @property
    def min_samples(self) -> int:
        """Shortest signal that has a frame: reflection needs more samples than it pads."""
        return max(self.padding + 1, self.n_fft - 2 * self.padding)

    @property
    def log_floor(self) -> float:
        """The value of digital silence: the right one to pad a log-mel with."""
        return math.log(self.floor) if self.log == "ln" else math.log10(self.floor)

    def frames(self, samples: int) -> int:
        """Number of frames of a signal of `samples` samples."""
        return (samples + 2 * self.padding - self.n_fft) // self.hop_length + 1

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MelConfig:
        """Inverse of `to_dict`. Raises ArgumentError for unknown, missing or illegal fields."""
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise ArgumentError(f"mel config: unknown field {unknown[0]!r}")
        missing = [n for n in ("sample_rate", "n_fft", "win_length", "hop_length", "n_mels") if n not in values]
        if missing:
            raise ArgumentError(f"mel config: field {missing[0]!r} is missing")
        try:
            return cls(**values)
        except TypeError as error:
            raise ArgumentError(f"mel config: {error}") from None


# github.com/jik876/hifi-gan; its training loss uses the same front end with f_max=None.
HIFIGAN_22K = MelConfig(22050, 1024, 1024, 256, 80, f_max=8000.0)
# github.com/NVIDIA/BigVGAN, 24 kHz 100 bands.
BIGVGAN_24K_100 = MelConfig(24000, 1024, 1024, 256, 100)
# github.com/FunAudioLLM/CosyVoice; version 1 uses HIFIGAN_22K.
# The S3Gen vocoder of github.com/resemble-ai/chatterbox uses the values of version 2.
COSYVOICE2_24K = MelConfig(24000, 1920, 1920, 480, 80, f_max=8000.0)
COSYVOICE3_24K = MelConfig(24000, 1920, 1920, 480, 80)
# github.com/gemelo-ai/vocos.
VOCOS_24K = MelConfig(24000, 1024, 1024, 256, 100, scale="htk", norm=None, floor=1e-7, magnitude_eps=0.0, pad="center")
VOCOS_24K_SAME = MelConfig(24000, 1024, 1024, 256, 100, scale="htk", norm=None, floor=1e-7, magnitude_eps=0.0)
# TacotronSTFT: Tacotron 2 and FastSpeech 2; also the HiFi-GAN recipes of github.com/speechbrain/speechbrain.
TACOTRON2_22K = MelConfig(22050, 1024, 1024, 256, 80, f_max=8000.0, magnitude_eps=0.0, pad="center")
# transformers.SpeechT5FeatureExtractor.
SPEECHT5_16K = MelConfig(
    16000, 1024, 1024, 256, 80, 80.0, 7600.0, log="log10", floor=1e-10, magnitude_eps=0.0, pad="center"
)
# github.com/kan-bayashi/ParallelWaveGAN, LJSpeech recipes (before its mean and variance normalisation).
PWG_22K = MelConfig(22050, 1024, 1024, 256, 80, 80.0, 7600.0, log="log10", floor=1e-10, magnitude_eps=0.0, pad="center")

PRESETS: dict[str, MelConfig] = {
    "hifigan_22k": HIFIGAN_22K,
    "bigvgan_24k_100": BIGVGAN_24K_100,
    "cosyvoice2_24k": COSYVOICE2_24K,
    "cosyvoice3_24k": COSYVOICE3_24K,
    "vocos_24k": VOCOS_24K,
    "vocos_24k_same": VOCOS_24K_SAME,
    "tacotron2_22k": TACOTRON2_22K,
    "speecht5_16k": SPEECHT5_16K,
    "pwg_22k": PWG_22K,
}


# What a log-mel's values may be besides the logarithm of its configuration.
UNITS = ("log", "linear", "db")
# What two front ends must have in common, since a mel does not tell.
_LOST = ("sample_rate", "n_fft", "win_length", "hop_length", "n_mels", "scale", "pad", "power", "magnitude_eps")


def convert(
    mel: torch.Tensor,
    source: MelConfig,
    target: MelConfig,
    *,
    unit: str = "log",
    mean: float | torch.Tensor = 0.0,
    std: float | torch.Tensor = 1.0,
) -> torch.Tensor:
    """A mel of one front end as that of another where that is exact: another logarithm, unit, floor or norm.

    Args:
        mel: [n_mels, T] or [B, n_mels, T], floating point, by `source`.
        unit: of its values: "log" as `source` says, "linear", or "db", 20 log10 of amplitudes or 10 log10 of powers.
        mean, std: what it was normalised with, (mel - mean) / std, a number or one for each band [n_mels].

    Returns:
        The log-mel of `target`, in the dtype of `mel`, to its rounding.

    Raises:
        ArgumentError: the front ends differ in what a mel does not tell (the message names it), a unit or std that
            cannot be, or values on a floor below which `target` would look.
        ShapeError, DtypeError: a mel, mean or std of another form.
    """
    if unit not in UNITS:
        raise ArgumentError(f"unit: expected one of {', '.join(UNITS)}, got {unit!r}")
    for name, config in (("source", source), ("target", target)):
        if not isinstance(config, MelConfig):
            raise ArgumentError(f"{name}: expected a MelConfig, got {type(config).__name__}")
    if not isinstance(mel, torch.Tensor) or not mel.is_floating_point():
        raise DtypeError(f"mel: expected a floating-point tensor, got {getattr(mel, 'dtype', type(mel).__name__)}")
    if mel.dim() not in (2, 3) or mel.shape[-2] != source.n_mels:
        raise ShapeError(f"mel: expected [{source.n_mels}, T] or [B, {source.n_mels}, T], got {list(mel.shape)}")
    for name in (
        "sample_rate",
        "n_fft",
        "win_length",
        "hop_length",
        "n_mels",
        "scale",
        "pad",
        "power",
        "magnitude_eps",
    ):
        if getattr(source, name) != getattr(target, name):
            ours, theirs = getattr(source, name), getattr(target, name)
            raise ArgumentError(f"{name}: {ours!r} became {theirs!r}; only the waveform tells, make the mel from that")
    for name in ("f_min", "f_max"):
        low, high = (
            (source.sample_rate / 2 if v is None else v) for v in (getattr(source, name), getattr(target, name))
        )
        if low != high:
            raise ArgumentError(f"{name}: {low:g} became {high:g} Hz; only the waveform tells, make the mel from that")
    spread, middle = _statistic("std", std, mel, source.n_mels), _statistic("mean", mean, mel, source.n_mels)
    if not bool((spread > 0).all()):
        raise ArgumentError(f"std: expected positive numbers, got {std!r}")
    values = mel.double() * _by_band(spread) + _by_band(middle)
    if unit == "linear":
        values = values.clamp(min=source.floor).log()
    elif unit == "db":
        values = values * (math.log(10.0) / (20.0 if source.power == 1.0 else 10.0))
    elif source.log == "log10":
        values = values * math.log(10.0)
    lost = values <= math.log(source.floor) + 1e-5
    if source.norm != target.norm:
        areas = mel_filterbank(replace(source, norm="slaney"), torch.float64).sum(1).clamp(min=1e-30).log()
        plain = mel_filterbank(replace(source, norm=None), torch.float64).sum(1).clamp(min=1e-30).log()
        change = areas - plain if target.norm == "slaney" else plain - areas
        values = values + change.to(mel.device)[:, None]
    if bool((lost & (values > math.log(target.floor) + 1e-5)).any()):
        raise ArgumentError(f"floor: values of {source.floor:g} may have been less, which {target.floor:g} would show")
    values = values.clamp(min=math.log(target.floor))
    return (values if target.log == "ln" else values / math.log(10.0)).to(mel.dtype)


def _statistic(name: str, value: float | torch.Tensor, mel: torch.Tensor, bands: int) -> torch.Tensor:
    """A number or one for each band, in float64."""
    try:
        found = torch.as_tensor(value, dtype=torch.float64, device=mel.device)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise DtypeError(f"{name}: expected a number or [{bands}] of them, got {type(value).__name__}") from None
    if found.dim() and found.shape != (bands,):
        raise ShapeError(f"{name}: expected a number or [{bands}] of them, got {list(found.shape)}")
    if not bool(found.isfinite().all()):
        raise ArgumentError(f"{name}: holds NaN or infinity")
    return found


def _by_band(value: torch.Tensor) -> torch.Tensor:
    return value[:, None] if value.dim() == 1 else value


def mel_filterbank(config: MelConfig, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Triangular mel filters [n_mels, n_fft // 2 + 1], computed in fp64 and rounded once to `dtype`.

    Slaney's scale and area normalisation are those of his Auditory Toolbox (librosa's default); HTK's is
    2595 log10(1 + f / 700), torchaudio's default.
    """
    f_max = config.sample_rate / 2 if config.f_max is None else config.f_max
    low, high = _hz_to_mel(config.f_min, config.scale), _hz_to_mel(f_max, config.scale)
    edges = _mel_to_hz(torch.linspace(low, high, config.n_mels + 2, dtype=torch.float64, device="cpu"), config.scale)
    bins = torch.arange(config.n_fft // 2 + 1, dtype=torch.float64, device="cpu") * (config.sample_rate / config.n_fft)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    filters = torch.minimum(rising, falling).clamp_(min=0)
    if config.norm == "slaney":
        filters *= (2.0 / (edges[2:] - edges[:-2]))[:, None]
    return filters.to(dtype)


def _hz_to_mel(hz: float, scale: str) -> float:
    if scale == "htk":
        return 2595.0 * math.log10(1.0 + hz / 700.0)
    return 15.0 + 27.0 * math.log(hz / 1000.0) / math.log(6.4) if hz >= 1000.0 else hz * 3.0 / 200.0


def _mel_to_hz(mel: torch.Tensor, scale: str) -> torch.Tensor:
    if scale == "htk":
        return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
    exponential = 1000.0 * torch.exp((mel - 15.0) * (math.log(6.4) / 27.0))
    return torch.where(mel >= 15.0, exponential, mel * (200.0 / 3.0))


@lru_cache(maxsize=64)
def _constants(config: MelConfig, device: torch.device, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Window [n_fft] and transposed filters [n_fft // 2 + 1, n_mels]; shared, so never inference tensors."""
    with torch.inference_mode(False):
        window = torch.hann_window(config.win_length, periodic=True, dtype=torch.float64, device="cpu")
        left = (config.n_fft - config.win_length) // 2
        window = F.pad(window, (left, config.n_fft - config.win_length - left))
        filters = mel_filterbank(config, torch.float64).t().contiguous()
        return window.to(device, dtype), filters.to(device, dtype)


class MelSpectrogram:
    """A front end: `MelSpectrogram(config)(wav)` gives the log-mel.

    wav: [L] or [B, L], floating point, -1..1, any device; result [n_mels, frames] or [B, n_mels, frames], in
    float64 for float64 and in float32 otherwise. Differentiable, unaffected by autocast.
    Raises DtypeError for a wav that is no floating-point tensor, ShapeError for a wrong rank or a signal too
    short to be reflected.
    """

    def __init__(self, config: MelConfig) -> None:
        if not isinstance(config, MelConfig):
            raise DtypeError(f"config: expected a MelConfig, got {type(config).__name__}")
        self.config = config

    def __repr__(self) -> str:
        return f"MelSpectrogram({self.config})"

    def __call__(self, wav: torch.Tensor) -> torch.Tensor:
        wav = _checked(wav)
        samples = wav.shape[-1]
        _check_length(self.config, samples)
        batch = wav if wav.dim() == 2 else wav[None]
        padded = F.pad(batch, (self.config.padding, self.config.padding), mode="reflect")
        mel = _log_mel(self.config, padded, self.config.frames(samples))
        return mel if wav.dim() == 2 else mel[0]

    def stream(self) -> MelStream:
        """A new stream of this front end."""
        return MelStream(self.config)


class MelStream:
    """One signal, or a batch of equally long ones, in chunks: the joined results equal the offline log-mel.

    On CPU they are bit-identical to it, whatever the chunks.
    """

    def __init__(self, config: MelConfig) -> None:
        self.config = config
        self._signal: torch.Tensor | None = None  # padded signal from the first frame of the current tile on
        self._tail: torch.Tensor | None = None  # last padding + 1 samples, for the reflection at the end
        self._samples = 0
        self._skip = 0  # frames of the current tile that are already out
        self._closed = False

    def push(self, samples: torch.Tensor) -> torch.Tensor:
        """Add samples [n] or [B, n], n >= 0; returns the frames now complete, [n_mels, f] or [B, n_mels, f].

        Raises ShapeError or DtypeError as the offline call does, also when rank or batch change between
        calls, and ArgumentError after `flush`.
        """
        if self._closed:
            raise ArgumentError("stream: push after flush; start a new stream")
        chunk = _checked(samples)
        if self._tail is not None and (chunk.shape[:-1] != self._tail.shape[:-1] or chunk.dtype != self._tail.dtype):
            raise ShapeError(
                f"samples: expected shape {[*self._tail.shape[:-1], 'n']} of {self._tail.dtype} "
                f"as in the first push, got {list(chunk.shape)} of {chunk.dtype}"
            )
        padding = self.config.padding
        self._samples += chunk.shape[-1]
        if self._signal is None:
            # Until the left reflection is known, the tail holds every sample.
            start = chunk if self._tail is None else torch.cat([self._tail, chunk], -1)
            if self._samples > padding:
                self._signal = torch.cat([start[..., 1 : padding + 1].flip(-1), start], -1)
            self._tail = start[..., -(padding + 1) :].clone()
        else:
            assert self._tail is not None
            self._signal = torch.cat([self._signal, chunk], -1)
            self._tail = torch.cat([self._tail, chunk], -1)[..., -(padding + 1) :].clone()
        return self._emit()

    def flush(self) -> torch.Tensor:
        """The last frames; afterwards the stream is closed.

        Raises ShapeError when samples came, but too few to be reflected; no samples at all give no frames.
        """
        if self._closed:
            raise ArgumentError("stream: flush after flush; start a new stream")
        if self._samples:
            _check_length(self.config, self._samples)
        self._closed = True
        if self._signal is None or self._tail is None:
            return self._empty()
        self._signal = torch.cat([self._signal, self._tail[..., :-1].flip(-1)], -1)
        return self._emit()

    def _empty(self) -> torch.Tensor:
        like = torch.empty(0, dtype=torch.float32, device="cpu") if self._tail is None else self._tail
        return like.new_empty([*like.shape[:-1], self.config.n_mels, 0])

    def _emit(self) -> torch.Tensor:
        hop, signal = self.config.hop_length, self._signal
        ready = 0 if signal is None else (signal.shape[-1] - self.config.n_fft) // hop + 1
        if signal is None or ready <= self._skip:
            return self._empty()
        batch = signal if signal.dim() == 2 else signal[None]
        mel = _log_mel(self.config, batch, ready)[..., self._skip :]
        done = ready // _TILE * _TILE
        self._signal = signal[..., done * hop :].clone()
        self._skip = ready - done
        return mel if signal.dim() == 2 else mel[0]


def _checked(wav: torch.Tensor) -> torch.Tensor:
    if not isinstance(wav, torch.Tensor) or not wav.is_floating_point():
        got = str(wav.dtype) if isinstance(wav, torch.Tensor) else type(wav).__name__
        raise DtypeError(f"wav: expected a floating-point tensor in -1..1 (16-bit samples / 32768), got {got}")
    if wav.dim() not in (1, 2) or 0 in wav.shape[:-1]:
        raise ShapeError(f"wav: expected shape [L] or [B, L], got {list(wav.shape)}")
    return wav if wav.dtype == torch.float64 else wav.float()


def _check_length(config: MelConfig, samples: int) -> None:
    if samples < config.min_samples:
        raise ShapeError(
            f"wav: expected at least {config.min_samples} samples (reflect padding of {config.padding}, "
            f"n_fft {config.n_fft}), got {samples}"
        )


def _log_mel(config: MelConfig, padded: torch.Tensor, frames: int) -> torch.Tensor:
    """Log-mel [B, n_mels, frames] of the first `frames` frames of a padded signal [B, P]."""
    window, filters = _constants(config, padded.device, padded.dtype)
    tile = _TILE if padded.device.type == "cpu" else frames
    tiles = -(-frames // tile)
    needed = (tiles * tile - 1) * config.hop_length + config.n_fft
    padded = F.pad(padded, (0, max(0, needed - padded.shape[-1])))[:, :needed]
    step = max(1, _TILES_AT_ONCE // len(padded)) * tile
    parts = []
    with torch.autocast(padded.device.type, enabled=False):
        for block in torch.split(padded.unfold(-1, config.n_fft, config.hop_length), step, dim=1):
            rows = (block * window).view(-1, tile, config.n_fft)
            # One product a tile: its shape, and so its order of summation, never changes.
            mel = torch.bmm(_magnitude(config, rows), filters.expand(len(rows), -1, -1))
            parts.append(mel.view(len(padded), -1, config.n_mels))
    mel = torch.cat(parts, 1)[:, :frames].transpose(1, 2).clamp(min=config.floor)
    return (mel.log() if config.log == "ln" else mel.log10()).contiguous()


def _magnitude(config: MelConfig, frames: torch.Tensor) -> torch.Tensor:
    spectrum: torch.Tensor = torch.fft.rfft(frames)
    if config.power == 1.0 and config.magnitude_eps == 0.0:
        return spectrum.abs()  # its gradient at zero is zero, that of a root is infinite
    squared: torch.Tensor = spectrum.real.square() + spectrum.imag.square() + config.magnitude_eps
    return squared if config.power == 2.0 else squared.sqrt()
