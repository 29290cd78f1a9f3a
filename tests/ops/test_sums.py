"""Long sums of the C++ kernels are taken in parts, so that what they lose does not grow with the number of products."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from op_cases import conv1d_params, double, mrf_params, upsample_params
from torch import Tensor

from fastvoc import use_exact
from fastvoc.ops.conv1d import conv1d
from fastvoc.ops.mrf import mrf
from fastvoc.ops.upsample import upsample
from helpers import relative_l2

pytestmark = pytest.mark.native

# Relative L2 distance from float64: one product after the other gives 1.3e-6, 6.9e-7, 7.5e-7 and 3e-7.
LONG: dict[str, tuple[Callable[..., Tensor], Callable[[], Any], int, float]] = {
    "conv1d": (conv1d, lambda: replace(conv1d_params(512, 48, 11, pad=(5, 5)), bias=None), 512, 3e-7),
    "pointwise": (conv1d, lambda: replace(conv1d_params(1536, 32, 1, pad=(0, 0)), bias=None), 1536, 3e-7),
    "upsample": (upsample, lambda: upsample_params(512, 32, 16, 8, (4, 4)), 512, 3.5e-7),
    "mrf": (mrf, lambda: mrf_params(256, (11,), ((1, 3),), 2), 256, 1.2e-7),
}


@pytest.mark.parametrize("name", LONG)
def test_long_sums_stay_near_float64(name: str) -> None:
    op, make, width, most = LONG[name]
    params, x = make(), torch.randn(1, width, 60)
    with use_exact():
        exact = op(x, params, backend="cpp")
    off = relative_l2(exact, op(x.double(), double(params), backend="torch"))
    assert off < most
