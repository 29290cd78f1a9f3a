"""Training configuration: the fields of the published `config.json`, and fastvoc's own."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from fastvoc.errors import ArgumentError, LoadError
from fastvoc.models.families import frozen
from fastvoc.models.hifigan import HifiGanConfig
from fastvoc.models.vocos_config import VocosConfig
from fastvoc.sound.mel import MelConfig


@dataclass(frozen=True)
class TrainConfig:
    """What `fastvoc train` reads; a field that the file does not give keeps its default.

    The first block carries the names of HiFi-GAN's `config.json`; `num_gpus`, `num_freq`, `num_workers` and
    `dist_config` are accepted and unused. Lengths are in samples, frequencies in Hz. An epoch is one random segment
    from every file.

    Own fields:
        generator: "hifigan", or "vocos", of which dim, intermediate_dim, num_layers, mel_skip and phase_rounds give the
            shape (as in `VocosConfig`; it pads like HiFi-GAN's front end), while the fields of upsampling and residual
            blocks have no meaning then.
        mel_rounds: of "hifigan", as in `HifiGanConfig`; the losses hear what the rounds make.
        steps: generator updates at which training ends.
        mel_weight, feature_weight, adversarial_weight: weights of the generator's losses; published as 45, 1 (the loss
            doubles itself) and 1. stft_weight, waveform_weight, loudness_weight: of further losses, which it has not.
        mel_resolutions: (n_fft, bands) of the front ends whose mean is the mel loss; without any, HiFi-GAN's own.
        stft_resolutions, stft_floor: (n_fft, hop) of the STFT loss, and the magnitude under which little counts.
        phase_weight: weight of a loss on how phases differ between neighbouring bins and frames.
        adversarial_start: number of updates made before the discriminators join.
        discriminator_width: factor on the discriminators' channels; mpd_periods, msd_scales, mrd_resolutions (n_fft,
            hop): which ones there are.
        discriminator_learning_rate: learning_rate when None.
        ema_decay: per-update decay of the averaged generator that validation and export use; 0 keeps no average.
        warmup_steps: the learning rate comes up from zero, linearly, over this many updates.
        anneal_steps: the learning rate goes down to zero, linearly, over this many updates before `steps`.
        gain_db: quietest random gain of a segment after its peak is set to 0.95; 0 keeps every segment there.
        speeds: playback speeds at which every training clip is offered, to vary pitch and formants.
        eq_db: largest gain or loss of a random smooth equaliser on a segment. mixing: part of the segments to which
            another clip's is added, up to 10 dB quieter.
        clip_norm: largest gradient norm of the generator; 0 does not clip.
        validation_interval, checkpoint_minutes: updates between validations, minutes between checkpoints.
        valid_samples: number of validation clips that are written as audio and pictures.
    """

    resblock: str = "1"
    batch_size: int = 16
    learning_rate: float = 2e-4
    adam_b1: float = 0.8
    adam_b2: float = 0.99
    lr_decay: float = 0.999
    seed: int = 1234
    upsample_rates: tuple[int, ...] = (8, 8, 2, 2)
    upsample_kernel_sizes: tuple[int, ...] = (16, 16, 4, 4)
    upsample_initial_channel: int = 512
    resblock_kernel_sizes: tuple[int, ...] = (3, 7, 11)
    resblock_dilation_sizes: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    segment_size: int = 8192
    num_mels: int = 80
    n_fft: int = 1024
    hop_size: int = 256
    win_size: int = 1024
    sampling_rate: int = 22050
    fmin: float = 0.0
    fmax: float | None = 8000.0
    fmax_for_loss: float | None = None
    num_gpus: int = 0
    num_freq: int = 1025
    num_workers: int = 0
    dist_config: dict[str, Any] | None = None

    generator: str = "hifigan"
    dim: int = 512
    intermediate_dim: int = 1536
    num_layers: int = 8
    mel_skip: bool = True
    phase_rounds: int = 0
    mel_rounds: int = 0

    steps: int = 1_000_000
    mel_weight: float = 45.0
    feature_weight: float = 1.0
    adversarial_weight: float = 1.0
    stft_weight: float = 0.0
    waveform_weight: float = 0.0
    loudness_weight: float = 0.0
    mel_resolutions: tuple[tuple[int, int], ...] = ()
    phase_weight: float = 0.0
    stft_resolutions: tuple[tuple[int, int], ...] = ((512, 128), (1024, 256), (2048, 512))
    stft_floor: float = 1e-5
    adversarial_start: int = 0
    discriminator_width: float = 1.0
    discriminator_learning_rate: float | None = None
    mpd_periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    msd_scales: int = 3
    mrd_resolutions: tuple[tuple[int, int], ...] = ()
    ema_decay: float = 0.0
    warmup_steps: int = 0
    anneal_steps: int = 0
    gain_db: float = 0.0
    eq_db: float = 0.0
    mixing: float = 0.0
    speeds: tuple[float, ...] = (1.0,)
    clip_norm: float = 0.0
    validation_interval: int = 1000
    checkpoint_minutes: float = 5.0
    valid_samples: int = 3

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, frozen(getattr(self, field.name)))
        _validate(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainConfig:
        """Raises ArgumentError naming an unknown or illegal field."""
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise ArgumentError(f"training config: unknown field {unknown[0]!r}")
        return cls(**values)

    @classmethod
    def read(cls, path: str | Path) -> TrainConfig:
        """Reads a JSON file. Raises LoadError when it is none, ArgumentError naming a bad field."""
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise LoadError(f"{path}: not a readable JSON training config ({error})") from error
        if not isinstance(values, dict):
            raise LoadError(f"{path}: expected a JSON object, got {type(values).__name__}")
        return cls.from_dict(values)

    def replace(self, **values: Any) -> TrainConfig:
        """A copy with other values in some fields."""
        return replace(self, **values)

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain values, ready for JSON."""
        return asdict(self)

    def model(self) -> HifiGanConfig | VocosConfig:
        """The generator's configuration, its mel front end included."""
        if self.generator == "vocos":
            return VocosConfig(
                sample_rate=self.sampling_rate,
                input_channels=self.num_mels,
                dim=self.dim,
                intermediate_dim=self.intermediate_dim,
                num_layers=self.num_layers,
                n_fft=self.n_fft,
                hop_length=self.hop_size,
                padding="same",
                mel_skip=self.mel_skip,
                phase_rounds=self.phase_rounds,
                mel=self.mel(self.fmax),
            )
        return HifiGanConfig(
            sample_rate=self.sampling_rate,
            num_mels=self.num_mels,
            upsample_rates=self.upsample_rates,
            upsample_kernel_sizes=self.upsample_kernel_sizes,
            upsample_initial_channel=self.upsample_initial_channel,
            resblock="1" if self.resblock == "1" else "2",
            resblock_kernel_sizes=self.resblock_kernel_sizes,
            resblock_dilation_sizes=self.resblock_dilation_sizes,
            mel=self.mel(self.fmax),
            mel_rounds=self.mel_rounds,
        )

    def mel(self, f_max: float | None) -> MelConfig:
        """HiFi-GAN's log-mel front end up to `f_max` Hz (None: half the sample rate)."""
        return MelConfig(
            sample_rate=self.sampling_rate,
            n_fft=self.n_fft,
            win_length=self.win_size,
            hop_length=self.hop_size,
            n_mels=self.num_mels,
            f_min=self.fmin,
            f_max=f_max,
        )


