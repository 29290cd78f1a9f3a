"""conv2d: every implementation against float64, in odd sizes and layouts; ragged batches; threads; refusals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fastvoc.errors import ArgumentError, DeviceError, DtypeError, ShapeError
from fastvoc.ops.conv2d import OP, Conv2dParams, conv2d, conv2d_ref
from helpers import batches_with, implementations, relative_l2

IMPLS = implementations("conv2d")


def params(cin: int, cout: int, kernel: tuple[int, int] = (3, 3), *, slope: float = 1.0, pool: int = 1) -> Conv2dParams:
    weight = torch.randn(cout, cin, *kernel) / (cin * kernel[0] * kernel[1]) ** 0.5
    return Conv2dParams(weight, torch.randn(cout), slope, pool)


# Parameters, and the frequencies of the input.
CASES: dict[str, Callable[[], tuple[Conv2dParams, int]]] = {
    "first": lambda: (params(1, 64, slope=0.01), 80),
    "pooled": lambda: (params(19, 37, slope=0.01, pool=2), 13),
    "shortcut": lambda: (params(40, 48, (1, 1)), 10),
    "four": lambda: (params(32, 21, slope=0.2, pool=4), 10),
    "tall": lambda: (params(3, 5, (5, 1)), 7),
    "wide": lambda: (params(6, 17, (1, 7)), 9),
    "one-band": lambda: (params(33, 16), 1),
}
each_case = pytest.mark.parametrize("name", CASES)
each_impl = pytest.mark.parametrize("impl", IMPLS)


def double(p: Conv2dParams) -> Conv2dParams:
    return replace(p, weight=p.weight.double(), bias=p.bias.double())


def layouts(x: Tensor) -> dict[str, Tensor]:
    """The same [B, C, T, F] values in several memory layouts."""
    wide = torch.zeros(x.shape[0], x.shape[1] + 1, x.shape[2], 2 * x.shape[3])
    sliced = wide[:, 1:, :, ::2]
    sliced.copy_(x)
    return {
        "channels-first": x.contiguous(),
        "channels-last": x.contiguous(memory_format=torch.channels_last),
        "as-a-mel": x.transpose(2, 3).contiguous().transpose(2, 3),
        "sliced": sliced,
    }


@each_case
@each_impl
def test_accuracy_against_float64(name: str, impl: str, nan_poison: None) -> None:
    p, bands = CASES[name]()
    for batch, steps in ((1, 1), (2, 2), (1, 29), (3, 64)):
        x = torch.randn(batch, p.weight.shape[1], steps, bands)
        added = torch.randn(batch, p.weight.shape[0], steps, bands)
        for residual in (None, added, added.transpose(1, 3).contiguous().transpose(1, 3)):
            y = conv2d(x, p, residual, backend=impl)
            exact = conv2d_ref(x.double(), double(p), None if residual is None else residual.double())
            assert y.shape == exact.shape
            assert relative_l2(y, exact) < 1e-6


@each_case
@each_impl
def test_any_memory_layout(name: str, impl: str) -> None:
    p, bands = CASES[name]()
    results = [conv2d(x, p, backend=impl) for x in layouts(torch.randn(2, p.weight.shape[1], 17, bands)).values()]
    for y in results:
        torch.testing.assert_close(y, results[0], rtol=0, atol=0 if impl == "cpp" else 1e-5)


@each_case
@each_impl
def test_ragged_batch_equals_single_items(name: str, impl: str, nan_poison: None) -> None:
    p, bands = CASES[name]()
    lengths = torch.tensor([11, 1, 23])
    x = torch.full((3, p.weight.shape[1], 23, bands), torch.nan)
    residual = torch.full((3, p.weight.shape[0], 23, bands), torch.nan)
    for i, n in enumerate(lengths.tolist()):
        x[i, :, :n] = torch.randn(p.weight.shape[1], n, bands)
        residual[i, :, :n] = torch.randn(p.weight.shape[0], n, bands)
    batched = conv2d(x, p, residual, lengths, backend=impl)
    for i, n in enumerate(lengths.tolist()):
        alone = conv2d(x[i : i + 1, :, :n], p, residual[i : i + 1, :, :n], backend=impl)[0]
        torch.testing.assert_close(batched[i, :, :n], alone, rtol=0, atol=0 if impl == "cpp" else 1e-5)
        assert not batched[i, :, n:].any()


@pytest.mark.native
@each_case
def test_threads_batch_and_position_do_not_change_a_bit(name: str) -> None:
    p, bands = CASES[name]()
    x = torch.randn(1, p.weight.shape[1], 101, bands)
    results = [
        conv2d(stacked, p, backend="cpp")[i]
        for stacked, i in batches_with(x, ((1, 1, 0), (2, 1, 0), (3, 1, 0), (2, 3, 2)))
    ]
    assert all(torch.equal(results[0], other) for other in results[1:])


@each_impl
def test_nan_and_infinity_stay_where_they_belong(impl: str) -> None:
    p = params(3, 18, slope=0.1, pool=2)
    for bad in (torch.nan, torch.inf):
        x = torch.randn(1, 3, 20, 12)
        x[0, 1, 9, 5] = bad
        ours, theirs = conv2d(x, p, backend=impl), conv2d_ref(x, p)
        assert torch.equal(ours.isnan(), theirs.isnan())
        assert not ours[:, :, :8].isnan().any()
        assert not ours[:, :, 11:].isnan().any()


@each_impl
def test_autograd_sees_the_reference(impl: str) -> None:
    p = params(4, 6, slope=0.1, pool=2)
    x = torch.randn(1, 4, 9, 8, requires_grad=True)
    conv2d(x, p, backend=impl).sum().backward()
    assert torch.equal(x.grad, torch.autograd.grad(conv2d_ref(x, p).sum(), x)[0])


@pytest.mark.native
def test_fake_tensors_have_the_real_shapes() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    p = params(5, 7, pool=2)
    packed = OP.impls["cpp"].pack(p)
    real = conv2d(torch.randn(2, 5, 11, 9), p, backend="cpp")
    with FakeTensorMode(allow_non_fake_inputs=True):
        fake = OP.impls["cpp"].run(torch.empty(2, 5, 11, 9), packed)
    assert (fake.shape, fake.stride(), fake.dtype) == (real.shape, real.stride(), real.dtype)


@each_impl
def test_wrong_arguments_are_named(impl: str) -> None:
    p = params(4, 6, pool=3)
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
        params(4, 6, (2, 3))
    with pytest.raises(ShapeError, match="bias"):
        replace(params(4, 6), bias=torch.zeros(5))
    with pytest.raises(ArgumentError, match="pool"):
        params(4, 6, pool=0)
