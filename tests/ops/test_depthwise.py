"""depthwise: torch's grouped convolution, its reach, every instruction set."""

from __future__ import annotations

import pytest
import torch
from op_cases import depthwise_params, random_snake
from torch.nn import functional as F

from fastvoc.ops.depthwise import DepthwiseParams, depthwise
from helpers import implementations, relative_l2

IMPLS = implementations("depthwise")


@pytest.mark.parametrize("impl", IMPLS)
def test_a_channel_depends_on_itself_alone(impl: str) -> None:
    params = depthwise_params(20, 7, 3)
    x = torch.randn(2, 20, 90)
    clean = depthwise(x, params, backend=impl)
    x[1, 7, 50] = torch.nan
    touched = depthwise(x, params, backend=impl).isnan()
    assert touched[1, 7].nonzero().flatten().tolist() == list(range(41, 60, 3))
    assert int(touched.sum()) == 7
    assert torch.equal(depthwise(x, params, backend=impl)[~touched], clean[~touched])


@pytest.mark.parametrize("impl", IMPLS)
def test_strips_and_ranges_leave_no_trace(impl: str) -> None:
    """Long signals of few and of many channels against torch's own convolution of the padded Snake."""
    for channels, dilation, steps in ((5, 9, 9000), (300, 27, 700), (700, 1, 400)):
        act = random_snake(channels)
        params = DepthwiseParams(torch.randn(channels, 1, 7) / 7**0.5, torch.randn(channels), dilation, act)
        x = torch.randn(1, channels, steps)
        wide = x.double()
        assert act.alpha is not None
        assert act.inverse is not None
        curved = wide + torch.sin(act.alpha[:, None] * wide).square() * act.inverse[:, None]
        weight, bias = params.weight.double(), params.bias.double()  # type: ignore[union-attr]  # there is one
        meant = F.conv1d(curved, weight, bias, padding=3 * dilation, dilation=dilation, groups=channels)
        assert relative_l2(depthwise(x, params, backend=impl), meant) < 1e-6
