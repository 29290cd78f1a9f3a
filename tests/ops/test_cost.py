"""What an op says that a call takes, against what torch counts of its reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from op_cases import ATTENTION, CONV1D, MRF, SNAKE_AA, UPSAMPLE, block_params, channels, conv1d_params, norm_params
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fastvoc.ops.conv2d import Conv2dParams
from fastvoc.ops.convnext_block import ConvNextBlockParams
from fastvoc.ops.depthwise import DepthwiseParams
from fastvoc.ops.group_norm_act import GroupNormParams
from fastvoc.ops.istft_head import IstftHeadParams
from fastvoc.ops.lstm import LstmParams
from fastvoc.ops.lvc import LvcParams
from fastvoc.ops.nsf_source import NsfSourceParams
from fastvoc.ops.rvq_decode import RvqParams
from fastvoc.ops.seanet_block import SeanetBlockParams
from fastvoc.ops.stft import StftParams
from fastvoc.runtime.registry import OPS

Call = tuple[str, Callable[[], Any], Callable[[Any], tuple[Any, ...]]]


def _signal(params: Any) -> tuple[Tensor]:
    return (torch.randn(2, channels(params), 61),)


def _block(params: ConvNextBlockParams) -> tuple[Tensor]:
    return (torch.randn(2, len(params.project_bias), 19),)


def _seanet() -> SeanetBlockParams:
    return SeanetBlockParams(
        conv1d_params(12, 6, 3, pad=(2, 0)), conv1d_params(6, 9, 1, pad=(0, 0)), conv1d_params(12, 9, 1, pad=(0, 0))
    )


def _lvc(params: LvcParams) -> tuple[Tensor, ...]:
    return torch.randn(2, 5, 40), torch.randn(2, 3, 5, 8, 5), torch.randn(2, 8, 5), torch.randn(2, 4, 40)


# Products that torch counts, each with the call that makes them.
COUNTED: dict[str, Call] = {
    **{f"conv1d-{name}": ("conv1d", CONV1D[name], _signal) for name in ("pre-mel", "stride-3", "dilated", "causal")},
    **{f"upsample-{name}": ("upsample", UPSAMPLE[name], _signal) for name in ("k16-s8", "k11-s5", "appended")},
    **{f"mrf-{name}": ("mrf", MRF[name], _signal) for name in ("v1", "v3", "causal")},
    "conv2d": (
        "conv2d",
        lambda: Conv2dParams(torch.randn(7, 5, 3, 3), torch.randn(7), 0.1, 2),
        lambda _: (torch.randn(2, 5, 9, 13), torch.randn(2, 7, 9, 13)),
    ),
    "convnext_block": ("convnext_block", lambda: block_params(12, 30), _block),
    "seanet_block": ("seanet_block", _seanet, lambda _: (torch.randn(2, 12, 33),)),
    "depthwise": (
        "depthwise",
        lambda: DepthwiseParams(torch.randn(7, 1, 5), torch.randn(7), 3),
        lambda _: (torch.randn(2, 7, 41),),
    ),
    "lvc": ("lvc", lambda: LvcParams(8), _lvc),
    "rvq_encode": ("rvq_encode", lambda: RvqParams(torch.randn(4, 20, 6)), lambda _: (torch.randn(2, 6, 15), 3)),
}


def _lstm() -> LstmParams:
    return LstmParams(((torch.randn(20, 7), torch.randn(20, 5), torch.randn(20), torch.randn(20)),))


# Multiply-adds that torch does not count, by the call.
OTHERS: dict[str, tuple[Call, int]] = {
    "lstm": (("lstm", _lstm, lambda _: (torch.randn(2, 7, 9),)), 2 * 9 * (20 * 7 + 20 * 5)),
    "snake_aa": (("snake_aa", SNAKE_AA["three"], _signal), 2 * 3 * 61 * 24),
    "nsf_source": (
        (
            "nsf_source",
            lambda: NsfSourceParams(torch.randn(9), torch.randn(1), 24000, 10),
            lambda _: (torch.rand(2, 1, 5),),
        ),
        2 * 50 * 9,
    ),
    "stft": (
        ("stft", lambda: StftParams(16, 4, torch.hann_window(16)), lambda _: (torch.randn(2, 1, 41),)),
        2 * 11 * (5 * 16 + 16),
    ),
    "istft_head": (
        ("istft_head", lambda: IstftHeadParams(16, 4, torch.hann_window(16)), lambda _: (torch.randn(2, 18, 11),)),
        2 * 11 * (5 * 16 + 16),
    ),
    # What a step sees is up to 5 steps here: 1 + 2 + 3 + 4 + 5 * 9 pairs of them.
    "attention_block": (
        ("attention_block", lambda: replace(ATTENTION["odd"](), window=5), lambda p: (torch.randn(2, p.channels, 13),)),
        2 * (13 * (4 * 18 * 19 + 2 * 33 * 19) + 2 * 55 * 18),
    ),
    "layer_norm": (("layer_norm", lambda: norm_params(6), lambda _: (torch.randn(2, 6, 5),)), 0),
    "group_norm_act": (
        (
            "group_norm_act",
            lambda: GroupNormParams(torch.randn(6), torch.randn(6)),
            lambda _: (torch.randn(2, 6, 5),) * 2,
        ),
        0,
    ),
    "rvq_decode": (
        ("rvq_decode", lambda: RvqParams(torch.randn(4, 20, 6)), lambda _: (torch.randint(20, (2, 3, 9)),)),
        0,
    ),
}


def test_every_op_is_here() -> None:
    assert {op for op, *_ in COUNTED.values()} | set(OTHERS) == set(OPS)


@pytest.mark.parametrize("name", COUNTED)
def test_multiply_adds_are_those_that_torch_counts(name: str) -> None:
    op, make, inputs = COUNTED[name]
    params = make()
    x, *args = inputs(params)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        OPS[op].reference(x, params, *args)
    assert 2 * OPS[op].cost(x, params, *args).multiply_adds == counter.get_total_flops()


@pytest.mark.parametrize("name", OTHERS)
def test_multiply_adds_by_hand(name: str) -> None:
    (op, make, inputs), expected = OTHERS[name]
    params = make()
    x, *args = inputs(params)
    assert OPS[op].cost(x, params, *args).multiply_adds == expected


@pytest.mark.parametrize("name", [*COUNTED, *OTHERS])
def test_bytes_are_those_of_the_tensors(name: str) -> None:
    op, make, inputs = COUNTED[name] if name in COUNTED else OTHERS[name][0]
    params = make()
    x, *args = inputs(params)
    y = OPS[op].reference(x, params, *args)
    cost = OPS[op].cost(x, params, *args)
    assert cost.written_bytes == y.numel() * y.element_size()
    tensors = [x, *params.tensors(), *(a for a in args if isinstance(a, Tensor))]
    assert cost.read_bytes == sum(t.numel() * t.element_size() for t in tensors)
    there = [a.to("meta") if isinstance(a, Tensor) else a for a in args]
    assert OPS[op].cost(x.to("meta"), params, *there) == cost


def test_a_layer_tells_its_cost() -> None:
    from fastvoc.nn.conv import Conv1d

    layer = Conv1d(5, 7, 3)
    x = torch.empty(4, 5, 100, device="meta")
    cost = layer.prepared.cost(x, None)
    assert cost.multiply_adds == 4 * 7 * 5 * 3 * 100
    assert cost.written_bytes == 4 * 7 * 100 * 4
    half = OPS["conv1d"].cost(x.bfloat16(), replace(layer.params(), weight=layer.weight.bfloat16()))
    assert half.written_bytes == cost.written_bytes // 2
