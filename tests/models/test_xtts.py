"""XTTS's generator: a speaker in every stage, in calls, streams and files; GPT-SoVITS's; configurations as objects."""

from __future__ import annotations

import sys
import types
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from checkpoint_files import DATA, SOVITS, XTTS, random_state, write_sovits, write_xtts
from safetensors.torch import load_file
from stream_families import randomised
from torch import Tensor

import fastvoc
from fastvoc.errors import ArgumentError, AssumptionWarning, LoadError
from fastvoc.models.hifigan import HifiGanConfig
from fastvoc.models.nsf_hifigan import NsfHifiGanConfig
from helpers import implementations, relative_l2

IMPLS = implementations("mrf")
each_impl = pytest.mark.parametrize("impl", IMPLS)


def meant(config: HifiGanConfig, state: dict[str, Tensor], x: Tensor, g: Tensor) -> Tensor:
    """What Coqui's generator with a speaker [B, G, 1] in every stage makes of a latent [B, C, T], in float64."""
    weights = {name: tensor.double() for name, tensor in state.items()}

    def conv(name: str, x: Tensor, dilation: int = 1) -> Tensor:
        weight = weights[f"{name}.weight"]
        half = dilation * (weight.shape[2] // 2)
        return F.conv1d(x, weight, weights.get(f"{name}.bias"), padding=half, dilation=dilation)

    x = conv("conv_pre", x.double()) + conv("cond", g.double())
    count = len(config.resblock_kernel_sizes)
    for i, (k, u) in enumerate(zip(config.upsample_kernel_sizes, config.upsample_rates, strict=True)):
        weight, bias = weights[f"ups.{i}.weight"], weights[f"ups.{i}.bias"]
        x = F.conv_transpose1d(F.leaky_relu(x, 0.1), weight, bias, u, (k - u) // 2)
        if config.conds:
            x = x + conv(f"conds.{i}", g.double())
        blocks = []
        for j, dilations in enumerate(config.resblock_dilation_sizes):
            y = x
            for m, dilation in enumerate(dilations):
                h = conv(f"resblocks.{i * count + j}.convs1.{m}", F.leaky_relu(y, 0.1), dilation)
                y = y + conv(f"resblocks.{i * count + j}.convs2.{m}", F.leaky_relu(h, 0.1))
            blocks.append(y)
        x = torch.stack(blocks).mean(0)
    return torch.tanh(conv("conv_post", F.leaky_relu(x)))


def lively(config: HifiGanConfig) -> dict[str, Tensor]:
    """Random weights that keep signals lively."""
    state: dict[str, Tensor] = {name: t.clone() for name, t in randomised(config).model.state_dict().items()}
    return state


@each_impl
def test_what_coquis_package_computed(impl: str) -> None:
    voc = fastvoc.load_vocoder(DATA / "xtts", backend=impl)
    given = load_file(DATA / "xtts" / "io.safetensors")
    wav = voc(given["in.latent"], speaker=given["in.speaker"])
    assert relative_l2(wav[:, None], given["out.wav"]) < 1e-5


@each_impl
def test_a_speaker_in_every_stage(impl: str, tmp_path: Path) -> None:
    state = lively(XTTS)
    voc = fastvoc.load_vocoder(write_xtts(tmp_path, state), backend=impl)
    assert (voc.sample_rate, voc.config) == (24000, XTTS)
    x, g = torch.randn(3, XTTS.num_mels, 13), torch.randn(3, XTTS.gin_channels)
    wanted = meant(XTTS, state, x, g[:, :, None])
    assert relative_l2(voc(x, speaker=g)[:, None], wanted) < 3e-6
    silent = {name: torch.zeros_like(t) if name.startswith("conds.") else t for name, t in state.items()}
    assert relative_l2(meant(XTTS, silent, x, g[:, :, None]), wanted) > 0.05  # so that the stages' parts matter
    ragged = voc(x, lengths=[13, 5, 1], speaker=g, exact=True)
    for i, n in enumerate((13, 5, 1)):
        one = voc(x[i, :, :n], speaker=g[i], exact=True)
        assert (
            torch.equal(ragged[i, : len(one)], one) if impl == "cpp" else relative_l2(ragged[i, : len(one)], one) < 1e-5
        )
        assert not ragged[i, len(one) :].any()


@each_impl
def test_a_stream_is_a_call(impl: str, tmp_path: Path) -> None:
    voc = fastvoc.load_vocoder(write_xtts(tmp_path, lively(XTTS)), backend=impl)
    x, g = torch.randn(XTTS.num_mels, 40), torch.randn(XTTS.gin_channels)
    live = voc.stream(speaker=g)
    cuts = (0, 1, 2, 9, 25, 40)
    pieces = [live.push(x[:, a:b]) for a, b in pairwise(cuts)]
    wav, whole = torch.cat([*pieces, live.flush()], -1), voc(x, speaker=g, exact=True)
    assert torch.equal(wav, whole) if impl == "cpp" else relative_l2(wav, whole) < 1e-5


@pytest.mark.parametrize("prefix", ["xtts.", ""])
def test_every_way_to_say_no_speaker_and_prefixes(prefix: str, tmp_path: Path) -> None:
    voc = fastvoc.load_vocoder(write_xtts(tmp_path, lively(XTTS), prefix=prefix), backend="torch")
    x = torch.randn(XTTS.num_mels, 7)
    silent = {name: torch.zeros_like(t) if "cond" in name else t for name, t in voc.model.state_dict().items()}
    assert relative_l2(voc(x)[None, None], meant(XTTS, silent, x[None], torch.zeros(1, XTTS.gin_channels, 1))) < 3e-6


def test_a_file_alone_assumes_its_rate(tmp_path: Path) -> None:
    path = write_xtts(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.warns(AssumptionWarning, match="sample_rate"):
        assert fastvoc.load(path).sample_rate == 24000
    (tmp_path / "config.json").write_text('{"model": "vits"}')
    with pytest.raises(LoadError, match="model 'vits', expected 'xtts'"):
        fastvoc.load(path)


def test_a_stage_that_is_not_told_is_named(tmp_path: Path) -> None:
    state = random_state(XTTS)
    del state["conds.2.weight"]
    with pytest.raises(LoadError, match=r"conds\.2\.weight"):
        fastvoc.load(write_xtts(tmp_path, state))


def test_wrong_configurations() -> None:
    with pytest.raises(ArgumentError, match=r"gin_channels: got 0, expected a positive integer, since stages"):
        HifiGanConfig(latent=True, conds=True)
    with pytest.raises(ArgumentError, match=r"conds: got 1, expected True or False"):
        HifiGanConfig(latent=True, gin_channels=4, conds=1)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match=r"conds: got True, expected False"):
        NsfHifiGanConfig(latent=True, gin_channels=4, conds=True)


@each_impl
def test_sovits(impl: str, tmp_path: Path) -> None:
    state = {name: t.half().float() for name, t in lively(SOVITS).items()}
    voc = fastvoc.load_vocoder(write_sovits(tmp_path, state), backend=impl)
    assert (voc.sample_rate, voc.config) == (32000, SOVITS)
    x, g = torch.randn(2, SOVITS.num_mels, 9), torch.randn(2, SOVITS.gin_channels)
    assert relative_l2(voc(x, speaker=g)[:, None], meant(SOVITS, state, x, g[:, :, None])) < 3e-6


class _Objects:
    """Classes of other packages, which exist while a file is written alone."""

    def __init__(self, *names: str) -> None:
        self._modules: dict[str, types.ModuleType] = {}
        self._classes: dict[str, type] = {}
        for full in names:
            module, _, name = full.rpartition(".")
            parts = module.split(".")
            for i in range(len(parts)):
                place = ".".join(parts[: i + 1])
                self._modules.setdefault(place, types.ModuleType(place))
            self._classes[full] = type(name, (), {"__module__": module})
            setattr(self._modules[module], name, self._classes[full])

    def made(self, full: str, values: dict[str, Any]) -> Any:
        made = self._classes[full]()
        vars(made).update(values)
        return made

    def save(self, tree: Any, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as here:
            for name, module in self._modules.items():
                here.setitem(sys.modules, name, module)
            torch.save(tree, path)


def test_configurations_that_are_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As published files have them: their attributes are read, their classes are not looked for."""
    path = write_sovits(tmp_path / "sovits")
    tree = torch.load(path, weights_only=True)
    own = _Objects("utils.HParams")
    sections = {name: own.made("utils.HParams", values) for name, values in tree["config"].items()}
    own.save({**tree, "config": own.made("utils.HParams", sections)}, path, monkeypatch)
    assert fastvoc.load(path).config == SOVITS
    path = write_xtts(tmp_path / "xtts")
    tree = torch.load(path, weights_only=True)
    names = "TTS.tts.configs.xtts_config.XttsConfig", "TTS.tts.models.xtts.XttsArgs"
    own = _Objects(*names)
    config = own.made(names[0], {"model_args": own.made(names[1], {"output_sample_rate": 24000})})
    own.save({**tree, "config": config}, path, monkeypatch)
    assert fastvoc.load(path).config == XTTS


def test_other_objects_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_sovits(tmp_path)
    tree = torch.load(path, weights_only=True)
    own = _Objects("utils.Other", "utils.HParams")
    for config in (
        {"a": own.made("utils.Other", {})},
        {"a": own.made("utils.HParams", {"b": own.made("utils.Other", {})})},
    ):
        own.save({**tree, "config": config}, path, monkeypatch)
        with pytest.raises(LoadError, match=r"nothing in it was run.*utils\.Other"):
            fastvoc.load(path)
