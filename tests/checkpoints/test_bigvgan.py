"""BigVGAN files: every form of their weights, the filters they hold, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_files import bigvgan_upstream, unfolded, write_bigvgan
from torch import Tensor

from fastvoc.checkpoints import detect_and_load
from fastvoc.errors import LoadError
from fastvoc.models.bigvgan import BigVgan
from fastvoc.ops.snake_aa import kaiser_sinc
from helpers import golden


@pytest.mark.parametrize("form", ["folded", "weight_g", "parametrizations"])
@pytest.mark.parametrize("block", ["1", "2"])
def test_every_form_of_the_weights(form: str, block: str, tmp_path: Path) -> None:
    values, state = bigvgan_upstream({"resblock": block, "use_bias_at_final": True, "use_tanh_at_final": True})
    given = state if form == "folded" else {**state, **unfolded(state, form)}
    if form != "folded":
        given = {name: t for name, t in given.items() if not name.endswith(".weight")}
    checkpoint = detect_and_load(write_bigvgan(tmp_path, values, given))
    assert checkpoint.format == "bigvgan"
    assert checkpoint.config.resblock == block
    assert checkpoint.config.mel.hop_length == checkpoint.config.hop == 8
    for name, tensor in checkpoint.state.items():
        theirs = name.replace("ups.0", "ups.0.0").replace("ups.1", "ups.1.0")
        theirs = theirs.replace(".alpha", ".act.alpha").replace(".beta", ".act.beta")
        torch.testing.assert_close(tensor, state[theirs], rtol=1e-6, atol=1e-7)
    BigVgan(checkpoint.config).load_state_dict(checkpoint.state)


def test_bare_state_and_absent_filters(tmp_path: Path) -> None:
    values, state = bigvgan_upstream()
    whole = detect_and_load(write_bigvgan(tmp_path, values, state, "g_00000001"))
    bare = {name: tensor for name, tensor in state.items() if "filter" not in name}
    torch.save(bare, tmp_path / "g_00000002")
    again = detect_and_load(tmp_path / "g_00000002")
    assert all(torch.equal(whole.state[name], tensor) for name, tensor in again.state.items())


def test_first_release_has_tanh_and_bias(tmp_path: Path) -> None:
    values, state = bigvgan_upstream({"use_bias_at_final": True})
    del values["use_tanh_at_final"], values["use_bias_at_final"]
    config = detect_and_load(write_bigvgan(tmp_path, values, state)).config
    assert config.use_tanh_at_final
    assert config.use_bias_at_final


def test_front_end_of_another_frame_rate_is_left_out(tmp_path: Path) -> None:
    values, state = bigvgan_upstream()
    assert detect_and_load(write_bigvgan(tmp_path, {**values, "hop_size": 10}, state)).config.mel is None


def _drop(name: str) -> Callable[[dict[str, Any], dict[str, Tensor]], object]:
    return lambda values, state: state.pop(name)


def _set(name: str, value: Any) -> Callable[[dict[str, Any], dict[str, Tensor]], object]:
    return lambda values, state: (
        state.update({name: value}) if isinstance(value, Tensor) else values.update({name: value})
    )


ACT = "resblocks.1.activations.2"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (_set(f"{ACT}.upsample.filter", kaiser_sinc()[None, None] * 1.001), [f"{ACT}.upsample.filter", "published"]),
        (_set(f"{ACT}.upsample.filter", torch.full((1, 1, 12), torch.nan)), [f"{ACT}.upsample.filter", "published"]),
        (
            _set(f"{ACT}.downsample.lowpass.filter", torch.ones(1, 1, 10)),
            [f"{ACT}.downsample.lowpass.filter", "[1, 1, 10]"],
        ),
        (_set(f"{ACT}.upsample.filter", torch.ones(1, 1, 12).long()), [f"{ACT}.upsample.filter", "int64"]),
        (_set("resblocks.9.activations.0.upsample.filter", torch.ones(1, 1, 12)), ["resblocks.9", "no place"]),
        (_set("ups.0.bias", torch.ones(4)), ["ups.0.0.bias", "ups.0.bias"]),
        (_set("conv_post.bias", torch.ones(1)), ["conv_post.bias", "no place"]),
        (_drop(f"{ACT}.act.beta"), [f"{ACT}.beta", "missing"]),
        (_drop("ups.1.0.weight"), ["ups.1.weight", "missing"]),
        (_set("activation", "relu"), ["activation", "'relu'"]),
        (_set("resblock", "3"), ["resblock", "'3'"]),
        (_set("resblock", 1), ["resblock", "a text"]),
        (_set("snake_logscale", "true"), ["snake_logscale", "true or false"]),
        (_set("upsample_rates", [4, 2] * 20), ["upsample_"]),
        (_set("resblock_dilation_sizes", [[1] * 30000]), ["is missing"]),
        (_set("upsample_initial_channel", 2**31 - 1), ["conv_pre.weight"]),
    ],
)
def test_refused(change: Callable[..., object], named: list[str], tmp_path: Path) -> None:
    values, state = bigvgan_upstream()
    change(values, state)
    with pytest.raises(LoadError) as caught:
        detect_and_load(write_bigvgan(tmp_path, values, state))
    for text in named:
        assert text in str(caught.value), caught.value


@pytest.mark.golden
@pytest.mark.parametrize("name", ["bigvgan_base_small", "bigvgan_v2_small"])
def test_golden_weights_are_folded(name: str) -> None:
    case = golden(name)
    checkpoint = detect_and_load(case.dir)
    stored = torch.load(case.dir / "bigvgan_generator.pt", weights_only=True)["generator"]
    g, v = stored["ups.1.0.weight_g"].double(), stored["ups.1.0.weight_v"].double()
    expected = (g * v / v.norm(dim=(1, 2), keepdim=True)).float()
    torch.testing.assert_close(checkpoint.state["ups.1.weight"], expected, rtol=2e-7, atol=0)
    assert torch.equal(checkpoint.state["activation_post.alpha"], stored["activation_post.act.alpha"])
    assert checkpoint.config.use_tanh_at_final == ("base" in name)
