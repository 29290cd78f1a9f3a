"""The BigVGAN generator: golden cases, accuracy, ragged batches, configurations."""

from __future__ import annotations

import copy
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch

import fastvoc
from fastvoc.checkpoints import detect_and_load
from fastvoc.errors import ArgumentError, BackendError, DtypeError, ShapeError
from fastvoc.models.bigvgan import BIGVGAN_BASE_24K_100, BIGVGAN_V2_24K_100, BigVgan, BigVganConfig
from fastvoc.sound.mel import BIGVGAN_24K_100
from helpers import assert_golden, golden, implementations, relative_l2

IMPLS = implementations("snake_aa")
CASES = ("bigvgan_base_small", "bigvgan_v2_small")
SMALL = replace(BIGVGAN_V2_24K_100, upsample_initial_channel=64, mel=None)
UNUSUAL = {
    "v2": SMALL,
    "base": replace(BIGVGAN_BASE_24K_100, upsample_initial_channel=48, mel=None),
    "block-2": replace(
        SMALL,
        upsample_rates=(4, 2),
        upsample_kernel_sizes=(8, 4),
        upsample_initial_channel=40,
        resblock="2",
        resblock_kernel_sizes=(3, 5),
        resblock_dilation_sizes=((1, 2, 4), (6,)),
    ),
    "snake": replace(
        SMALL,
        upsample_rates=(4,),
        upsample_kernel_sizes=(8,),
        upsample_initial_channel=12,
        activation="snake",
        snake_logscale=False,
        use_tanh_at_final=True,
    ),
    "snake-log": replace(
        SMALL,
        num_mels=80,
        upsample_rates=(5, 3),
        upsample_kernel_sizes=(11, 4),
        upsample_initial_channel=20,
        activation="snake",
        use_bias_at_final=True,
    ),
}


def lively(config: BigVganConfig) -> BigVgan:
    """Random weights under which every layer's signal keeps about the same size."""
    model = BigVgan(config)
    for name, parameter in model.named_parameters():
        if name.endswith(("bias", "alpha", "beta")):
            torch.nn.init.normal_(parameter, 0.0, 0.3)
            if name.endswith(("alpha", "beta")) and not config.snake_logscale:
                parameter.data.exp_()
            continue
        fan = parameter.shape[0 if name.startswith("ups") else 1] * parameter.shape[2]
        stride = config.upsample_rates[int(name.split(".")[1])] if name.startswith("ups") else 1
        torch.nn.init.normal_(parameter, 0.0, (0.3 if "resblocks" in name else 1.0) * (stride / fan) ** 0.5)
    return model.eval().requires_grad_(False)


def _load(folder: Path) -> BigVgan:
    checkpoint = detect_and_load(folder)
    model = BigVgan(checkpoint.config)
    model.load_state_dict(checkpoint.state)
    return model.eval().requires_grad_(False)


@pytest.mark.golden
@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("name", CASES)
def test_golden_every_tensor(name: str, impl: str, nan_poison: None) -> None:
    case = golden(name)
    model = _load(case.dir)
    seen: dict[str, torch.Tensor] = {}

    def keep(part: str) -> Any:
        return lambda module, inputs, output: seen.setdefault(part, output)

    model.conv_pre.register_forward_hook(keep("conv_pre"))
    model.ups[0].register_forward_hook(keep("ups0"))
    model.resblocks[0].activations[0].register_forward_hook(keep("act0"))
    last = model.resblocks[0].convs2 if model.config.resblock == "1" else model.resblocks[0].convs
    last[-1].register_forward_hook(keep("resblock0"))
    model.activation_post.register_forward_hook(keep("activation_post"))
    model.conv_post.register_forward_hook(keep("conv_post"))
    wav = model(case.inputs["mel"], backend=impl)
    assert_golden(wav, case, "wav")
    for part in set(seen) - {"conv_post"}:
        assert_golden(seen[part], case, f"mid.{part}")
    last = seen["conv_post"].atanh() if model.config.use_tanh_at_final else seen["conv_post"]
    assert_golden(last, case, "mid.conv_post")
    assert set(seen) | {"act0_upsampled"} == set(case.middle)


