"""adain against its meaning in float64, and what must not change a result."""

from __future__ import annotations

import pytest
import torch
from op_cases import random_snake, strided
from torch import Tensor
from torch.nn import functional as F

from fastvoc.errors import ArgumentError, DtypeError, ShapeError
from fastvoc.nn.adain import AdaIn, Styles
from fastvoc.ops.activation import IDENTITY, Activation, leaky_relu
from fastvoc.ops.adain import AdaInParams, adain, adain_ref
from fastvoc.runtime.registry import OPS
from helpers import implementations, relative_l2

each_impl = pytest.mark.parametrize("impl", implementations("adain"))
each_act = pytest.mark.parametrize("kind", ["identity", "leaky_relu", "snake"])


def act_of(kind: str, channels: int) -> Activation:
    return {"identity": IDENTITY, "leaky_relu": leaky_relu(0.2), "snake": random_snake(channels)}[kind]


def adain_params(channels: int, kind: str = "identity") -> AdaInParams:
    return AdaInParams(torch.randn(channels), torch.randn(channels), 0.01, act_of(kind, channels))


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
@each_act
@pytest.mark.parametrize("channels", [1, 2, 5, 16, 33, 64, 514])
def test_equals_the_meaning(channels: int, kind: str, impl: str, nan_poison: None) -> None:
    params = adain_params(channels, kind)
    for batch, steps in ((1, 1), (2, 2), (2, 7), (1, 64), (3, 1001)):
        x, style = torch.randn(batch, channels, steps) * 3 + 1, torch.randn(batch, 2 * channels, 1)
        y = adain(x, params, style, backend=impl)
        assert y.shape == x.shape
        assert relative_l2(y, meaning(x, params, style)) < 3e-6


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
@each_act
def test_layout_does_not_matter(kind: str, impl: str) -> None:
    params = adain_params(21, kind)
    x, style = torch.randn(2, 21, 53), torch.randn(2, 42, 1)
    expected = adain(x, params, style, backend=impl)
    for name, view in strided(x).items():
        for rows in (style, torch.cat([style, style], 1)[:, :42], torch.cat([style, style], 2)[..., 1:]):
            y = adain(view, params, rows, backend=impl)
            if impl == "cpp":
                assert torch.equal(y, expected), name
            else:
                torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)


@each_impl
@each_act
def test_ragged_batch_equals_single_items(kind: str, impl: str, nan_poison: None) -> None:
    params = adain_params(19, kind)
    lengths, style = torch.tensor([61, 1, 17]), torch.randn(3, 38, 1)
    x = torch.full((3, 19, 61), torch.nan)
    for i, n in enumerate(lengths.tolist()):
        x[i, :, :n] = torch.randn(19, n)
    y = adain(x, params, style, lengths, backend=impl)
    for i, n in enumerate(lengths.tolist()):
        assert torch.equal(y[i, :, :n], adain(x[i : i + 1, :, :n], params, style[i : i + 1], backend=impl)[0])
        assert not y[i, :, n:].any()


@each_impl
def test_autograd_sees_the_reference(impl: str) -> None:
    params, style = adain_params(5, "snake"), torch.randn(1, 10, 1, requires_grad=True)
    x = torch.randn(1, 5, 8, requires_grad=True)
    adain(x, params, style, backend=impl).sum().backward()
    for given, grad in zip((x, style), torch.autograd.grad(adain_ref(x, params, style).sum(), (x, style)), strict=True):
        assert torch.equal(given.grad, grad)


@each_impl
@each_act
def test_bfloat16(kind: str, impl: str) -> None:
    params = adain_params(37, kind)
    half = AdaInParams(params.weight.bfloat16(), params.bias.bfloat16(), act=_half(params.act))
    x, style = torch.randn(2, 37, 300).bfloat16(), torch.randn(2, 74, 1)
    exact = meaning(x, half, style)
    y = adain(x, half, style, backend=impl)
    assert y.dtype == torch.bfloat16
    ours, best = relative_l2(y, exact), relative_l2(exact.bfloat16(), exact)
    assert ours < (1.05 if impl == "cpp" else 4) * best


def _half(act: Activation) -> Activation:
    tensors = (None if t is None else t.bfloat16() for t in (act.alpha, act.inverse))
    return Activation(act.kind, act.slope, *tensors)


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


@pytest.mark.native
@pytest.mark.parametrize("channels", [5, 32])
def test_threads_batch_and_position_do_not_change_a_bit(channels: int) -> None:
    params = adain_params(channels, "snake")
    x, style = torch.randn(1, channels, 9777), torch.randn(1, 2 * channels, 1)
    before = torch.get_num_threads()
    results = []
    for threads, batch, position in ((1, 1, 0), (2, 1, 0), (3, 1, 0), (4, 3, 1), (2, 8, 7)):
        torch.set_num_threads(threads)
        stacked, styles = torch.randn(batch, channels, 9777), torch.randn(batch, 2 * channels, 1)
        stacked[position], styles[position] = x[0], style[0]
        results.append(adain(stacked, params, styles, backend="cpp")[position])
    torch.set_num_threads(before)
    assert all(torch.equal(results[0], other) for other in results[1:])


@pytest.mark.native
def test_fake_tensors_have_the_real_shapes() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    params, style = adain_params(6), torch.randn(2, 12, 1)
    impl = OPS["adain"].impls["cpp"]
    packed = impl.pack(params)
    real = adain(torch.randn(2, 6, 9), params, style, backend="cpp")
    with FakeTensorMode(allow_non_fake_inputs=True):
        fake = impl.run(torch.empty(2, 6, 9), packed, style)
    assert (fake.shape, fake.stride(), fake.dtype) == (real.shape, real.stride(), real.dtype)
