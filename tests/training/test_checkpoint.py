"""Training checkpoints: the published layout, completeness, safety."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import fastvoc
from fastvoc.errors import LoadError
from fastvoc.training import checkpoint
from fastvoc.training.trainer import Trainer
from helpers import ROOT, GoldenCase


def test_files_have_the_published_layout(trainer: Trainer, tmp_path: Path) -> None:
    """What the original trainer reads: the keys, weight norm's names, `initial_lr` for its scheduler."""
    trainer.step()
    checkpoint.write(tmp_path, trainer.state())
    g = torch.load(tmp_path / "g_00000001", weights_only=True)
    do = torch.load(tmp_path / "do_00000001", weights_only=True)
    assert set(g) == {"generator"}
    assert {"mpd", "msd", "optim_g", "optim_d", "steps", "epoch"} <= set(do)
    assert (do["steps"], do["epoch"]) == (1, 0)
    assert {"conv_pre.bias", "conv_pre.weight_g", "conv_pre.weight_v"} <= set(g["generator"])
    assert {"discriminators.0.convs.0.weight_orig", "discriminators.1.convs.0.weight_g"} <= set(do["msd"])
    for name in ("optim_g", "optim_d"):
        optimiser = torch.optim.AdamW([torch.zeros(1)])
        optimiser.param_groups[0].update({k: v for k, v in do[name]["param_groups"][0].items() if k != "params"})
        torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.999, last_epoch=do["epoch"])


def test_files_of_the_original_trainer_resume(trainer: Trainer, tmp_path: Path) -> None:
    """They hold neither our place in the epoch nor an average, which then starts at the generator."""
    for _ in range(2):
        trainer.step()
    state = trainer.state()
    torch.save({"generator": state.generator}, tmp_path / "g_00000002")
    published = ("mpd", "msd", "optim_g", "optim_d", "steps", "epoch")
    torch.save({name: getattr(state, name) for name in published}, tmp_path / "do_00000002")
    newest = checkpoint.newest(tmp_path)
    assert newest is not None
    trainer.load(checkpoint.read(newest))
    assert (trainer.steps, trainer.epoch, trainer.epoch_batches) == (2, 1, 0)
    assert all(torch.equal(t, state.generator[n]) for n, t in trainer.best_generator.items())
    trainer.step()


def test_the_published_discriminators_load_into_a_full_trainer(golden: Callable[[str], GoldenCase]) -> None:
    """Layer by layer in the golden files' own order, which is the order of the optimiser's entries."""
    from fastvoc.training.discriminators import MultiPeriodDiscriminator, MultiScaleDiscriminator

    for kind, judge in (("mpd", MultiPeriodDiscriminator), ("msd", MultiScaleDiscriminator)):
        state = torch.load(golden(f"hifigan_{kind}").dir / "do_00000000", map_location="cpu", weights_only=True)[kind]
        ours = judge().state_dict()
        assert {n: t.shape for n, t in ours.items()} == {n: t.shape for n, t in state.items()}


def test_the_generator_and_its_average_load_as_models(trainer: Trainer, tmp_path: Path) -> None:
    trainer.step()
    checkpoint.write(tmp_path, trainer.state())
    from fastvoc.training.loop import open_run

    open_run(tmp_path, trainer.config, trainer, resume=True)
    mel = torch.randn(80, 12).clamp(-4, 2)
    trainer.generator.eval()
    for name, expected in (("g_00000001", trainer.generator(mel[None])[0, 0].detach()), ("ema_00000001", None)):
        voc = fastvoc.load(tmp_path / name)
        assert voc.config == trainer.config.model()
        wav = voc(mel)
        if expected is not None:
            torch.testing.assert_close(wav, expected, rtol=1e-4, atol=1e-6)


def test_the_newest_complete_set_counts_and_old_ones_go(trainer: Trainer, tmp_path: Path) -> None:
    state = trainer.state()
    for steps in (1, 2, 10, 30):
        state.steps = steps
        checkpoint.write(tmp_path, state)
    (tmp_path / "g_00000030").unlink()
    assert checkpoint.newest(tmp_path) == tmp_path / "do_00000010"
    checkpoint.prune(tmp_path, 2)
    assert {p.name for p in tmp_path.glob("*_*")} >= {"g_00000010", "do_00000010", "ema_00000010"}
    assert not list(tmp_path.glob("*_0000000[12]"))
    assert checkpoint.newest(tmp_path / "clips") is None


def test_a_writer_that_is_killed_leaves_the_old_file(trainer: Trainer, tmp_path: Path) -> None:
    """The process dies inside torch.save, after part of the new content is on disk."""
    checkpoint.write(tmp_path, trainer.state())
    before = {p.name: p.read_bytes() for p in tmp_path.glob("*_00000000")}
    program = """
        import os, signal, sys
        from pathlib import Path
        import torch
        from fastvoc.training import checkpoint

        def save(content, target):
            Path(target).write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)

        folder = Path(sys.argv[1])
        state = checkpoint.read(checkpoint.newest(folder))
        torch.save = save
        checkpoint.write(folder, state)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)]
    result = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert result.returncode == -signal.SIGKILL
    assert any(p.read_bytes() == b"half" for p in tmp_path.iterdir() if p.is_file())
    assert {p.name: p.read_bytes() for p in tmp_path.glob("*_00000000")} == before
    assert checkpoint.read(tmp_path / "do_00000000").steps == 0


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch executed",)


@pytest.mark.parametrize("broken", ["code", "cut", "foreign", "key"])
def test_bad_files_are_refused_by_name(
    broken: str, trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint.write(tmp_path, trainer.state())
    path = tmp_path / "do_00000000"
    if broken == "code":
        torch.save({"steps": Evil()}, path)
    elif broken == "cut":
        path.write_bytes(path.read_bytes()[:-1000])
    elif broken == "foreign":
        path.write_bytes(b"RIFF0000WAVE")
    else:
        torch.save({"mpd": {}}, path)
    with pytest.raises(LoadError, match=r"do_00000000: .*('msd'|not a readable)"):
        checkpoint.read(path)
    assert not (tmp_path / "executed").exists()


def test_a_checkpoint_of_another_configuration_is_refused(trainer: Trainer, tmp_path: Path) -> None:
    checkpoint.write(tmp_path, trainer.state())
    other = Trainer(trainer.config.replace(mpd_periods=(2, 5, 7)), trainer.clips)
    with pytest.raises(LoadError, match="does not fit this configuration"):
        other.load(checkpoint.read(tmp_path / "do_00000000"))
