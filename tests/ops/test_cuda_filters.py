"""The CUDA kernels of depthwise, snake_aa, lvc and conv2d, compiled as plain C++, against their meaning in float64."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from cuda_emulation import RUN
from op_cases import depthwise_params, snake_aa_params
from op_contract import conv2d_params

from fastvoc.ops.conv2d import OP as CONV2D_OP
from fastvoc.ops.depthwise import OP as DEPTHWISE_OP
from fastvoc.ops.snake_aa import OP as SNAKE
from fastvoc.ops.snake_aa import SnakeAaParams
from fastvoc.runtime import library as _library
from fastvoc.runtime.registry import Spec
from helpers import assert_golden, golden


def test_depthwise_refuses_more_taps_than_fit() -> None:
    supports = DEPTHWISE_OP.impls["cuda"].supports
    with mock.patch.object(_library, "cuda_refusal", return_value=None):
        assert supports(Spec("cuda", torch.float32, depthwise_params(1, 511))) is None
        assert "512 taps at most, not 513" in str(supports(Spec("cuda", torch.float32, depthwise_params(1, 513))))


def test_a_value_reaches_five_steps() -> None:
    packed = SNAKE.impls["cuda"].pack(snake_aa_params(3))
    x = torch.randn(1, 3, 140)
    x[0, 1, 66] = torch.nan
    y = RUN["snake_aa"](x, packed)
    assert y[0, 1].isnan().nonzero().flatten().tolist() == list(range(61, 72))
    assert not y[0, ::2].isnan().any()


@pytest.mark.golden
def test_snake_aa_golden() -> None:
    case = golden("bigvgan_v2_small")
    state = torch.load(case.dir / "bigvgan_generator.pt", weights_only=True)["generator"]
    act = "resblocks.0.activations.0.act"
    params = SnakeAaParams(state[f"{act}.alpha"].exp(), 1 / (state[f"{act}.beta"].exp() + 1e-9))
    assert_golden(RUN["snake_aa"](case.middle["ups0"], SNAKE.impls["cuda"].pack(params)), case, "mid.act0")


def test_conv2d_pools_what_is_no_number() -> None:
    params = conv2d_params(1, 1, (1, 1), pool=4)
    x = torch.randn(1, 1, 2, 8)
    x[0, 0, 0, 6] = torch.nan
    y = RUN["conv2d"](x, CONV2D_OP.impls["cuda"].pack(params))
    assert y.isnan().flatten().tolist() == [False, True, False, False]
