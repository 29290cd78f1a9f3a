"""Names the front end that made a mel, from the mel alone where that can be told, else from the mel and its waveform.

With the waveform every front end that could have been meant is tried: the model's own with one thing changed, and those
of other families; each in any unit, for which a line a x + b is fitted from its log-mel to the values. What is left is
the evidence, in nepers: of the right front end some thousandths, of any other mostly more than a tenth.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastvoc.errors import ArgumentError, DtypeError, ShapeError
from fastvoc.sound import mel_check
from fastvoc.sound.mel import PRESETS, MelConfig, MelSpectrogram, convert
from fastvoc.sound.resampling import resampled

_LN10 = math.log(10.0)
_FRAMES = 300  # that are looked at
_EDGE = 8  # of them, at either end, which reflections reach
_KNOWN = 0.03  # nepers: what the right front end may leave
_STEP = 4e-3  # nepers that make no difference
_QUIET = -9.5  # nepers of amplitude below which what is added under roots and floors counts
_HOPS = (80, 128, 160, 200, 220, 240, 256, 275, 300, 320, 441, 480, 512, 600, 640, 1024)
_FFTS = (400, 512, 640, 800, 1024, 1200, 1280, 1920, 2048, 4096)
_BANDS: tuple[tuple[float, float | None], ...] = (
    *((0.0, None), (0.0, 7600.0), (0.0, 8000.0), (80.0, 7600.0), (0.0, 11025.0), (0.0, 12000.0), (20.0, 8000.0)),
    *((40.0, None), (50.0, None), (55.0, 7600.0), (80.0, 8000.0), (125.0, 7600.0), (125.0, 7500.0)),
)


@dataclass(frozen=True)
class Diagnosis:
    """What a mel looks like, and how that is known.

    kind: None when nothing speaks against it; "log10", "ln", "db", "linear", "normalised", "gain", "transposed",
    "bands" (their number), "fmax" (either end), "hop", "n_fft", "scale" (or norm), "power", "pad", another family's
    name, such as "tacotron2_22k"; "unknown" when no front end that is tried makes it of the waveform.
    More than one may be wrong: `also` has the others. text: in words, with the remedy. evidence: numbers by name.
    source: the front end that made it, where it is known.
    """

    kind: str | None
    text: str
    evidence: dict[str, float] = field(default_factory=dict)
    also: tuple[str, ...] = ()
    source: MelConfig | None = None
    _target: MelConfig | None = None
    _unit: str | None = None
    _mean: Any = 0.0
    _std: Any = 1.0

    def __str__(self) -> str:
        return self.text

    @property
    def kinds(self) -> tuple[str, ...]:
        """All that is wrong."""
        return () if self.kind is None else (self.kind, *self.also)

    def mend(self, mel: Tensor | np.ndarray[Any, Any]) -> Tensor:
        """The mel, a tensor or a numpy array, as the model wants it, by `fastvoc.mel.convert`.

        Raises ArgumentError where no exact conversion exists: make the mel from the waveform then.
        """
        mel = torch.from_numpy(np.ascontiguousarray(mel)) if isinstance(mel, np.ndarray) else mel
        if self.kind is None:
            return mel
        if self.source is None or self._target is None or self._unit is None:
            raise ArgumentError(f"mel: no exact conversion exists for {self.kind}; make it from the waveform")
        upright = mel.transpose(-1, -2) if "transposed" in self.kinds else mel
        return convert(upright, self.source, self._target, unit=self._unit, mean=self._mean, std=self._std)


def diagnose(mel: Tensor, config: MelConfig, wav: Tensor | None = None) -> Diagnosis:
    """Says which front end made a mel that should be of `config`.

    mel: [n_mels, T], as it came, of whatever form. wav: [L] samples at config.sample_rate that it was made from.
    Raises ShapeError, DtypeError or ArgumentError for what is no mel or no waveform, or holds NaN or infinity.
    """
    for name, value, rank in (("mel", mel, 2), ("wav", wav, 1)):
        if value is None:
            continue
        if not isinstance(value, Tensor) or not value.is_floating_point():
            got = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise DtypeError(f"{name}: expected a floating-point tensor, got {got}")
        if value.dim() != rank or not value.numel():
            raise ShapeError(f"{name}: expected {'[n_mels, T]' if rank == 2 else '[L]'}, got {list(value.shape)}")
        if not bool(value.isfinite().all()):
            raise ArgumentError(f"{name}: holds NaN or infinity")
    with torch.inference_mode(False), torch.no_grad():
        if wav is None:
            return _alone(mel.detach().float().cpu(), config)
        return _with_wav(mel.detach().float().cpu(), config, wav.detach().float().cpu())


def _alone(mel: Tensor, config: MelConfig) -> Diagnosis:
    shape = {"bands": float(mel.shape[0]), "frames": float(mel.shape[1])}
    if mel.shape[0] != config.n_mels:
        if mel.shape[1] == config.n_mels:
            turned = _alone(mel.t(), config)
            return replace(
                turned,
                kind="transposed",
                also=() if turned.kind is None else turned.kinds,
                text=f"transposed, [T, {config.n_mels}]: pass mel.transpose(-1, -2)",
                evidence={**turned.evidence, **shape},
                source=turned.source or (config if turned.kind is None else None),
                _target=config,
                _unit=turned._unit or ("log" if turned.kind is None else None),
            )
        families = ", ".join(name for name, own in PRESETS.items() if own.n_mels == mel.shape[0])
        text = f"{mel.shape[0]} bands, this model takes {config.n_mels}"
        return Diagnosis("bands", text + (f"; {families} has so many" if families else ""), shape)
    kind = mel_check.suspect(mel, config)
    evidence = {"mean": mel.mean().item(), "std": mel.std().item(), "min": mel.min().item(), "max": mel.max().item()}
    if kind is None:
        return Diagnosis(None, "nothing speaks against it", evidence)
    unit, source = {
        "linear": ("linear", config),
        "db": ("db", config),
        "log10": ("log", replace(config, log="log10")),
        "ln": ("log", replace(config, log="ln")),
        "transposed": ("log", config),
    }.get(kind, (None, None))
    text = mel_check.advice(kind, config)
    return Diagnosis(kind, text, evidence, (), source, config, unit)


@dataclass(frozen=True)
class _Candidate:
    """A front end, by what of the model's own it changes, and what its waveform went through."""

    kind: str | None
    config: MelConfig
    rate: int


