"""Two steps by three products: what strided and transposed convolutions of two taps give, wherever they are cut."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fastvoc.ops import conv1d as conv_op
from fastvoc.ops import upsample as up_op
from fastvoc.ops.activation import elu
from fastvoc.runtime.registry import use_exact
from helpers import relative_l2

pytestmark = pytest.mark.native
CONVS = [(64, 17, 1), (32, 64, 2), (32, 33, 3), (64, 40, 4), (128, 256, 5)]  # in, out, stride
UPS = [(70, 16, 3), (64, 32, 2), (65, 8, 2), (64, 256, 8)]


def conv_params(cin: int, cout: int, stride: int) -> conv_op.Conv1dParams:
    weight = torch.randn(cout, cin, 2 * stride) / (2 * stride * cin) ** 0.5
    return conv_op.Conv1dParams(weight, torch.randn(cout), stride, padding=(stride, stride - 1), pre=elu())


def up_params(cin: int, cout: int, stride: int) -> up_op.UpsampleParams:
    weight = torch.randn(cin, cout, 2 * stride) / (2 * cin) ** 0.5
    return up_op.UpsampleParams(weight, torch.randn(cout), stride, (stride // 2, stride - stride // 2), elu())


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def direct(x: Tensor, params: conv_op.Conv1dParams) -> Tensor:
    padded = F.pad(F.elu(x.double()), params.padding)
    bias = None if params.bias is None else params.bias.double()
    return F.conv1d(padded, params.weight.double(), bias, params.stride)


@pytest.mark.parametrize("shape", [*CONVS, (64, 1, 1), (32, 1, 4)])
def test_strided(shape: tuple[int, int, int], threads: None, nan_poison: None) -> None:
    params = conv_params(*shape)
    assert conv_op.paired(params) is (shape in CONVS)  # one output has a kernel of its own
    for steps in (1, 2 * shape[2], 7 * shape[2] + 1, 301 * shape[2]):
        x = torch.randn(2, shape[0], steps)
        y, meant = conv_op.conv1d(x, params, backend="cpp"), direct(x, params)
        assert relative_l2(y, meant) < 1e-6
        added = torch.randn_like(y)
        assert relative_l2(conv_op.conv1d(x, params, added, backend="cpp"), meant + added) < 1e-6


@pytest.mark.parametrize("shape", UPS)
def test_transposed(shape: tuple[int, int, int], threads: None, nan_poison: None) -> None:
    params = up_params(*shape)
    assert up_op.paired(params)
    for steps in (1, 2, 25, 301):
        x = torch.randn(2, shape[0], steps)
        wide = F.conv_transpose1d(F.elu(x.double()), params.weight.double(), params.bias.double(), params.stride)
        meant = wide[:, :, params.crop[0] : wide.shape[2] - params.crop[1]]
        assert relative_l2(up_op.upsample(x, params, backend="cpp"), meant) < 1e-6


def test_an_item_is_the_same_alone_and_by_any_threads() -> None:
    before = torch.get_num_threads()
    for op, params in (
        (conv_op.conv1d, conv_params(32, 64, 2)),
        (conv_op.conv1d, conv_params(128, 512, 5)),
        (up_op.upsample, up_params(64, 256, 8)),
        (up_op.upsample, up_params(64, 32, 2)),
    ):
        x, lengths = torch.randn(3, x_channels(params), 333), torch.tensor([333, 52, 101])
        made = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            made.append(op(x, params, lengths=lengths, backend="cpp"))
        torch.set_num_threads(before)
        assert torch.equal(made[0], made[1])
        assert torch.equal(made[0], made[2])
        for i, n in enumerate(lengths.tolist()):
            alone = op(x[i : i + 1, :, :n], params, backend="cpp")
            assert torch.equal(made[0][i, :, : alone.shape[2]], alone[0])


def x_channels(params: conv_op.Conv1dParams | up_op.UpsampleParams) -> int:
    return params.weight.shape[1 if isinstance(params, conv_op.Conv1dParams) else 0]


def test_exact_calls_sum_directly() -> None:
    """What a stream gives: no sum of taps is in the weights, and the bits are those of a longer kernel of zeros."""
    params, x = conv_params(32, 64, 2), torch.randn(1, 32, 200)
    longer = conv_op.Conv1dParams(
        F.pad(params.weight, (0, 1)), params.bias, 2, padding=(params.padding[0], params.padding[1] + 1), pre=elu()
    )
    assert not conv_op.paired(longer)
    with use_exact():
        exact = conv_op.conv1d(x, params, backend="cpp")
    assert torch.equal(exact, conv_op.conv1d(x, longer, backend="cpp"))
    assert not torch.equal(exact, conv_op.conv1d(x, params, backend="cpp"))


def test_many_weights_few_inputs_and_other_numbers_are_not_paired() -> None:
    wide = conv_op.Conv1dParams(torch.empty(1024, 512, 16), None, 8)
    assert not conv_op.paired(wide)
    for dtype in (torch.bfloat16, torch.float64):
        assert not conv_op.paired(conv_op.Conv1dParams(torch.empty(64, 32, 4, dtype=dtype), None, 2))
        assert not up_op.paired(up_op.UpsampleParams(torch.empty(64, 64, 4, dtype=dtype), None, 2))
    assert not conv_op.paired(conv_op.Conv1dParams(torch.empty(64, 16, 4), None, 2))
    assert not up_op.paired(up_op.UpsampleParams(torch.empty(32, 16, 4), None, 2))


@pytest.mark.parametrize("steps", [490, 491, 492])
def test_strips_of_a_wide_layer_have_room(steps: int) -> None:
    """491 steps make one strip of 492, where one of a step more is cut in two."""
    params = up_params(64, 256, 8)
    x = torch.randn(1, 64, steps)
    with use_exact():
        exact = up_op.upsample(x, params, backend="cpp")
    assert relative_l2(exact, up_op.upsample_ref(x, params)) < 1e-6
    assert relative_l2(up_op.upsample(x, params, backend="cpp"), exact) < 1e-6