@pytest.mark.golden
@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("name", CASES)
def test_golden_through_load(name: str, impl: str, tmp_path: Path) -> None:
    case = golden(name)
    voc = fastvoc.load(case.dir, backend=impl)
    wav = voc(case.inputs["mel"], check=False)
    assert_golden(wav[:, None], case, "wav")
    assert voc.mel_config is not None
    assert replace(voc.mel_config, f_max=None) == BIGVGAN_24K_100
    fastvoc.save(voc, tmp_path / "own.safetensors")
    again = fastvoc.load(tmp_path / "own.safetensors", backend=impl)
    assert again.config == voc.config
    assert torch.equal(again(case.inputs["mel"], check=False), wav)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("name", UNUSUAL)
def test_any_legal_configuration(name: str, impl: str, nan_poison: None) -> None:
    config = UNUSUAL[name]
    model = lively(config)
    exact = copy.deepcopy(model).double()
    for frames in (1, 2, 7, 33):
        mel = torch.randn(2, config.num_mels, frames)
        wav = model(mel, backend=impl)
        assert wav.shape == (2, 1, config.samples(frames))
        assert relative_l2(wav, exact(mel.double(), backend="torch")) <= 1e-5
        assert wav.abs().max() <= 1.0
    assert BigVganConfig.from_dict(config.to_dict()) == config
    expected = [(key, tuple(tensor.shape)) for key, tensor in model.state_dict().items()]
    assert list(config.tensors()) == expected


def test_published_sizes() -> None:
    sizes = [sum(prod(shape) for _, shape in c.tensors()) for c in (BIGVGAN_V2_24K_100, BIGVGAN_BASE_24K_100)]
    assert sizes == [112_414_512, 14_015_041]
    assert BIGVGAN_V2_24K_100.hop == BIGVGAN_BASE_24K_100.hop == 256


@pytest.mark.native
def test_no_layer_falls_to_the_reference() -> None:
    model = lively(SMALL)
    rows = list(fastvoc.explain(model))
    assert {row.chosen for row in rows} == {"cpp"}
    names = [row.layer for row in rows]
    assert names[:4] == ["conv_pre", "ups.0", "resblocks.0.activations.0", "resblocks.0.convs1.0"]
    assert len(names) == len(set(names)) == 3 + 6 + 6 * 3 * 12
    with pytest.raises(BackendError, match=r"computes in torch\.float32"):
        lively(SMALL).to(torch.float16)(torch.randn(1, 100, 4, dtype=torch.float16), backend="cpp")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("upsample_rates", ()),
        ("upsample_rates", (4, 0)),
        ("upsample_kernel_sizes", (8, 8)),
        ("upsample_kernel_sizes", (8, 8, 4, 4, 4, 1)),
        ("upsample_initial_channel", 32),
        ("resblock", "3"),
        ("resblock_kernel_sizes", (3, 4, 11)),
        ("resblock_dilation_sizes", ((1, 3, 5),)),
        ("activation", "relu"),
        ("snake_logscale", 1),
        ("use_tanh_at_final", "yes"),
        ("use_bias_at_final", None),
        ("num_mels", 0),
        ("sample_rate", -1),
    ],
)
def test_bad_configurations_name_the_field(field: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=rf"BigVganConfig\.{field}: got "):
        BigVganConfig(**{field: value})


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ArgumentError, match="'upsample_rate'"):
        BigVganConfig.from_dict({"upsample_rate": [8]})
    with pytest.raises(ArgumentError, match=r"BigVganConfig\.num_mels: got 80"):
        BigVganConfig(num_mels=80, mel=BIGVGAN_24K_100)
    model = lively(UNUSUAL["block-2"])
    for mel in (torch.randn(100, 5), torch.randn(1, 80, 5), torch.randn(1, 5, 100), torch.randn(1, 100, 0)):
        with pytest.raises(ShapeError, match=r"mel: expected \[B, 100, T > 0\]"):
            model(mel)
    with pytest.raises(DtypeError, match="float32"):
        model(torch.randn(1, 100, 5).double())