@dataclass(frozen=True)
class _Fit:
    """How a candidate explains a mel: y = a x + b of its log-mel in nepers, or one such line a band; what is left."""

    candidate: _Candidate
    unit: str
    left: float
    slope: float
    offset: float
    transposed: bool
    by_band: bool = False
    lines: tuple[Tensor, Tensor] | None = None  # slopes and offsets, where every band has one

    @property
    def simple(self) -> tuple[int, int]:
        """Less is better: what is left, in steps that noise does not reach, then how much was changed."""
        changes = (self.candidate.kind is not None) + 2 * (self.unit != "log") + self.transposed + 4 * self.by_band
        return round(max(self.left, _STEP) / _STEP), changes


def _with_wav(mel: Tensor, config: MelConfig, wav: Tensor) -> Diagnosis:
    waves = {config.sample_rate: wav}
    fits: list[_Fit] = []
    for candidate in _candidates(mel, config, len(wav)):
        found = list(_fits(mel, candidate, wav, config, waves))
        fits += found
        if any(fit.left <= _STEP / 2 and not fit.by_band for fit in found):
            break  # it is this one
    if not fits and (alone := _alone(mel, config)).kind == "bands":
        return alone
    if not fits:
        text = f"no front end that is tried makes {list(mel.shape)} of {len(wav)} samples"
        return Diagnosis("unknown", text, {"bands": float(mel.shape[0]), "frames": float(mel.shape[1])})
    best = min(fits, key=lambda fit: fit.simple)
    evidence = {"nepers left": best.left, "slope": best.slope, "offset": best.offset, "tried": float(len(fits))}
    if (apart := _apart(mel, config, wav)) is not None:
        evidence["nepers from the model's own"] = apart
    if best.left > _KNOWN:
        text = f"no front end that is tried makes it of this waveform; the nearest leaves {best.left:.2f} nepers"
        return Diagnosis("unknown", text, evidence)
    kinds = _kinds(best)
    if not kinds:
        return Diagnosis(
            None, f"this model's own: {best.left:.4f} nepers are left", evidence, (), config, config, "log"
        )
    return _told(best, kinds, config, evidence)


def _apart(mel: Tensor, config: MelConfig, wav: Tensor) -> float | None:
    """The root mean square between the values and the model's own log-mel; None for other bands or frames."""
    if len(wav) < config.min_samples or mel.shape[0] != config.n_mels or mel.shape[1] != config.frames(len(wav)):
        return None
    unit = 1.0 if config.log == "ln" else _LN10
    return unit * (mel - MelSpectrogram(config)(wav)).square().mean().sqrt().item()


