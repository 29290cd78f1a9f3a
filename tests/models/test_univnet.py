"""The UnivNet generator: golden case, accuracy, noise, ragged batches, configurations."""

from __future__ import annotations

import copy
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import fastvoc
from fastvoc.errors import ArgumentError, DeviceError, DtypeError, ShapeError
from fastvoc.models.univnet import UNIVNET_24K_100, UnivNet, UnivNetConfig
from fastvoc.ops.noise import normal_noise
from fastvoc.sound.mel import BIGVGAN_24K_100
from fastvoc.vocoder import Vocoder
from helpers import assert_golden, golden, implementations, relative_l2

IMPLS = implementations("lvc")
SMALL = UnivNetConfig(model_in_channels=12, kernel_predictor_hidden_channels=12, model_hidden_channels=8)
UNUSUAL = {
    "small": SMALL,
    "odd": UnivNetConfig(
        num_mels=20,
        model_in_channels=7,
        kernel_predictor_hidden_channels=7,
        model_hidden_channels=5,
        resblock_kernel_sizes=(5, 3),
        resblock_stride_sizes=(3, 5),
        resblock_dilation_sizes=((1, 2), (4,)),
        kernel_predictor_conv_size=5,
        kernel_predictor_num_blocks=1,
        leaky_relu_slope=0.1,
    ),
    "no-predictor-blocks": replace(SMALL, kernel_predictor_num_blocks=0, kernel_predictor_hidden_channels=9),
    "stride-1": replace(SMALL, resblock_stride_sizes=(1, 4, 2)),
}


def lively(config: UnivNetConfig) -> UnivNet:
    """Random weights under which every layer's signal keeps about the same size."""
    model = UnivNet(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, 0.0, 0.1)
            continue
        fan = parameter.shape[1] * parameter.shape[2]
        if "convt_pre" in name:
            fan = 2 * parameter.shape[0]
        small = 0.2 if "kernel_conv" in name else 1.0
        torch.nn.init.normal_(parameter, 0.0, small * fan**-0.5)
    return model.eval().requires_grad_(False)


@pytest.mark.golden
@pytest.mark.parametrize("impl", IMPLS)
def test_golden_every_tensor(impl: str, nan_poison: None) -> None:
    case = golden("hf_univnet")
    model = fastvoc.load(case.dir).model
    mel, noise = case.inputs["input_features"].mT, case.inputs["noise_sequence"].mT
    seen: dict[str, torch.Tensor] = {}

    def keep(part: str) -> Any:
        return lambda module, inputs, output: seen.setdefault(part, output)

    first = model.resblocks[0]
    model.conv_pre.register_forward_hook(keep("conv_pre"))
    first.convt_pre.register_forward_hook(keep("convt0"))
    first.lvc[-1].register_forward_hook(keep("block0"))
    hidden: list[torch.Tensor] = []
    first.kernel_predictor.bias_conv.register_forward_pre_hook(lambda module, inputs: hidden.append(inputs[0]))
    first.kernel_predictor.bias_conv.register_forward_hook(keep("biases0"))
    with torch.inference_mode():
        wav = model(mel, backend=impl, noise=noise)
    assert_golden(wav[:, 0], case, "wav")
    predicts = first.kernel_predictor.kernel_conv
    kernels = [predicts._kernels(part(hidden[0], backend=impl)) for part in predicts.slices]
    seen["biases0"] = seen["biases0"].unflatten(1, (4, -1))
    seen["kernels0"] = torch.stack(kernels, 1).permute(0, 1, 3, 4, 2, 5)  # [B, layers, C_in, C_out, K, L]
    assert set(seen) == set(case.middle)
    for part, value in seen.items():
        assert_golden(value, case, f"mid.{part}")


@pytest.mark.golden
@pytest.mark.parametrize("impl", IMPLS)
def test_save_and_load(impl: str, tmp_path: Path) -> None:
    case = golden("hf_univnet")
    voc = fastvoc.load(case.dir, backend=impl)
    assert voc.mel_config == BIGVGAN_24K_100
    assert dict(voc.model.state_dict()).keys() == load_file(case.dir / "model.safetensors").keys()
    mel = case.inputs["input_features"].mT
    fastvoc.save(voc, tmp_path / "own.safetensors")
    again = fastvoc.load(tmp_path / "own.safetensors", backend=impl)
    assert again.config == voc.config
    wav = again(mel, check=False)
    assert wav.shape == (2, 15 * 256)
    assert torch.equal(wav, voc(mel, check=False))


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("name", UNUSUAL)
def test_any_legal_configuration(name: str, impl: str, nan_poison: None) -> None:
    config = UNUSUAL[name]
    model = lively(config)
    exact = copy.deepcopy(model).double()
    for frames in (4, 5, 17):
        mel = torch.randn(2, config.num_mels, frames)
        noise = torch.randn(2, config.model_in_channels, frames)
        wav = model(mel, backend=impl, noise=noise)
        assert wav.shape == (2, 1, config.samples(frames))
        assert relative_l2(wav, exact(mel.double(), backend="torch", noise=noise.double())) <= 1e-5
    assert UnivNetConfig.from_dict(config.to_dict()) == config
    assert list(config.tensors()) == [(key, tuple(tensor.shape)) for key, tensor in model.state_dict().items()]


def test_published_size() -> None:
    assert sum(prod(shape) for _, shape in UNIVNET_24K_100.tensors()) == 14_789_153
    assert UNIVNET_24K_100.hop == 256


