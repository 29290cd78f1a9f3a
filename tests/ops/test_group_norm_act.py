"""group_norm_act against its meaning in float64, and what must not change a result."""

from __future__ import annotations

import pytest
import torch
from op_cases import strided
from torch import Tensor
from torch.nn import functional as F

from fastvoc.errors import ArgumentError, ShapeError
from fastvoc.nn.group_norm import GroupNormAct
from fastvoc.ops.activation import IDENTITY, Activation, elu
from fastvoc.ops.group_norm_act import GroupNormParams, group_norm_act, group_norm_act_ref
from fastvoc.runtime.registry import OPS
from helpers import batches_with, implementations, relative_l2

each_impl = pytest.mark.parametrize("impl", implementations("group_norm_act"))
each_act = pytest.mark.parametrize("act", [IDENTITY, elu()], ids=["identity", "elu"])


def norm_params(channels: int, act: Activation = IDENTITY) -> GroupNormParams:
    return GroupNormParams(torch.randn(channels), torch.randn(channels), 0.01, act)


def meaning(x: Tensor, p: GroupNormParams, residual: Tensor | None = None) -> Tensor:
    y = F.group_norm(x.double(), 1, p.weight.double(), p.bias.double(), p.eps)
    y = y if residual is None else y + residual.double()
    return F.elu(y) if p.act.kind == "elu" else y


@each_impl
@each_act
@pytest.mark.parametrize("channels", [1, 2, 5, 16, 33, 64, 512])
def test_equals_the_meaning(channels: int, act: Activation, impl: str, nan_poison: None) -> None:
    params = norm_params(channels, act)
    for batch, steps in ((1, 2), (2, 7), (1, 64), (3, 1001)):
        x = torch.randn(batch, channels, steps) * 3 + 1
        residual = torch.randn(batch, channels, steps)
        assert relative_l2(group_norm_act(x, params, backend=impl), meaning(x, params)) < 2e-6
        added = group_norm_act(x, params, residual, backend=impl)
        assert relative_l2(added, meaning(x, params, residual)) < 2e-6


@each_impl
def test_a_large_mean_does_not_spoil_the_variance(impl: str) -> None:
    params = norm_params(24)
    x = torch.randn(2, 24, 5000) + 1000
    error = relative_l2(group_norm_act(x, params, backend=impl), meaning(x, params))
    assert error < 1e-4 if impl == "torch" else error < 5e-6


@each_impl
def test_a_constant_gives_the_bias(impl: str) -> None:
    params = norm_params(6)
    y = group_norm_act(torch.full((1, 6, 31), 2.5), params, backend=impl)
    torch.testing.assert_close(y[0], params.bias[:, None].expand(-1, 31), rtol=1e-4, atol=1e-4)
    y = group_norm_act(torch.zeros(1, 6, 1), params, backend=impl)
    assert torch.equal(y[0, :, 0], params.bias)


@each_impl
@each_act
def test_layout_does_not_matter(act: Activation, impl: str) -> None:
    params = norm_params(21, act)
    x, residual = torch.randn(2, 21, 53), torch.randn(2, 21, 53)
    expected = group_norm_act(x, params, residual, backend=impl)
    for name, view in strided(x).items():
        for other in strided(residual).values():
            y = group_norm_act(view, params, other, backend=impl)
            if impl == "cpp":
                assert torch.equal(y, expected), name
            else:
                torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)


@each_impl
@each_act
def test_ragged_batch_equals_single_items(act: Activation, impl: str, nan_poison: None) -> None:
    params = norm_params(19, act)
    lengths = torch.tensor([61, 1, 17])
    x, residual = torch.full((3, 19, 61), torch.nan), torch.full((3, 19, 61), torch.nan)
    for i, n in enumerate(lengths.tolist()):
        x[i, :, :n], residual[i, :, :n] = torch.randn(2, 19, n)
    for added in (None, residual):
        y = group_norm_act(x, params, added, lengths, backend=impl)
        for i, n in enumerate(lengths.tolist()):
            part = None if added is None else added[i : i + 1, :, :n]
            assert torch.equal(y[i, :, :n], group_norm_act(x[i : i + 1, :, :n], params, part, backend=impl)[0])
            assert not y[i, :, n:].any()


@each_impl
def test_autograd_sees_the_reference(impl: str) -> None:
    params = norm_params(5, elu())
    x = torch.randn(1, 5, 8, requires_grad=True)
    group_norm_act(x, params, backend=impl).sum().backward()
    assert torch.equal(x.grad, torch.autograd.grad(group_norm_act_ref(x, params).sum(), x)[0])


@each_impl
def test_the_layer(impl: str) -> None:
    layer = GroupNormAct(7, act=elu()).requires_grad_(False)
    x = torch.randn(2, 7, 30)
    torch.testing.assert_close(layer(x, backend=impl), F.elu(F.group_norm(x, 1)), rtol=1e-5, atol=1e-5)


@each_impl
def test_wrong_arguments_are_named(impl: str) -> None:
    params = norm_params(5)
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


@pytest.mark.native
@pytest.mark.parametrize("channels", [5, 32])
def test_threads_batch_and_position_do_not_change_a_bit(channels: int) -> None:
    params = norm_params(channels, elu())
    x = torch.randn(1, channels, 9777)
    results = [group_norm_act(stacked, params, stacked, backend="cpp")[i] for stacked, i in batches_with(x)]
    assert all(torch.equal(results[0], other) for other in results[1:])


@pytest.mark.native
def test_fake_tensors_have_the_real_shapes() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    params = norm_params(6)
    impl = OPS["group_norm_act"].impls["cpp"]
    packed = impl.pack(params)
    real = group_norm_act(torch.randn(2, 6, 9), params, backend="cpp")
    with FakeTensorMode(allow_non_fake_inputs=True):
        fake = impl.run(torch.empty(2, 6, 9), packed)
    assert (fake.shape, fake.stride(), fake.dtype) == (real.shape, real.stride(), real.dtype)