def _candidates(mel: Tensor, config: MelConfig, samples: int) -> Iterator[_Candidate]:
    """What could have made a mel of this form; the model's own first, then other families'."""
    rate = config.sample_rate
    yield _Candidate(None, config, rate)
    others = {name: other for name, other in PRESETS.items() if other.n_mels in mel.shape and other != config}
    for name, other in others.items():
        yield _Candidate(name, other, other.sample_rate)
    for name, other in others.items():  # and by who took their values, but not their rate
        if other.sample_rate != rate and (other.f_max is None or other.f_max <= rate / 2):
            yield _Candidate(name, replace(other, sample_rate=rate), rate)
    longest = max(mel.shape)
    hops = {*_HOPS, round(samples / longest), round(samples / max(longest - 1, 1))}
    for hop in sorted(hops - {config.hop_length}):
        fft = max(config.n_fft, hop)
        yield _Candidate("hop", replace(config, hop_length=hop, n_fft=fft), rate)
    for fft in _FFTS:
        if fft >= config.hop_length and fft != config.n_fft:
            yield _Candidate("n_fft", replace(config, n_fft=fft, win_length=fft), rate)
            if fft < config.n_fft:
                yield _Candidate("n_fft", replace(config, win_length=fft), rate)
    for low, high in _BANDS:
        changed = low, high if high is None or high < rate / 2 else None
        if changed != (config.f_min, config.f_max):
            yield _Candidate("fmax", replace(config, f_min=low, f_max=changed[1]), rate)
    for scale in ("slaney", "htk"):
        for norm in ("slaney", None):
            if (scale, norm) != (config.scale, config.norm):
                yield _Candidate("scale", replace(config, scale=scale, norm=norm), rate)
    # A power is clamped where its root would be.
    power, floor = (2.0, config.floor**2) if config.power == 1.0 else (1.0, config.floor**0.5)
    yield _Candidate("power", replace(config, power=power, floor=floor), rate)
    yield _Candidate("pad", replace(config, pad="center" if config.pad == "reflect_hop" else "reflect_hop"), rate)


def _fits(mel: Tensor, candidate: _Candidate, wav: Tensor, own: MelConfig, waves: dict[int, Tensor]) -> Iterator[_Fit]:
    """A candidate's log-mel of the waveform against the values, upright and transposed, in every unit."""
    config = candidate.config
    if candidate.rate not in waves:
        waves[candidate.rate] = resampled(wav, own.sample_rate, candidate.rate)
    signal = waves[candidate.rate]
    if len(signal) < config.min_samples:
        return
    frames = config.frames(len(signal))
    for transposed in (False, True):
        got = mel.t() if transposed else mel
        if got.shape[0] != config.n_mels or abs(got.shape[1] - frames) > 1:
            continue
        kept = min(frames, _FRAMES)
        part = signal[: kept * config.hop_length + config.n_fft]
        x = MelSpectrogram(config)(part)[:, :kept] * (_LN10 if config.log == "log10" else 1.0)
        size = min(x.shape[1], got.shape[1])
        edge = _EDGE if size > 4 * _EDGE else 0
        x, y = x[:, edge : size - edge], got[:, edge : size - edge]
        yield from _lines(candidate, x.double(), y.double(), math.log(config.floor), transposed)


def _lines(candidate: _Candidate, x: Tensor, y: Tensor, floor: float, transposed: bool) -> Iterator[_Fit]:
    """Fits of values y to a log-mel x [bands, frames] in nepers."""
    # On a floor, of either side, values say nothing.
    audible = (x > max(floor + 0.7, _QUIET * candidate.config.power)) & (y > y.min())
    if audible.sum() < 100:
        return
    flat = audible.flatten()[None]
    (a,), (b,), (left,) = (v.tolist() for v in _line(x.flatten()[None], y.flatten()[None], flat))
    if abs(a) > 1e-3:
        yield _Fit(candidate, _unit(a, b, candidate.config), left, a, b, transposed)
    if bool((y >= 0).all()):
        logs = y.clamp(min=1e-30).log()
        (a,), (b,), (left,) = (v.tolist() for v in _line(x.flatten()[None], logs.flatten()[None], flat))
        if abs(a - 1) < 0.02:
            yield _Fit(candidate, "linear", left, a, b, transposed)
    slopes, offsets, rest = _line(x, y, audible)
    good = (audible.sum(1) >= 20) & (slopes > 1e-3)
    if 2 * good.sum() >= len(x):
        # A line a band takes up some of what front ends differ in: all that it leaves counts twice.
        left = 2.0 * rest[good].square().mean().sqrt().item()
        lines = (slopes, offsets) if bool(good.all()) else None
        slope, offset = slopes[good].mean().item(), offsets[good].mean().item()
        yield _Fit(candidate, "normalised", left, slope, offset, transposed, True, lines)