def test_seeds_decide_the_noise() -> None:
    model = lively(SMALL)
    mel = torch.randn(1, 100, 12).expand(3, -1, -1)
    wav = model(mel, seed=[1, 2, 1])
    assert torch.equal(wav[0], wav[2])
    assert not torch.equal(wav[0], wav[1])
    assert torch.equal(model(mel[:1], seed=2)[0], wav[1])
    assert torch.equal(model(mel[:1]), model(mel[:1], seed=0))
    assert torch.equal(model(mel, noise=normal_noise(torch.tensor([1, 2, 1]), 12, 12).float()), wav)


def test_inputs_through_the_vocoder() -> None:
    model = lively(SMALL)
    voc = Vocoder(model, SMALL)
    mel = torch.randn(100, 12)
    wav = voc(mel, seed=5, check=False)
    assert torch.equal(wav, model(mel[None], seed=5)[0, 0])
    noise = normal_noise(torch.tensor([5]), 12, 12)[0]
    assert torch.equal(voc(mel, noise=noise, check=False), wav)
    assert torch.equal(voc(mel, noise=noise.numpy(), check=False), wav)
    with pytest.raises(ArgumentError, match="takes noise, seed"):
        voc(mel, f0=torch.ones(12))


@pytest.mark.native
def test_streams_take_a_seed() -> None:
    voc = Vocoder(lively(SMALL), SMALL, backend="cpp")
    mel = torch.randn(2, 100, 30)
    for seed in (5, [5, 9]):
        with voc.stream(seed=seed) as stream:
            wav = torch.cat([stream.push(mel[..., :17]), stream.push(mel[..., 17:]), stream.flush()], -1)
        assert torch.equal(wav, voc(mel, seed=seed, check=False))
    with pytest.raises(DtypeError, match="seed: expected whole numbers"):
        voc.stream(seed=[])
    with voc.stream(seed=[1, 2, 3]) as stream, pytest.raises(ShapeError, match="seed"):
        stream.push(mel)


def test_a_stream_of_too_few_frames_goes_on() -> None:
    voc = Vocoder(lively(SMALL), SMALL)
    mel = torch.randn(100, 8)
    with voc.stream() as stream:
        first = stream.push(mel[:, :2])
        with pytest.raises(ShapeError, match="fewer than 4 frames"):
            stream.flush(mel[:, 2:3])
        wav = torch.cat([first, stream.push(mel[:, 2:]), stream.flush()])
    assert relative_l2(wav, voc(mel, check=False)) < 1e-6


def test_published_latency() -> None:
    voc = Vocoder(UnivNet(UNIVNET_24K_100), UNIVNET_24K_100)
    assert voc.context_frames == (16, 16)


def test_noise_is_normal_and_depends_on_position_alone() -> None:
    seed = torch.tensor([3, 4])
    noise = normal_noise(seed, 7, 40_000)
    assert noise.dtype == torch.float64
    assert torch.equal(normal_noise(seed[1:], 7, 100, start=1234), noise[1:, :, 1234:1334])
    assert torch.equal(normal_noise(seed, 6, 50), noise[:, :6, :50])
    flat = noise.flatten(1)
    assert flat.mean(1).abs().max() < 0.01
    assert (flat.square().mean(1) - 1).abs().max() < 0.01
    assert (flat**4).mean(1).sub(3).abs().max() < 0.1
    rows = torch.corrcoef(noise.reshape(14, -1))
    assert (rows - torch.eye(14)).abs().max() < 0.025


@pytest.mark.native
def test_no_layer_falls_to_the_reference() -> None:
    rows = list(fastvoc.explain(lively(SMALL)))
    assert {row.chosen for row in rows} == {"cpp"}
    assert {row.op for row in rows} == {"conv1d", "upsample", "lvc"}
    assert sum(row.op == "lvc" for row in rows) == 12


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model_in_channels", 0),
        ("model_hidden_channels", -8),
        ("num_mels", 2.5),
        ("resblock_kernel_sizes", (3, 4, 3)),
        ("resblock_kernel_sizes", (3, 3)),
        ("resblock_stride_sizes", ()),
        ("resblock_dilation_sizes", ((1,), (1,))),
        ("resblock_dilation_sizes", ((1,), (), (1,))),
        ("kernel_predictor_num_blocks", -1),
        ("kernel_predictor_hidden_channels", 32),
        ("kernel_predictor_conv_size", 2),
        ("sample_rate", 0),
    ],
)
def test_bad_configurations_name_the_field(field: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=rf"UnivNetConfig\.{field}: got "):
        UnivNetConfig(**{field: value})


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ArgumentError, match="'stride'"):
        UnivNetConfig.from_dict({"stride": 8})
    model = lively(SMALL)
    mel = torch.randn(2, 100, 8)
    for bad in (mel[0], mel[:, :80], mel.mT, mel[:, :, :3]):
        with pytest.raises(ShapeError, match=r"mel: expected \[B, 100, T >= 4\]"):
            model(bad)
    with pytest.raises(ShapeError, match="lengths from 3"):
        model(mel, torch.tensor([8, 3]))
    with pytest.raises(DtypeError, match="float32"):
        model(mel.double())
    with pytest.raises(ShapeError, match=r"noise: expected \[2, 12, 8\], got \[2, 8, 12\]"):
        model(mel, noise=torch.randn(2, 8, 12))
    with pytest.raises(DtypeError, match="noise"):
        model(mel, noise=torch.ones(2, 12, 8).long())
    with pytest.raises(DeviceError, match="noise"):
        model(mel, noise=torch.randn(2, 12, 8).to("meta"))
    with pytest.raises(DtypeError, match="seed"):
        model(mel, seed=1.5)
    with pytest.raises(DtypeError, match="64 bits"):
        model(mel, seed=1 << 70)
    with pytest.raises(ShapeError, match=r"seed: expected an integer or \[2\], one per item, got \[3\]"):
        model(mel, seed=[1, 2, 3])
