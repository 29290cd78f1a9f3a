"""The training update and its resumption."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from fastvoc.errors import ArgumentError, LoadError
from fastvoc.models.hifigan import HifiGan
from fastvoc.training import checkpoint
from fastvoc.training.config import TrainConfig
from fastvoc.training.data import Clips, find_clips
from fastvoc.training.trainer import Trainer
from fastvoc.training.weight_norm import folded_state, initialise, load_published, published_state


def fresh(config: TrainConfig, folder: Path) -> Trainer:
    return Trainer(config, Clips(find_clips(folder), config))


def assert_same(a: object, b: object, name: str = "") -> None:
    assert type(a) is type(b), name
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), name
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), name
        for key in a:
            assert_same(a[key], b[key], f"{name}.{key}")
    elif isinstance(a, list):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{name}[{i}]")
    else:
        assert a == b, name


def test_two_steps_and_two_more_after_resuming_equal_four(trainer: Trainer, folder: Path, tmp_path: Path) -> None:
    """Bit for bit, and over an epoch's end (two batches an epoch): weights, averages, optimisers, rates."""
    config = trainer.config
    for _ in range(3):
        trainer.step()
    checkpoint.write(tmp_path, trainer.state())
    trainer.step()

    resumed = fresh(config.replace(seed=config.seed), folder)
    resumed.load(checkpoint.read(checkpoint.newest(tmp_path)))
    assert (resumed.steps, resumed.epoch, resumed.epoch_batches) == (3, 1, 1)
    resumed.step()
    assert_same(vars(trainer.state()), vars(resumed.state()))


def test_updates_lower_the_losses_they_descend(tiny: TrainConfig, folder: Path) -> None:
    """On one repeated batch both sides learn."""
    trainer = fresh(tiny.replace(learning_rate=1e-2, discriminator_learning_rate=1e-3, lr_decay=1.0), folder)
    batch = trainer.clips.batch(0)
    trainer.clips.batch = lambda number: batch
    first = trainer.step()
    assert set(first) == {"d", "mel", "adv", "fm"}
    for _ in range(15):
        last = trainer.step()
    assert last["mel"] < 0.9 * first["mel"]
    assert last["d"] < first["d"]


