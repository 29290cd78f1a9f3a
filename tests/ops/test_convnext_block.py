"""layer_norm and convnext_block against their meaning in float64, plain and adaptive, in odd sizes and layouts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from op_cases import block_params, cast, double, norm_params

from fastvoc.errors import ArgumentError, DeviceError, DtypeError, ShapeError
from fastvoc.ops.convnext_block import convnext_block
from fastvoc.ops.layer_norm import LayerNormParams, layer_norm, layer_norm_ref
from fastvoc.runtime.registry import Op
from helpers import implementations, relative_l2

each_impl = pytest.mark.parametrize("impl", implementations("layer_norm"))


@pytest.mark.native
def test_nan_stays_in_its_receptive_field() -> None:
    params = block_params(24, 600)
    x = torch.randn(2, 24, 300)
    clean = convnext_block(x, params, backend="cpp")
    x[0, 3, 150] = torch.nan
    y = convnext_block(x, params, backend="cpp")
    touched = torch.zeros(300, dtype=torch.bool)
    touched[147:154] = True
    assert torch.equal(y[0].isnan().any(0), touched)
    assert torch.equal(y[0][:, ~touched], clean[0][:, ~touched])
    assert torch.equal(y[1], clean[1])


@each_impl
def test_the_norm_keeps_small_differences(impl: str) -> None:
    """A quiet signal whose variance is near eps, one of no variance, and one with a large mean."""
    params = norm_params(37)
    x = torch.randn(1, 37, 50) * 1e-3
    assert relative_l2(layer_norm(x, params, backend=impl), layer_norm_ref(x.double(), double(params))) < 1e-6
    flat = torch.full((1, 37, 5), 0.3)
    assert torch.allclose(layer_norm(flat, params, backend=impl)[0], params.bias[:, None].expand(-1, 5), atol=1e-3)
    lifted = torch.randn(1, 37, 50) + 100.0
    assert relative_l2(layer_norm(lifted, params, backend=impl), layer_norm_ref(lifted.double(), double(params))) < 1e-4


def one_of(op: Op, rows: int | None = None) -> Any:
    """Parameters of a norm or a block of 20 channels."""
    return norm_params(20, rows) if op is layer_norm else block_params(20, 40, rows=rows)


@pytest.mark.parametrize("op", [layer_norm, convnext_block], ids=lambda op: op.name)
def test_wrong_rows_are_named(op: Op) -> None:
    params, x, two = one_of(op, 4), torch.randn(2, 20, 40), torch.zeros(2, dtype=torch.int64)
    for error, text, row in (
        (ArgumentError, "expected one of 4 rows", None),
        (ShapeError, r"expected \[2\]", two[:1]),
        (DtypeError, "expected torch.int64", two.float()),
        (DeviceError, "expected a tensor on the CPU", two.to("meta")),
        (ArgumentError, "expected values in 0..3, got 0..4", torch.tensor([0, 4])),
        (ArgumentError, "expected values", torch.tensor([-1, 0])),
    ):
        with pytest.raises(error, match=f"{op.name}: row: {text}"):
            op(x, params, row)
    with pytest.raises(ArgumentError, match="row: expected None"):
        op(x, one_of(op), two)


def test_wrong_parameters_are_named() -> None:
    with pytest.raises(ShapeError, match="layer_norm: weight and bias"):
        LayerNormParams(torch.ones(4), torch.ones(5))
    with pytest.raises(ShapeError, match="layer_norm: weight and bias"):
        LayerNormParams(torch.ones(2, 2, 4), torch.ones(2, 2, 4))
    with pytest.raises(ArgumentError, match="eps"):
        LayerNormParams(torch.ones(4), torch.ones(4), 0.0)
    good = block_params(6, 12)
    for name in ("depthwise_weight", "depthwise_bias", "expand_weight", "project_weight", "project_bias", "gamma"):
        with pytest.raises(ShapeError, match=f"convnext_block: {name}: expected"):
            replace(good, **{name: torch.ones(7, 7)})
    with pytest.raises(ShapeError, match="odd kernel"):
        block_params(6, 12, 4)


@pytest.mark.native
def test_bfloat16_keeps_nan_in_its_receptive_field() -> None:
    params = cast(block_params(24, 600), torch.bfloat16)
    x = torch.randn(1, 24, 300).to(torch.bfloat16)
    x[0, 3, 150] = torch.nan
    touched = torch.zeros(300, dtype=torch.bool)
    touched[147:154] = True
    assert torch.equal(convnext_block(x, params, backend="cpp")[0].isnan().all(0), touched)
