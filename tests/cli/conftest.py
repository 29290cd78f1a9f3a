"""A tiny random model on disk, and the command line run in this process."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from command_line import Result, Run

from fastvoc.cli import main
from fastvoc.loading import load, save
from fastvoc.models.hifigan import HifiGan, HifiGanConfig
from fastvoc.sound.mel import HIFIGAN_22K
from fastvoc.vocoder import Vocoder


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("TERM", "dumb")

    def run_main(*arguments: object) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Result(int(left.value.code or 0), captured.out, captured.err)

    return run_main


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random HiFi-GAN of a few hundred weights, hop 256."""
    torch.manual_seed(3)
    config = HifiGanConfig(
        upsample_rates=(16, 16),
        upsample_kernel_sizes=(32, 32),
        upsample_initial_channel=8,
        resblock_kernel_sizes=(3,),
        resblock_dilation_sizes=((1,),),
        mel=HIFIGAN_22K,
    )
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save(Vocoder(HifiGan(config), config, config.mel), path)
    return path


@pytest.fixture(scope="session")
def voc(model: Path) -> Vocoder:
    return load(model)
