"""However the threads share a residual stage, by ranges, as a team or by blocks: the bits of one thread."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from op_cases import cast, mrf_params

from fastvoc.ops.mrf import mrf
from fastvoc.runtime.registry import use_exact

pytestmark = pytest.mark.native


@pytest.mark.parametrize("channels", [1, 24])
def test_ranges_whose_blocks_begin_far_apart(channels: int, threads: Callable[[int], None], nan_poison: None) -> None:
    """A block of one tap adds where the input that it shares is not yet loaded: for the sanitizers, too."""
    params = mrf_params(channels, (13, 8, 1), ((5,), (2,), (1,)), 1, "causal")
    x = torch.randn(3, channels, 61)
    threads(1)
    expected = mrf(x, params, backend="cpp")
    threads(8)
    assert torch.equal(mrf(x, params, backend="cpp"), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize(("channels", "steps"), [(8, 300), (32, 700), (64, 576), (128, 333)])
def test_cuts_change_no_bit(
    channels: int, steps: int, exact: bool, dtype: torch.dtype, threads: Callable[[int], None], nan_poison: None
) -> None:
    params = cast(mrf_params(channels, (3, 7, 11), ((1, 3, 5),) * 3, 2), dtype)
    x = torch.randn(2, channels, steps).to(dtype)
    lengths = torch.tensor([steps, steps - 40])
    results, alone = [], []
    for count in (1, 2, 3, 4):
        threads(count)
        with use_exact(exact):
            results.append(mrf(x, params, lengths, backend="cpp"))
            alone.append(mrf(x[:1], params, backend="cpp"))
    assert all(torch.equal(results[0], other) for other in results[1:])
    assert all(torch.equal(results[0][:1], other) for other in alone)
