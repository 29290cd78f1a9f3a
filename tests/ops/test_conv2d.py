"""conv2d: every implementation against float64, in odd sizes and layouts; ragged batches; threads; refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from op_contract import conv2d_params

from fastvoc.errors import ArgumentError, DeviceError, DtypeError, ShapeError
from fastvoc.ops.conv2d import conv2d, conv2d_ref
from helpers import implementations

IMPLS = implementations("conv2d")


each_impl = pytest.mark.parametrize("impl", IMPLS)


@each_impl
def test_nan_and_infinity_stay_where_they_belong(impl: str) -> None:
    p = conv2d_params(3, 18, slope=0.1, pool=2)
    for bad in (torch.nan, torch.inf):
        x = torch.randn(1, 3, 20, 12)
        x[0, 1, 9, 5] = bad
        ours, theirs = conv2d(x, p, backend=impl), conv2d_ref(x, p)
        assert torch.equal(ours.isnan(), theirs.isnan())
        assert not ours[:, :, :8].isnan().any()
        assert not ours[:, :, 11:].isnan().any()


@each_impl
def test_wrong_arguments_are_named(impl: str) -> None:
    p = conv2d_params(4, 6, pool=3)
    x = torch.randn(2, 4, 9, 8)
    for error, text, bad in (
        (ShapeError, "x: expected", x[0]),
        (ShapeError, "x: expected", torch.randn(2, 5, 9, 8)),
        (ShapeError, "x: expected", x[:, :, :0]),
        (ShapeError, "x: expected", x[..., :2]),
        (DtypeError, "x: expected", x.double()),
        (DtypeError, "x: expected", x.numpy()),
        (DeviceError, "x: expected", x.to("meta")),
    ):
        with pytest.raises(error, match=text):
            conv2d(bad, p, backend=impl)
    for error, text, residual, lengths in (
        (ShapeError, "residual: expected", x, None),
        (DtypeError, "residual: expected", torch.randn(2, 6, 9, 8).double(), None),
        (DeviceError, "residual: expected", torch.randn(2, 6, 9, 8, device="meta"), None),
        (ArgumentError, "lengths: expected", None, torch.tensor([9, 10])),
    ):
        with pytest.raises(error, match=text):
            conv2d(x, p, residual, lengths, backend=impl)


def test_wrong_parameters_are_named() -> None:
    with pytest.raises(ShapeError, match="odd kernels"):
        conv2d_params(4, 6, (2, 3))
    with pytest.raises(ShapeError, match="bias"):
        replace(conv2d_params(4, 6), bias=torch.zeros(5))
    with pytest.raises(ArgumentError, match="pool"):
        conv2d_params(4, 6, pool=0)