def test_the_gradient_is_the_weighted_sum_of_the_losses(tiny: TrainConfig, folder: Path) -> None:
    weights = {"mel_weight": 2.0, "stft_weight": 3.0, "feature_weight": 4.0, "adversarial_weight": 5.0}
    weights |= {"waveform_weight": 6.0, "loudness_weight": 7.0}

    def gradient(**values: float) -> torch.Tensor:
        trainer = fresh(tiny.replace(**{**dict.fromkeys(weights, 0.0), **values}), folder)
        trainer.step()
        return trainer.generator.conv_post.parametrizations.weight.original1.grad

    parts = {name: gradient(**{name: 1.0}) for name in weights}
    for name, part in parts.items():
        assert part.abs().sum() > 0, name
    expected = sum(weight * parts[name] for name, weight in weights.items())
    torch.testing.assert_close(gradient(**weights), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def test_the_generator_step_leaves_no_gradient_in_the_discriminators(trainer: Trainer) -> None:
    trainer.step()
    before = [p.grad.clone() for p in trainer.mpd.parameters()]
    real = trainer.clips.batch(0)
    adversarial, features = trainer._judged(real, torch.randn_like(real).requires_grad_())
    (adversarial + features).backward()
    assert all(torch.equal(a, p.grad) for a, p in zip(before, trainer.mpd.parameters(), strict=True))


def test_discriminators_join_at_their_step(tiny: TrainConfig, folder: Path) -> None:
    trainer = fresh(tiny.replace(adversarial_start=1), folder)
    before = trainer.mpd.state_dict()["discriminators.0.convs.0.weight_v"].clone()
    assert set(trainer.step()) == {"mel"}
    assert torch.equal(before, trainer.mpd.state_dict()["discriminators.0.convs.0.weight_v"])
    assert "adv" in trainer.step()
    assert not torch.equal(before, trainer.mpd.state_dict()["discriminators.0.convs.0.weight_v"])


def test_learning_rates_follow_the_epoch_and_the_end(tiny: TrainConfig, folder: Path) -> None:
    config = tiny.replace(learning_rate=1e-3, discriminator_learning_rate=2e-3, steps=6, anneal_steps=2)
    trainer = fresh(config, folder)
    rates = []
    for _ in range(6):
        trainer.step()
        rates.append((trainer.optim_g.param_groups[0]["lr"], trainer.optim_d.param_groups[0]["lr"]))
    factors = [1, 1, 0.5, 0.5, 0.25, 0.25 / 2]
    assert rates == [pytest.approx((1e-3 * f, 2e-3 * f)) for f in factors]


def test_the_average_follows_its_formula(trainer: Trainer) -> None:
    name = "conv_pre.weight_v"
    start = published_state(trainer.generator)[name]
    trainer.step()
    first = published_state(trainer.generator)[name]
    decay = min(0.9, 2 / 11)
    torch.testing.assert_close(trainer.best_generator[name], decay * start + (1 - decay) * first)


def test_training_starts_where_torch_convolutions_start(tiny: TrainConfig) -> None:
    generator = HifiGan(tiny.model())
    initialise(generator)
    for module in (generator.conv_pre, generator.ups[1], generator.resblocks[2].convs1[0]):
        bound = module.weight[0].numel() ** -0.5
        for parameter in (module.weight, module.bias):
            assert 0.5 * bound < parameter.abs().max() <= bound


def test_weight_norm_keeps_the_function_and_the_files_own_g_and_v(tiny: TrainConfig, trainer: Trainer) -> None:
    state = published_state(trainer.generator)
    scaled = {n: t * 3 if n.endswith("weight_v") else t for n, t in state.items()}
    mel = torch.randn(1, 80, 5)
    before = trainer.generator(mel)
    load_published(trainer.generator, scaled)
    assert torch.equal(published_state(trainer.generator)["ups.0.weight_v"], scaled["ups.0.weight_v"])
    torch.testing.assert_close(trainer.generator(mel), before, rtol=1e-4, atol=1e-6)
    plain = HifiGan(tiny.model())
    plain.load_state_dict(folded_state(scaled))
    torch.testing.assert_close(plain(mel), before, rtol=1e-4, atol=1e-6)


def test_a_generator_file_of_another_shape_names_the_tensor(trainer: Trainer) -> None:
    state = published_state(trainer.generator)
    for name, change, problem in (
        ("ups.1.weight_g", None, "missing in the file"),
        ("ups.1.weight_g", torch.ones(3, 1, 1), r"expected \[8, 1, 1\], got \[3, 1, 1\]"),
        ("ups.9.weight", torch.ones(1), "not part of this configuration"),
    ):
        bad = {n: t for n, t in state.items() if n != name} | ({} if change is None else {name: change})
        with pytest.raises(LoadError, match=problem):
            load_published(trainer.generator, bad)


def test_a_loss_that_is_not_finite_stops_before_the_update(trainer: Trainer) -> None:
    before = published_state(trainer.generator)
    trainer.clips.batch = lambda number: torch.full((2, 1, 2048), float("nan"))
    with pytest.raises(ArgumentError, match="not finite at step 0"):
        trainer.step()
    assert_same(before, published_state(trainer.generator))


def test_optimiser_states_are_in_the_published_order(trainer: Trainer) -> None:
    """Entry i of each state belongs to parameter i: the generator's; the multi-scale, then the multi-period ones'."""
    trainer.step()
    state = trainer.state()
    names = [n for n in state.generator if n.endswith(("bias", "weight_g", "weight_v"))]
    layers = list(dict.fromkeys(n.rsplit(".", 1)[0] for n in names))
    published = [f"{layer}.{kind}" for layer in layers for kind in ("bias", "weight_g", "weight_v")]
    assert layers[:2] == ["conv_pre", "ups.0"]
    assert layers[-2:] == ["resblocks.3.convs2.0", "conv_post"]
    moments = state.optim_g["state"]
    assert [list(state.generator[n].shape) for n in published] == [list(moments[i]["exp_avg"].shape) for i in moments]
    order: list[nn.Parameter] = [*trainer.msd.parameters(), *trainer.mpd.parameters()]
    for i, parameter in enumerate(order):
        assert torch.equal(state.optim_d["state"][i]["exp_avg"], trainer.optim_d.state[parameter]["exp_avg"])
