"""square_conv against its meaning in float64, and what must not change a result."""

from __future__ import annotations

import pytest
import torch
from op_cases import strided
from torch.nn import functional as F

from fastvoc.errors import ArgumentError, ShapeError
from fastvoc.nn.square_conv import SquareConv
from fastvoc.ops.conv1d import conv1d
from fastvoc.ops.square_conv import SquareConvParams, square_conv
from fastvoc.runtime.registry import OPS, use_exact
from helpers import batches_with, implementations, relative_l2

each_impl = pytest.mark.parametrize("impl", implementations("square_conv"))


def square_params(channels: int, kernel: int, dilation: int = 1) -> SquareConvParams:
    weight = torch.randn(channels, channels, kernel) / (channels * kernel) ** 0.5
    return SquareConvParams(weight, torch.randn(channels), dilation)


@each_impl
@pytest.mark.parametrize("kernel", [1, 3, 7, 11])
@pytest.mark.parametrize("channels", [1, 6, 16, 37, 128])
def test_equals_the_meaning(channels: int, kernel: int, impl: str, nan_poison: None) -> None:
    for batch, steps, dilation in ((1, 1, 1), (2, 7, 3), (3, 800, 5)):
        params = square_params(channels, kernel, dilation)
        x, residual = torch.randn(batch, channels, steps), torch.randn(batch, channels, steps)
        half = dilation * (kernel // 2)
        bias = None if params.bias is None else params.bias.double()
        meant = F.conv1d(x.double(), params.weight.double(), bias, padding=half, dilation=dilation)
        assert relative_l2(square_conv(x, params, backend=impl), meant) < 5e-6
        assert relative_l2(square_conv(x, params, residual, backend=impl), meant + residual) < 5e-6


@each_impl
@pytest.mark.parametrize("channels", [19, 64])
def test_ragged_batch_equals_single_items_in_any_layout(channels: int, impl: str, nan_poison: None) -> None:
    params, lengths = square_params(channels, 7, 3), torch.tensor([161, 1, 17])
    x, residual = (torch.full((3, channels, 161), torch.nan) for _ in range(2))
    for i, n in enumerate(lengths.tolist()):
        x[i, :, :n], residual[i, :, :n] = torch.randn(2, channels, n)
    for added in (None, residual):
        results = [square_conv(view, params, added, lengths, backend=impl) for view in strided(x).values()]
        for i, n in enumerate(lengths.tolist()):
            part = None if added is None else added[i : i + 1, :, :n]
            alone = square_conv(x[i : i + 1, :, :n], params, part, backend=impl)[0]
            for y in results:
                assert torch.equal(y[i, :, :n], alone) if impl == "cpp" else relative_l2(y[i, :, :n], alone) < 1e-6
                assert not y[i, :, n:].any()


@pytest.mark.native
def test_exact_calls_sum_directly() -> None:
    params = square_params(32, 11, 3)
    x, residual = torch.randn(2, 32, 300), torch.randn(2, 32, 300)
    direct = conv1d(x, params.conv(), residual, backend="cpp")
    with use_exact():
        assert torch.equal(square_conv(x, params, residual, backend="cpp"), direct)
    assert not torch.equal(square_conv(x, params, residual, backend="cpp"), direct)
    assert OPS["square_conv"].impls["cpp"].packed(params, False).block is not None
    half = SquareConvParams(params.weight.bfloat16(), params.weight.new_zeros(32).bfloat16(), 3)
    assert OPS["square_conv"].impls["cpp"].packed(half, False).block is None


@pytest.mark.native
def test_threads_batch_and_position_do_not_change_a_bit() -> None:
    params, x = square_params(32, 7), torch.randn(1, 32, 5777)
    results = [
        square_conv(stacked, params, stacked, backend="cpp")[i]
        for stacked, i in batches_with(x, ((1, 1, 0), (2, 1, 0), (3, 3, 1), (2, 8, 7)))
    ]
    assert all(torch.equal(results[0], other) for other in results[1:])


@each_impl
def test_the_layer(impl: str) -> None:
    layer = SquareConv(18, 3, 2).requires_grad_(False)
    x = torch.randn(2, 18, 30)
    expected = F.conv1d(x, layer.weight, layer.bias, padding=2, dilation=2) + x
    torch.testing.assert_close(layer(x, x, backend=impl), expected, rtol=1e-5, atol=1e-5)
    watched = SquareConv(18, 3)
    watched(x, backend=impl).sum().backward()
    assert watched.weight.grad is not None


@each_impl
def test_wrong_arguments_are_named(impl: str) -> None:
    params = square_params(5, 3)
    with pytest.raises(ShapeError, match="x: expected"):
        square_conv(torch.randn(2, 4, 8), params, backend=impl)
    with pytest.raises(ShapeError, match="residual: expected"):
        square_conv(torch.randn(2, 5, 8), params, torch.randn(2, 5, 7), backend=impl)
    with pytest.raises(ShapeError, match=r"weight: expected \[C, C, K\] of an odd K"):
        SquareConvParams(torch.randn(5, 5, 4), None)
    with pytest.raises(ShapeError, match="bias"):
        SquareConvParams(torch.randn(5, 5, 3), torch.zeros(4))
    with pytest.raises(ArgumentError, match="dilation"):
        SquareConvParams(torch.randn(5, 5, 3), None, 0)