def _validate(c: TrainConfig) -> None:
    def require(ok: bool, field: str, expected: str) -> None:
        if not ok:
            raise ArgumentError(f"training config: {field}: got {getattr(c, field)!r}, expected {expected}")

    for field in fields(c):
        if isinstance(field.default, float):
            value = getattr(c, field.name)
            require(isinstance(value, (int, float)) or (value is None and field.name == "fmax"), field.name, "a number")
    for name in ("batch_size", "segment_size", "steps", "validation_interval", "hop_size"):
        value = getattr(c, name)
        require(isinstance(value, int) and value > 0, name, "a positive integer")
    for name in ("learning_rate", "lr_decay", "discriminator_width", "checkpoint_minutes", "stft_floor"):
        require(getattr(c, name) > 0, name, "a positive number")
    for name in (
        "mel_weight",
        "feature_weight",
        "adversarial_weight",
        "stft_weight",
        "waveform_weight",
        "loudness_weight",
        "adversarial_start",
        "phase_weight",
    ):
        require(getattr(c, name) >= 0, name, "zero or a positive number")
    for name in ("anneal_steps", "gain_db", "clip_norm", "valid_samples", "msd_scales", "warmup_steps", "eq_db"):
        require(getattr(c, name) >= 0, name, "zero or a positive number")
    require(0 <= c.ema_decay < 1, "ema_decay", "0 <= ema_decay < 1")
    require(0 <= c.adam_b1 < 1, "adam_b1", "0 <= adam_b1 < 1")
    require(0 <= c.adam_b2 < 1, "adam_b2", "0 <= adam_b2 < 1")
    require(0 <= c.mixing <= 1, "mixing", "a part of the segments, 0 to 1")
    require(c.generator in ("hifigan", "vocos"), "generator", '"hifigan" or "vocos"')
    for name in ("mel_resolutions", "stft_resolutions", "mrd_resolutions"):
        pairs = getattr(c, name)
        ok = all(isinstance(p, tuple) and len(p) == 2 and all(isinstance(n, int) and n > 0 for n in p) for p in pairs)
        require(ok, name, "pairs of positive integers")
    require(c.segment_size % c.hop_size == 0, "segment_size", f"a multiple of hop_size {c.hop_size}")
    require(bool(c.speeds) and all(0.5 <= s <= 2 for s in c.speeds), "speeds", "factors from 0.5 to 2")
    require(c.generator == "hifigan" or not c.mel_rounds, "mel_rounds", "0, since they are hifigan's")
    if c.generator == "vocos":
        fits = c.hop_size < c.n_fft and (c.n_fft - c.hop_size) % 2 == 0
        require(fits, "hop_size", f"less than n_fft, {c.n_fft}, by an even number")
    require(c.model().hop == c.hop_size, "hop_size", f"the product of upsample_rates, {c.model().hop}")
