"""adain against its meaning in float64, and what must not change a result."""

from __future__ import annotations

import pytest
import torch
from op_contract import adain_params
from torch import Tensor
from torch.nn import functional as F

from fastvoc.errors import ArgumentError, DtypeError, ShapeError
from fastvoc.nn.adain import AdaIn, Styles
from fastvoc.ops.activation import leaky_relu
from fastvoc.ops.adain import AdaInParams, adain
from helpers import implementations, relative_l2

each_impl = pytest.mark.parametrize("impl", implementations("adain"))


def meaning(x: Tensor, p: AdaInParams, style: Tensor) -> Tensor:
    gamma, beta = style.double().chunk(2, 1)
    wide = x.double()
    away = wide - wide.mean(2, keepdim=True)
    normal = away / (away.square().mean(2, keepdim=True) + p.eps).sqrt()
    y = (1 + gamma) * (normal * p.weight.double()[:, None] + p.bias.double()[:, None]) + beta
    if p.act.kind == "leaky_relu":
        return F.leaky_relu(y, p.act.slope)
    if p.act.alpha is None or p.act.inverse is None:
        return y
    return y + (y * p.act.alpha.double()[:, None]).sin().square() * p.act.inverse.double()[:, None]


@each_impl
def test_equals_torchs_instance_norm(impl: str) -> None:
    params = adain_params(7)
    x, style = torch.randn(2, 7, 50), torch.randn(2, 14, 1)
    gamma, beta = style.chunk(2, 1)
    theirs = (1 + gamma) * F.instance_norm(x, weight=params.weight, bias=params.bias, eps=params.eps) + beta
    torch.testing.assert_close(adain(x, params, style, backend=impl), theirs, rtol=1e-5, atol=1e-5)


@each_impl
def test_a_large_mean_does_not_spoil_the_variance(impl: str) -> None:
    params = adain_params(24)
    x = torch.randn(2, 24, 5000) + 1000 * torch.randn(2, 24, 1)
    style = torch.randn(2, 48, 1)
    error = relative_l2(adain(x, params, style, backend=impl), meaning(x, params, style))
    assert error < 1e-4 if impl == "torch" else error < 5e-6


@each_impl
def test_a_constant_gives_the_shift(impl: str) -> None:
    params, style = adain_params(6), torch.randn(1, 12, 1)
    shift = (1 + style[0, :6, 0]) * params.bias + style[0, 6:, 0]
    y = adain(torch.full((1, 6, 31), 2.5), params, style, backend=impl)
    torch.testing.assert_close(y[0], shift[:, None].expand(-1, 31), rtol=1e-4, atol=1e-4)


@each_impl
def test_layers_take_their_rows_of_all_styles(impl: str) -> None:
    norms = [AdaIn(3, 4), AdaIn(5, 4, leaky_relu(0.2))]
    styles = Styles(norms)
    for parameter in (p for norm in norms for p in norm.parameters()):
        parameter.requires_grad_(False).normal_().abs_().add_(0.1)
    vector = torch.randn(2, 4, 1)
    rows = styles.prepared(vector, None, None, backend=impl)
    assert rows.shape == (2, 16, 1)
    for norm, channels in zip(norms, (3, 5), strict=True):
        x = torch.randn(2, channels, 9)
        expected = meaning(x, norm.params(), F.linear(vector[:, :, 0], norm.fc.weight, norm.fc.bias)[:, :, None])
        assert relative_l2(norm(x, rows, backend=impl), expected) < 3e-6


@each_impl
def test_wrong_arguments_are_named(impl: str) -> None:
    params = adain_params(5)
    x, style = torch.randn(2, 5, 8), torch.randn(2, 10, 1)
    with pytest.raises(ShapeError, match="x: expected"):
        adain(x[:, 1:], params, style, backend=impl)
    with pytest.raises(ShapeError, match=r"style: expected \[2, 10, 1\], got \[1, 10, 1\]"):
        adain(x, params, style[:1], backend=impl)
    with pytest.raises(DtypeError, match=r"style: expected torch.float32, got torch.float64"):
        adain(x, params, style.double(), backend=impl)
    with pytest.raises(ArgumentError, match="lengths"):
        adain(x, params, style, lengths=torch.tensor([0, 8]), backend=impl)
    with pytest.raises(ShapeError, match="weight and bias"):
        AdaInParams(torch.ones(3), torch.ones(4))
    with pytest.raises(ArgumentError, match="eps"):
        AdaInParams(torch.ones(3), torch.ones(3), eps=0.0)
