"""The training loop of HiFi-GAN."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, parametrize

from fastvoc.errors import ArgumentError, LoadError
from fastvoc.models.hifigan import HifiGan
from fastvoc.sound.mel import MelSpectrogram
from fastvoc.training import checkpoint
from fastvoc.training.config import TrainConfig
from fastvoc.training.data import Clips
from fastvoc.training.discriminators import MultiPeriodDiscriminator, MultiScaleDiscriminator
from fastvoc.training.losses import (
    LoudnessLoss,
    StftLoss,
    discriminator_loss,
    feature_loss,
    generator_loss,
    mel_loss,
    waveform_loss,
)
from fastvoc.training.weight_norm import apply_weight_norm, initialise, load_published, published_state

Losses = dict[str, float]


class Trainer:
    """A generator, its discriminators, both optimisers and where they stand.

    `steps` counts generator updates. Everything random is a function of the seed and the batch's number, so a resumed
    run makes the updates that an uninterrupted one would have made.
    """

    def __init__(self, config: TrainConfig, clips: Clips) -> None:
        torch.manual_seed(config.seed)
        self.config, self.clips = config, clips
        self.generator = HifiGan(config.model())
        initialise(self.generator)
        apply_weight_norm(self.generator)
        self.mpd = MultiPeriodDiscriminator(config.discriminator_width, config.mpd_periods)
        self.msd = MultiScaleDiscriminator(config.discriminator_width, config.msd_scales)
        self.optim_g = self._adamw(self.generator.parameters())
        self.optim_d = self._adamw(itertools.chain(self.msd.parameters(), self.mpd.parameters()))
        self.ema = published_state(self.generator) if config.ema_decay else None
        self.steps = self.epoch = self.epoch_batches = 0
        self.mel = MelSpectrogram(config.mel(config.fmax))
        self._mel_loss = MelSpectrogram(config.mel(config.fmax_for_loss))
        self._stft_loss = StftLoss(config.stft_resolutions, config.stft_floor)
        self._loudness_loss = LoudnessLoss(config.sampling_rate)

    @property
    def adversarial(self) -> bool:
        """Whether the discriminators take part in the next update."""
        return self.steps >= self.config.adversarial_start and len(self._judges()) > 0

    def step(self) -> Losses:
        """One update of the discriminators, if they take part, and one of the generator. Returns the losses' values."""
        c = self.config
        real = self.clips.batch(self.epoch * len(self.clips) + self.epoch_batches)
        mel = self.mel(real[:, 0])
        adversarial = self.adversarial
        self._set_learning_rates()
        with parametrize.cached():
            generated = self.generator(mel)[..., : real.shape[2]]
            losses: Losses = {}
            if adversarial:
                losses["d"] = self._discriminator_step(real, generated.detach())
            distance = mel_loss(self._mel_loss, real[:, 0], generated[:, 0])
            losses["mel"] = distance.item()
            total = c.mel_weight * distance
            if c.stft_weight:
                stft = self._stft_loss(real[:, 0], generated[:, 0])
                losses["stft"] = stft.item()
                total = total + c.stft_weight * stft
            if c.loudness_weight:
                loudness = self._loudness_loss(real[:, 0], generated[:, 0])
                losses["loud"] = loudness.item()
                total = total + c.loudness_weight * loudness
            if c.waveform_weight:
                waveform = waveform_loss(real, generated)
                losses["wave"] = waveform.item()
                total = total + c.waveform_weight * waveform
            if adversarial:
                adv, features = self._judged(real, generated)
                losses["adv"], losses["fm"] = adv.item(), features.item()
                total = total + c.adversarial_weight * adv + c.feature_weight * features
            if not math.isfinite(total.item()):
                raise ArgumentError(f"the loss is not finite at step {self.steps}: {losses}")
            self.optim_g.zero_grad(set_to_none=True)
            total.backward()
        if c.clip_norm:
            clip_grad_norm_(self.generator.parameters(), c.clip_norm)
        self.optim_g.step()
        self._advance()
        return losses

    def _discriminator_step(self, real: Tensor, generated: Tensor) -> float:
        loss = sum((discriminator_loss(d(real), d(generated)) for d in self._judges()), real.new_zeros(()))
        self.optim_d.zero_grad(set_to_none=True)
        loss.backward()
        self.optim_d.step()
        return loss.item()

    def _judged(self, real: Tensor, generated: Tensor) -> tuple[Tensor, Tensor]:
        adversarial, features = real.new_zeros(()), real.new_zeros(())
        with _frozen(self.mpd), _frozen(self.msd):
            for judge in self._judges():
                with torch.no_grad():
                    of_real = judge(real)
                of_generated = judge(generated)
                adversarial = adversarial + generator_loss(of_generated)
                features = features + feature_loss(of_real, of_generated)
        return adversarial, features

    def _judges(self) -> list[nn.Module]:
        return [d for d in (self.mpd, self.msd) if len(d.discriminators)]

    def _advance(self) -> None:
        self.steps += 1
        self.epoch_batches += 1
        if self.epoch_batches >= len(self.clips):
            self.epoch, self.epoch_batches = self.epoch + 1, 0
        if self.ema is not None:
            # Early on the average is over the updates so far, not over the random start.
            decay = min(self.config.ema_decay, (1 + self.steps) / (10 + self.steps))
            for name, tensor in published_state(self.generator).items():
                self.ema[name].lerp_(tensor, 1 - decay)

    def _set_learning_rates(self) -> None:
        # A function of epoch and step, not of the optimiser's own history: the same after any number of resumptions.
        c = self.config
        factor = c.lr_decay**self.epoch
        if c.anneal_steps:
            factor *= min(1.0, max(0.0, (c.steps - self.steps) / c.anneal_steps))
        rates = (c.learning_rate, c.discriminator_learning_rate or c.learning_rate)
        for optimiser, rate in zip((self.optim_g, self.optim_d), rates, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate * factor

    def _adamw(self, parameters: Iterator[nn.Parameter]) -> torch.optim.AdamW:
        c = self.config
        optimiser = torch.optim.AdamW(parameters, c.learning_rate, betas=(c.adam_b1, c.adam_b2))
        for group in optimiser.param_groups:
            group["initial_lr"] = c.learning_rate  # the original trainer's scheduler wants it when it resumes
        return optimiser

    @property
    def best_generator(self) -> dict[str, Tensor]:
        """The averaged generator where one is kept, else the generator as it is; published names."""
        return published_state(self.generator) if self.ema is None else self.ema

    def state(self) -> checkpoint.TrainState:
        """The run as a checkpoint."""
        return checkpoint.TrainState(
            published_state(self.generator),
            self.mpd.state_dict(),
            self.msd.state_dict(),
            self.optim_g.state_dict(),
            self.optim_d.state_dict(),
            self.steps,
            self.epoch,
            self.epoch_batches,
            self.ema,
        )

    def load(self, state: checkpoint.TrainState) -> None:
        """Goes on from a checkpoint. Raises LoadError when it belongs to another configuration."""
        load_published(self.generator, state.generator)
        try:
            self.mpd.load_state_dict(state.mpd)
            self.msd.load_state_dict(state.msd)
            self.optim_g.load_state_dict(state.optim_g)
            self.optim_d.load_state_dict(state.optim_d)
        except (RuntimeError, ValueError, KeyError) as error:
            raise LoadError(f"training checkpoint: does not fit this configuration: {error}") from error
        self.steps, self.epoch, self.epoch_batches = state.steps, state.epoch, state.epoch_batches
        if self.config.ema_decay:
            self.ema = published_state(self.generator) if state.ema is None else state.ema


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Keeps gradients from being collected for the module's parameters."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)
