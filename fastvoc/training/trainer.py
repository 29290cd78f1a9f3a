"""The training update: a generator against distances to the real sound and against discriminators."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, parametrize

from fastvoc.errors import ArgumentError, LoadError
from fastvoc.sound.mel import MelSpectrogram
from fastvoc.training import checkpoint
from fastvoc.training.config import TrainConfig
from fastvoc.training.data import Clips
from fastvoc.training.discriminators import MultiPeriodDiscriminator, MultiScaleDiscriminator
from fastvoc.training.generators import generator
from fastvoc.training.losses import discriminator_loss, feature_loss, generator_loss
from fastvoc.training.objective import distances
from fastvoc.training.resolutions import MultiResolutionDiscriminator
from fastvoc.training.weight_norm import load_published, published_state

Losses = dict[str, float]


class Trainer:
    """A generator, its discriminators, both optimisers and where they stand.

    `steps` counts generator updates. Everything random is a function of the seed and the batch's number, so a resumed
    run makes the updates that an uninterrupted one would have made.
    """

    def __init__(self, config: TrainConfig, clips: Clips) -> None:
        torch.manual_seed(config.seed)
        self.config, self.clips = config, clips
        self.generator = generator(config.model())
        self.mpd = MultiPeriodDiscriminator(config.discriminator_width, config.mpd_periods)
        self.msd = MultiScaleDiscriminator(config.discriminator_width, config.msd_scales)
        self.mrd = MultiResolutionDiscriminator(config.discriminator_width, config.mrd_resolutions)
        self.optim_g = self._adamw(self.generator.parameters())
        judges = (self.msd, self.mpd, self.mrd)
        self.optim_d = self._adamw(itertools.chain.from_iterable(judge.parameters() for judge in judges))
        self.ema = published_state(self.generator) if config.ema_decay else None
        self.steps = self.epoch = self.epoch_batches = 0
        self.mel = MelSpectrogram(config.mel(config.fmax))
        self._distances = distances(config)

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
            total = generated.new_zeros(())
            for name, weight, function in self._distances:
                distance = function(real[:, 0], generated[:, 0])
                losses[name] = distance.item()
                total = total + weight * distance
            if adversarial:
                adv, features = self._judged(real, generated)
                losses["adv"], losses["fm"] = adv.item(), features.item()
                total = total + c.adversarial_weight * adv + c.feature_weight * features
            if not math.isfinite(total.item()):
                raise ArgumentError(f"the loss is not finite at step {self.steps}: {losses}")
            self.optim_g.zero_grad(set_to_none=True)
            total.backward()
        norm = clip_grad_norm_(self.generator.parameters(), c.clip_norm or math.inf).item()
        if not math.isfinite(norm):
            raise ArgumentError(f"the gradient is not finite at step {self.steps}: {losses}")
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
        for judge in self._judges():
            with torch.no_grad():
                of_real = judge(real)
            with _frozen(judge):
                of_generated = judge(generated)
            adversarial = adversarial + generator_loss(of_generated)
            features = features + feature_loss(of_real, of_generated)
        return adversarial, features

    def _judges(self) -> list[nn.Module]:
        return [d for d in (self.mpd, self.msd, self.mrd) if len(d.discriminators)]

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
        if c.warmup_steps:
            factor *= min(1.0, (self.steps + 1) / c.warmup_steps)
        if c.anneal_steps:
            factor *= min(1.0, max(0.0, (c.steps - self.steps) / c.anneal_steps))
        rates = (c.learning_rate, c.discriminator_learning_rate or c.learning_rate)
        for optimiser, rate in zip((self.optim_g, self.optim_d), rates, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate * factor

    def _adamw(self, parameters: Iterator[nn.Parameter]) -> torch.optim.AdamW:
        c = self.config
        optimiser = torch.optim.AdamW([{"params": [*parameters]}], c.learning_rate, betas=(c.adam_b1, c.adam_b2))
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
            self.mrd.state_dict(),
            self.ema,
        )

    def load(self, state: checkpoint.TrainState) -> None:
        """Goes on from a checkpoint. Raises LoadError when it belongs to another configuration."""
        load_published(self.generator, state.generator)
        try:
            self.mpd.load_state_dict(state.mpd)
            self.msd.load_state_dict(state.msd)
            self.mrd.load_state_dict(state.mrd)
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
