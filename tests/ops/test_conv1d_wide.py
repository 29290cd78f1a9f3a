"""conv1d of the C++ library in float64: accuracy, ragged batches, layouts, threads, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from op_cases import CONV1D, conv1d_params, double, strided
from torch import Tensor

from fastvoc.errors import BackendError
from fastvoc.ops.conv1d import Conv1dParams, conv1d, conv1d_ref

pytestmark = pytest.mark.native


def _snake(name: str) -> bool:
    return "snake" in (CONV1D[name]().pre.kind, CONV1D[name]().post.kind)


NAMES = [name for name in CONV1D if not _snake(name)]
each_case = pytest.mark.parametrize("make", [pytest.param(CONV1D[name], id=name) for name in NAMES])


def random(params: Conv1dParams, batch: int, steps: int) -> Tensor:
    return torch.randn(batch, params.weight.shape[1], steps, dtype=torch.float64)


@each_case
def test_accuracy(make: Callable[[], Conv1dParams], nan_poison: None) -> None:
    params: Conv1dParams = double(make())
    for steps in (90, 211):
        x = random(params, 2, steps)
        residual = torch.randn(2, params.weight.shape[0], params.output_length(steps), dtype=torch.float64)
        for added in (None, residual, residual.transpose(1, 2).contiguous().transpose(1, 2)):
            y, exact = conv1d(x, params, added, backend="cpp"), conv1d_ref(x, params, added)
            assert y.dtype is torch.float64
            torch.testing.assert_close(y, exact, rtol=1e-13, atol=1e-13)


@each_case
def test_ragged_batch_layouts_and_threads_do_not_change_a_bit(
    make: Callable[[], Conv1dParams], nan_poison: None
) -> None:
    params: Conv1dParams = double(make())
    lengths = torch.tensor([120, 90, 167])
    x = torch.full((3, params.weight.shape[1], 167), torch.nan, dtype=torch.float64)
    for i, n in enumerate(lengths.tolist()):
        x[i, :, :n] = random(params, 1, n)
    before = torch.get_num_threads()
    batched = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        batched.append(conv1d(x, params, lengths=lengths, backend="cpp"))
    torch.set_num_threads(before)
    assert all(torch.equal(batched[0], other) for other in batched[1:])
    for i, n in enumerate(lengths.tolist()):
        alone = conv1d(x[i : i + 1, :, :n], params, backend="cpp")[0]
        assert torch.equal(batched[0][i, :, : alone.shape[1]], alone)
        assert not batched[0][i, :, alone.shape[1] :].any()
    one = random(params, 2, 95)
    wide = {name: view.double() for name, view in strided(one.float()).items()}
    results = [conv1d(view, params, backend="cpp") for view in wide.values()]
    assert all(torch.equal(results[0], other) for other in results[1:])


def test_refusals() -> None:
    params = next(make() for name, make in CONV1D.items() if _snake(name))
    with pytest.raises(BackendError, match="computes a snake"):
        conv1d(random(double(params), 1, 20), double(params), backend="cpp")
    half = conv1d_params(4, 4, 3)
    half = replace(half, weight=half.weight.half(), bias=None)
    with pytest.raises(BackendError, match=r"not in torch\.float16"):
        conv1d(torch.randn(1, 4, 20).half(), half, backend="cpp")