def _line(x: Tensor, y: Tensor, kept: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Least squares of rows: slopes, offsets, and the root mean square of what is left, in the units of x."""
    count = kept.sum(1, keepdim=True).clamp(min=1)
    x_mean, y_mean = ((v * kept).sum(1, keepdim=True) / count for v in (x, y))
    dx, dy = (x - x_mean) * kept, (y - y_mean) * kept
    slope = (dx * dy).sum(1, keepdim=True) / dx.square().sum(1, keepdim=True).clamp(min=1e-30)
    left = ((dy - slope * dx).square().sum(1, keepdim=True) / count).sqrt() / slope.abs().clamp(min=1e-30)
    return slope[:, 0], (y_mean - slope * x_mean)[:, 0], left[:, 0]


def _unit(a: float, b: float, config: MelConfig) -> str:
    """What a line from nepers is."""
    decibels = (20.0 if config.power == 1.0 else 10.0) / _LN10
    for unit, slope in (("ln", 1.0), ("log10", 1.0 / _LN10), ("db", decibels)):
        if abs(a / slope - 1.0) < 0.01:
            if unit == "db" or abs(b) < 0.02 * slope:
                return "log" if unit == config.log else unit
            if unit == config.log:
                return "gain"
    return "normalised"


def _kinds(best: _Fit) -> list[str]:
    """All that a fit says is wrong, what matters most first."""
    kinds = [] if best.candidate.kind is None else [best.candidate.kind]
    kinds += [best.unit] if best.unit != "log" else []
    return ["transposed", *kinds] if best.transposed else kinds


def _told(best: _Fit, kinds: list[str], config: MelConfig, evidence: dict[str, float]) -> Diagnosis:
    """The diagnosis of a fit, in words and with what mends it."""
    source = best.candidate.config
    unit: str | None = {"linear": "linear", "db": "db"}.get(best.unit, "log")
    mean: Any = 0.0
    std: Any = 1.0
    scale = 1.0 if source.log == "ln" else 1.0 / _LN10
    if best.unit in ("log10", "ln"):
        source = replace(source, log=best.unit)
    elif best.by_band and best.lines is None:
        unit = None
    elif best.unit == "normalised":
        slopes, offsets = best.lines if best.lines is not None else (best.slope, best.offset)
        std, mean = scale / slopes, -offsets * scale / slopes
    elif best.unit == "gain" or (best.unit == "db" and abs(best.offset) > 0.1):
        unit = None  # what a floor cut off lies elsewhere
    words = [_WORDS.get(kind, f"the front end of another family, {kind}") for kind in kinds]
    changed = [
        f"{name} {getattr(best.candidate.config, name)} and not {getattr(config, name)}"
        for name in _FIELDS
        if getattr(best.candidate.config, name) != getattr(config, name)
    ]
    text = "; ".join([", ".join(words), *changed, f"{best.left:.4f} nepers are left"])
    found = Diagnosis(kinds[0], text, evidence, tuple(kinds[1:]), source, config, unit, mean, std)
    remedy = "mend(mel) converts it" if _convertible(found) else "make it from the waveform by this model's front end"
    return replace(found, text=f"{text}; {remedy}")


def _convertible(found: Diagnosis) -> bool:
    """Whether `convert` knows the way, tried on a mel that lies on no floor."""
    assert found.source is not None
    try:
        found.mend(torch.zeros(_blank(found), dtype=torch.float32, device="cpu"))
    except ArgumentError:
        return False
    return True


def _blank(found: Diagnosis) -> tuple[int, int]:
    assert found.source is not None
    bands = found.source.n_mels
    return (3, bands) if "transposed" in found.kinds else (bands, 3)


_FIELDS = (
    *("sample_rate", "n_fft", "win_length", "hop_length", "n_mels", "f_min", "f_max"),
    *("scale", "norm", "power", "pad"),
)
_WORDS = {
    "transposed": "transposed",
    "hop": "another hop",
    "n_fft": "another n_fft or window",
    "fmax": "other ends of the bands (f_min, f_max)",
    "scale": "another mel scale or norm of the filters",
    "power": "another power of the magnitudes",
    "pad": "other padding, so that frames lie half a hop away",
    "log10": "log10, not ln",
    "ln": "ln, not log10",
    "db": "decibels",
    "linear": "linear, without a logarithm",
    "normalised": "normalised by a mean and a deviation",
    "gain": "of the waveform times a factor",
}
