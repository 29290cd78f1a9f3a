"""Kokoro's decoder under the package's own name and arguments."""

from __future__ import annotations

import inspect
import json
from typing import Any

import pytest
import torch
from compat_models import MODELS, SmallKokoro

from fastvoc.compat.kokoro import Decoder
from fastvoc.errors import ArgumentError
from helpers import assert_golden, golden, implementations

UPSTREAM = [
    *("dim_in", "style_dim", "dim_out", "resblock_kernel_sizes", "upsample_rates", "upsample_initial_channel"),
    *("resblock_dilation_sizes", "upsample_kernel_sizes", "gen_istft_n_fft", "gen_istft_hop_size", "disable_complex"),
]


class Shrunk(Decoder):
    """The golden case's channels, where upstream has constants."""

    channels, asr_channels = 28, 8


def test_the_arguments_are_upstreams() -> None:
    assert list(inspect.signature(Decoder).parameters) == UPSTREAM
    assert list(inspect.signature(Decoder.forward).parameters) == ["self", "asr", "F0_curve", "N", "s"]
    with torch.device("meta"):
        published = Decoder(512, 128, 80, [3, 7, 11], [10, 6], 512, [[1, 3, 5]] * 3, [20, 12], 20, 5)
    shapes = {name: tuple(tensor.shape) for name, tensor in published.state_dict().items()}
    assert shapes["encode.conv1.weight"] == (1024, 514, 3)
    assert shapes["generator.m_source.l_linear.weight"] == (1, 9)
    assert shapes["generator.resblocks.5.alpha2.2"] == (1, 128, 1)
    with pytest.raises(ArgumentError, match="disable_complex: expected False"):
        Decoder(512, 128, 80, [3], [10, 6], 512, [[1]], [20, 12], 20, 5, disable_complex=True)
    with pytest.raises(ArgumentError, match="upsample_kernel_sizes"):
        Decoder(512, 128, 80, [3], [10, 6], 512, [[1]], [20, 13], 20, 5)


@pytest.mark.golden
@pytest.mark.parametrize("impl", implementations("adain"))
def test_a_published_state_as_the_package_loads_it(impl: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTVOC_BACKEND", impl)
    case = golden("kokoro_istftnet")
    config = json.loads((case.dir / "config.json").read_text())
    decoder = Shrunk(config["hidden_dim"], config["style_dim"], config["n_mels"], **config["istftnet"]).eval()
    state = torch.load(case.dir / "kokoro-v1_0.pth", weights_only=True)["decoder"]
    with pytest.raises(RuntimeError, match="Unexpected key"):
        decoder.load_state_dict(state)
    missing, unexpected = decoder.load_state_dict({name[7:]: tensor for name, tensor in state.items()}, strict=False)
    assert not unexpected
    assert all(".norm." in name for name in missing)
    har = torch.cat([case.inputs["har_magnitude"], case.inputs["har_phase"]], 1)
    inputs = {name: case.inputs[name] for name in ("f0", "n", "style")}
    with torch.no_grad():
        assert_golden(decoder._model(case.inputs["asr"], har=har, **inputs), case, "wav_given_har")
        torch.manual_seed(1)
        first = decoder(case.inputs["asr"], inputs["f0"], inputs["n"], inputs["style"])
        torch.manual_seed(1)
        assert torch.equal(decoder(case.inputs["asr"], *inputs.values()), first)
        assert not torch.equal(decoder(case.inputs["asr"], *inputs.values()), first)
    assert first.shape == case.outputs["wav"].shape


def test_states_go_from_one_to_another() -> None:
    one: Any = MODELS["kokoro.Decoder"].made()
    state = one.state_dict()
    assert {name.split(".")[0] for name in state} == {"encode", "decode", "F0_conv", "N_conv", "asr_res", "generator"}
    assert not any("snake" in name for name in state)
    other = MODELS["kokoro.Decoder"].make().eval()
    assert isinstance(other, SmallKokoro)
    holder = torch.nn.ModuleDict({"decoder": other})
    holder.load_state_dict({f"decoder.{name}": tensor for name, tensor in state.items()})
    x = MODELS["kokoro.Decoder"].input()
    assert torch.equal(MODELS["kokoro.Decoder"].run(other, x), MODELS["kokoro.Decoder"].run(one, x))
    assert {f"decoder.{name}" for name in state} == set(holder.state_dict())


def test_training_reaches_every_parameter() -> None:
    decoder: Any = MODELS["kokoro.Decoder"].make()
    asr = torch.randn(1, 6, 4)
    decoder(asr, torch.full((1, 8), 150.0), torch.ones(1, 8), torch.ones(1, 5)).square().sum().backward()
    without = [name for name, p in decoder.named_parameters() if p.grad is None and "m_source" not in name]
    assert not without
