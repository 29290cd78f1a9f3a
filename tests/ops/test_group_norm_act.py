"""group_norm_act against its meaning in float64, and what must not change a result."""

from __future__ import annotations

import pytest
import torch
from op_contract import group_norm_params
from torch import Tensor
from torch.nn import functional as F

from fastvoc.errors import ArgumentError, ShapeError
from fastvoc.nn.group_norm import GroupNormAct
from fastvoc.ops.activation import elu
from fastvoc.ops.group_norm_act import GroupNormParams, group_norm_act
from helpers import implementations, relative_l2

each_impl = pytest.mark.parametrize("impl", implementations("group_norm_act"))


def meaning(x: Tensor, p: GroupNormParams, residual: Tensor | None = None) -> Tensor:
    y = F.group_norm(x.double(), 1, p.weight.double(), p.bias.double(), p.eps)
    y = y if residual is None else y + residual.double()
    return F.elu(y) if p.act.kind == "elu" else y


@each_impl
def test_a_large_mean_does_not_spoil_the_variance(impl: str) -> None:
    params = group_norm_params(24)
    x = torch.randn(2, 24, 5000) + 1000
    error = relative_l2(group_norm_act(x, params, backend=impl), meaning(x, params))
    assert error < 1e-4 if impl == "torch" else error < 5e-6


@each_impl
def test_a_constant_gives_the_bias(impl: str) -> None:
    params = group_norm_params(6)
    y = group_norm_act(torch.full((1, 6, 31), 2.5), params, backend=impl)
    torch.testing.assert_close(y[0], params.bias[:, None].expand(-1, 31), rtol=1e-4, atol=1e-4)
    y = group_norm_act(torch.zeros(1, 6, 1), params, backend=impl)
    assert torch.equal(y[0, :, 0], params.bias)


@each_impl
def test_the_layer(impl: str) -> None:
    layer = GroupNormAct(7, act=elu()).requires_grad_(False)
    x = torch.randn(2, 7, 30)
    torch.testing.assert_close(layer(x, backend=impl), F.elu(F.group_norm(x, 1)), rtol=1e-5, atol=1e-5)


@each_impl
def test_wrong_arguments_are_named(impl: str) -> None:
    params = group_norm_params(5)
    x = torch.randn(2, 5, 8)
    with pytest.raises(ShapeError, match="x: expected"):
        group_norm_act(x[:, 1:], params, backend=impl)
    with pytest.raises(ShapeError, match="residual: expected"):
        group_norm_act(x, params, x[:, :, 1:], backend=impl)
    with pytest.raises(ArgumentError, match="lengths"):
        group_norm_act(x, params, lengths=torch.tensor([0, 8]), backend=impl)
    with pytest.raises(ShapeError, match="weight and bias"):
        GroupNormParams(torch.ones(3), torch.ones(4))
    with pytest.raises(ArgumentError, match="eps"):
        GroupNormParams(torch.ones(3), torch.ones(3), eps=0.0)
