"""square_conv against its meaning in float64, and what must not change a result."""

from __future__ import annotations

import pytest
import torch
from op_contract import square_params
from torch.nn import functional as F

from fastvoc.errors import ArgumentError, ShapeError
from fastvoc.nn.square_conv import SquareConv
from fastvoc.ops.conv1d import conv1d
from fastvoc.ops.square_conv import SquareConvParams, square_conv
from fastvoc.runtime.registry import OPS, use_exact
from helpers import implementations

each_impl = pytest.mark.parametrize("impl", implementations("square_conv"))


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
