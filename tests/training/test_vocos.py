"""Training Vocos: where it starts, that it learns, resumes and loads, and the parts that only it uses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fastvoc
from fastvoc.cli.train import train
from fastvoc.errors import ArgumentError, LoadError, ShapeError
from fastvoc.models.vocos import Vocos
from fastvoc.sound.mel import MelSpectrogram
from fastvoc.training import checkpoint
from fastvoc.training.config import TrainConfig
from fastvoc.training.data import Clips, equalised, find_clips
from fastvoc.training.generators import generator
from fastvoc.training.objective import Distance
from fastvoc.training.resolutions import MultiResolutionDiscriminator
from fastvoc.training.trainer import Trainer

TINY: dict[str, Any] = {
    "generator": "vocos",
    "batch_size": 2,
    "segment_size": 4096,
    "dim": 16,
    "intermediate_dim": 24,
    "num_layers": 2,
    "phase_rounds": 1,
    "mpd_periods": [2],
    "msd_scales": 0,
    "mrd_resolutions": [[256, 64]],
    "discriminator_width": 1 / 16,
    "ema_decay": 0.9,
    "phase_weight": 1.0,
    "mel_resolutions": [[512, 40]],
    "warmup_steps": 4,
    "eq_db": 6.0,
    "mixing": 0.5,
}


def fresh(folder: Path, **values: Any) -> Trainer:
    config = TrainConfig.from_dict({**TINY, **values})
    return Trainer(config, Clips(find_clips(folder), config))


def test_it_starts_at_the_envelope_of_its_mel() -> None:
    """Untrained it makes a sound of nearly the same mel, where plain random weights are far off."""
    config = TrainConfig.from_dict({**TINY, "dim": 32, "phase_rounds": 0}).model()
    wav, mel = 0.1 * torch.randn(1, 22050), MelSpectrogram(config.mel)

    def distance(model: torch.nn.Module) -> float:
        with torch.no_grad():
            copy = model(mel(wav))[:, 0]
        assert copy.shape == (1, 22050 // 256 * 256)
        return float((mel(copy) - mel(wav[:, : copy.shape[1]])).abs().mean())

    assert distance(generator(config)) < 0.6
    assert distance(Vocos(config)) > 1.5


def test_resuming_makes_the_same_updates(folder: Path, tmp_path: Path) -> None:
    trainer = fresh(folder)
    for _ in range(2):
        trainer.step()
    checkpoint.write(tmp_path, trainer.state())
    trainer.step()
    newest = checkpoint.newest(tmp_path)
    assert newest is not None
    resumed = fresh(folder)
    resumed.load(checkpoint.read(newest))
    resumed.step()
    for name in ("generator", "ema", "mpd", "mrd"):
        ours, theirs = getattr(trainer.state(), name), getattr(resumed.state(), name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours), name


def test_updates_lower_the_losses(folder: Path) -> None:
    trainer = fresh(folder, learning_rate=2e-3, warmup_steps=0, adversarial_weight=0.0, feature_weight=0.0)
    batch = trainer.clips.batch(0)
    trainer.clips.batch = lambda number: batch  # type: ignore[method-assign]
    first = trainer.step()
    assert set(first) == {"d", "mel", "phase", "adv", "fm"}
    for _ in range(25):
        last = trainer.step()
    assert last["mel"] < 0.9 * first["mel"]
    assert last["d"] < first["d"]


def test_near_silence_gives_finite_gradients() -> None:
    """Down to magnitudes whose squares are zero in float32."""
    model = generator(TrainConfig.from_dict({**TINY, "dim": 32}).model())
    for lower in (0.0, 25.0, 45.0):
        with torch.no_grad():
            model.head.out.bias[:513] -= lower
        model.zero_grad()
        model(torch.full((1, 80, 12), -11.5)).sum().backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters()), lower


def test_a_gradient_that_is_not_finite_changes_nothing(folder: Path) -> None:
    trainer = fresh(folder, adversarial_start=99)
    trainer._distances.append(Distance("bad", 1.0, lambda real, generated: (generated * 0).sqrt().sum()))
    before = {name: tensor.clone() for name, tensor in trainer.generator.state_dict().items()}
    with pytest.raises(ArgumentError, match="gradient is not finite at step 0"):
        trainer.step()
    assert all(torch.equal(before[name], tensor) for name, tensor in trainer.generator.state_dict().items())


def test_the_rate_warms_up(folder: Path) -> None:
    trainer, rates = fresh(folder, learning_rate=1e-3, adversarial_start=99), []
    for _ in range(5):
        trainer.step()
        rates.append(trainer.optim_g.param_groups[0]["lr"])
    assert rates == pytest.approx([2.5e-4, 5e-4, 7.5e-4, 1e-3, 1e-3 * 0.999**2], rel=2e-3)


def test_without_discriminators_it_trains_on_distances_alone(folder: Path) -> None:
    trainer = fresh(folder, mpd_periods=[], mrd_resolutions=[])
    assert set(trainer.step()) == {"mel", "phase"}


def test_a_run_from_the_command_line_loads_and_speaks(folder: Path, tmp_path: Path) -> None:
    path, out = tmp_path / "tiny.json", tmp_path / "run"
    path.write_text(json.dumps({**TINY, "steps": 2}))
    train(path, data=folder, out=out, threads=1)
    for name in ("g_00000002", "ema_00000002"):
        voc = fastvoc.load(out / name)
        assert voc.config == TrainConfig.read(path).model()
        assert voc(torch.randn(80, 9).clamp(-4, 2)).shape == (9 * 256,)
    (out / "config.json").write_text(json.dumps({**TINY, "generator": "hifigan"}))
    with pytest.raises(LoadError, match=r"config\.json: field 'generator': expected vocos"):
        fastvoc.load(out / "g_00000002")


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"generator": "vocoder"}, 'generator: got \'vocoder\', expected "hifigan" or "vocos"'),
        ({"mixing": 2}, "mixing: got 2"),
        ({"mrd_resolutions": [[256]]}, "mrd_resolutions"),
        ({"mel_resolutions": [[256, -1]]}, "mel_resolutions"),
        ({"dim": 0}, "dim"),
    ],
)
def test_bad_fields_are_named(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(ArgumentError, match=problem):
        TrainConfig.from_dict({**TINY, **values})


def test_the_resolutions_judge_magnitudes() -> None:
    judge = MultiResolutionDiscriminator(1.0, ((256, 64), (512, 128)))
    wav = 0.1 * torch.randn(2, 1, 4096)
    judged, turned = judge(wav), judge(-wav)
    assert [len(maps) for _, maps in judged] == [6, 6]
    assert judged[0][1][0].shape == (2, 32, 65, 129)
    for (score, _), (other, _) in zip(judged, turned, strict=True):
        torch.testing.assert_close(score, other)
    with pytest.raises(ShapeError, match=r"wav: expected \[B, 1, L\]"):
        judge(wav[:, 0])


def test_an_equaliser_stays_in_its_range_and_moves_nothing() -> None:
    click = torch.zeros(4096)
    click[2048] = 1.0
    for seed in range(5):
        made = equalised(click, np.random.default_rng(seed), 6.0)
        gains = 20 * torch.fft.rfft(made).abs().log10()
        assert -6.2 < gains.min() < gains.max() < 6.2
        assert gains.max() - gains.min() > 1
        assert made.abs().argmax() == 2048
        torch.testing.assert_close(made[1:], made[1:].flip(0), atol=1e-5, rtol=0)
    torch.testing.assert_close(equalised(click, np.random.default_rng(0), 1e-9), click, atol=1e-6, rtol=0)


def test_mixing_adds_another_clip(tmp_path: Path) -> None:
    t = np.arange(22050) / 22050
    for i, hertz in enumerate((500, 2000)):
        np.save(tmp_path / f"{i}.npy", np.sin(2 * np.pi * hertz * t).astype(np.float32))
    plain = TrainConfig.from_dict({**TINY, "eq_db": 0.0, "mixing": 0.0, "segment_size": 8192})
    for mixing in (0.0, 1.0):
        clips = Clips(find_clips(tmp_path), plain.replace(mixing=mixing))
        spectra = torch.fft.rfft(torch.cat([clips.batch(i)[:, 0] for i in range(12)])).abs()
        lines = torch.stack([spectra[:, round(hertz * 8192 / 22050)] for hertz in (500, 2000)], 1)
        both = (lines.min(1).values > 0.1 * lines.max(1).values).float().mean()
        assert both == 0 if mixing == 0 else both > 0.2
