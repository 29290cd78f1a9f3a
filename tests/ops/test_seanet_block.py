"""seanet_block against its meaning in float64, short inputs, and what must not change a result."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from op_cases import channels, double
from op_contract import SEANET, seanet_conv
from torch import Tensor
from torch.nn import functional as F

from fastvoc.errors import ArgumentError, BackendError, ShapeError
from fastvoc.nn.seanet import SeanetBlock
from fastvoc.ops.activation import elu
from fastvoc.ops.conv1d import Conv1dParams
from fastvoc.ops.seanet_block import seanet_block, seanet_block_ref
from fastvoc.runtime.registry import OPS
from helpers import implementations, relative_l2

STREAMED = ["causal", "split", "dilated-split", "identity-shortcut", "kernel-1"]
each_impl = pytest.mark.parametrize("impl", implementations("seanet_block"))


def pad_reflect(x: Tensor, left: int, right: int) -> Tensor:
    """Reflect padding by index, of the signal with zeros appended where it is too short."""
    steps = x.shape[2]
    longer = F.pad(x, (0, max(0, max(left, right) + 1 - steps)))
    last = longer.shape[2] - 1
    index = [abs(t) if t <= last else 2 * last - t for t in range(-left, steps + right)]
    return longer[:, :, index]


@each_impl
def test_short_signals_reflect_with_zeros_appended(impl: str, nan_poison: None) -> None:
    for make in (SEANET["dilated"], SEANET["dilated-split"], SEANET["kernel-7"], SEANET["causal"]):
        params = make()
        p = double(params)
        assert p.shortcut is not None
        for steps in range(1, 25):
            x = torch.randn(1, channels(params), steps)
            wide = x.double()
            h = F.conv1d(
                pad_reflect(F.elu(wide), *p.conv1.padding), p.conv1.weight, p.conv1.bias, dilation=p.conv1.dilation
            )
            y = F.conv1d(F.elu(h), p.conv2.weight, p.conv2.bias)
            y = y + F.conv1d(wide, p.shortcut.weight, p.shortcut.bias)
            assert relative_l2(seanet_block(x, params, backend=impl), y) < 2e-6, steps


@each_impl
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("conv_shortcut", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_the_layer(causal: bool, conv_shortcut: bool, norm: bool, impl: str) -> None:
    block = SeanetBlock(6, 3, 4, 2, causal=causal, conv_shortcut=conv_shortcut, norm=norm).requires_grad_(False)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter)
    wide = SeanetBlock(6, 3, 4, 2, causal=causal, conv_shortcut=conv_shortcut, norm=norm).double().requires_grad_(False)
    wide.load_state_dict({k: v.double() for k, v in block.state_dict().items()})
    state = wide.state_dict()

    def normed(y: Tensor, name: str) -> Tensor:
        return F.group_norm(y, 1, state[f"{name}.weight"], state[f"{name}.bias"]) if norm else y

    def one(x: Tensor) -> Tensor:
        padded = pad_reflect(F.elu(x), *((6, 0) if causal else (3, 3)))
        h = normed(F.conv1d(padded, state["conv1.weight"], state["conv1.bias"], dilation=2), "norm1")
        y = normed(F.conv1d(F.elu(h), state["conv2.weight"], state["conv2.bias"]), "norm2")
        if conv_shortcut:
            x = normed(F.conv1d(x, state["shortcut.weight"], state["shortcut.bias"]), "norm_shortcut")
        return x + y

    lengths = torch.tensor([1, 4, 30])
    x = torch.randn(3, 6, 30)
    batched = block(x, lengths=lengths, backend=impl)
    assert block.ops()
    for i, n in enumerate(lengths.tolist()):
        meant = one(x[i : i + 1, :, :n].double())
        torch.testing.assert_close(batched[i : i + 1, :, :n], meant.float(), rtol=1e-4, atol=1e-4)
        assert not batched[i, :, n:].any()
        torch.testing.assert_close(block(x[i : i + 1, :, :n], backend=impl), meant.float(), rtol=1e-4, atol=1e-4)


@each_impl
def test_wrong_arguments_are_named(impl: str) -> None:
    params = SEANET["odd"]()
    with pytest.raises(ShapeError, match="x: expected"):
        seanet_block(torch.randn(1, 5, 8), params, backend=impl)
    with pytest.raises(ShapeError, match="conv1: kernel"):
        replace(params, conv1=replace(params.conv1, padding=(1, 0)))
    with pytest.raises(ShapeError, match="conv2: weight"):
        replace(params, conv2=seanet_conv(5, 27, 1, (0, 0)))
    with pytest.raises(ShapeError, match="shortcut: weight"):
        replace(params, shortcut=Conv1dParams(torch.randn(27, 4, 1), None))
    params = SEANET["normed-odd"]()
    with pytest.raises(ArgumentError, match="norms: expected one for each of conv1, conv2, shortcut or none"):
        replace(params, norm2=None)
    with pytest.raises(ArgumentError, match="norms"):
        replace(params, shortcut=None)
    with pytest.raises(ShapeError, match="norm1: weight"):
        replace(params, norm1=params.norm2)


@each_impl
@pytest.mark.parametrize("name", STREAMED)
def test_chunks_equal_one_call(name: str, impl: str) -> None:
    params = SEANET[name]()
    chosen = OPS["seanet_block"].impls[impl]
    x = torch.randn(2, channels(params), 90)
    whole = seanet_block(x, params, backend=impl)
    assert chosen.stream is not None
    for sizes in ([90], [1] * 90, [40, 0, 17, 33]):
        stream = chosen.stream(params, chosen.pack(params))
        chunks = x.split(sizes, 2)
        joined = torch.cat([stream.step(part, i + 1 == len(chunks)) for i, part in enumerate(chunks)], 2)
        assert torch.equal(joined, whole) or impl != "cpp"
        torch.testing.assert_close(joined, whole, rtol=1e-5, atol=1e-5)


@pytest.mark.native
def test_the_kernel_says_what_it_cannot_do() -> None:
    params = SEANET["odd"]()
    x = torch.randn(1, 27, 9)
    with pytest.raises(BackendError, match="kernel of 1"):
        seanet_block(x, replace(params, conv2=seanet_conv(13, 27, 3, (1, 1))), backend="cpp")
    with pytest.raises(BackendError, match="no activation but"):
        seanet_block(x, replace(params, conv2=replace(params.conv2, post=elu())), backend="cpp")
    params = SEANET["normed-odd"]()
    assert params.norm1 is not None
    with pytest.raises(BackendError, match="no activation in its norms"):
        seanet_block(x, replace(params, norm1=replace(params.norm1, act=elu())), backend="cpp")
    stream = OPS["seanet_block"].impls["cpp"].stream
    assert stream is not None
    with pytest.raises(BackendError, match="whole signal"):
        stream(params, OPS["seanet_block"].impls["cpp"].pack(params))


@each_impl
def test_a_large_mean_does_not_spoil_the_norms(impl: str) -> None:
    params = SEANET["normed"]()
    assert params.conv1.bias is not None
    params.conv1.bias[:] = 300.0
    x = torch.randn(1, 32, 4000)
    y = seanet_block(x, params, backend=impl)
    assert relative_l2(y, seanet_block_ref(x.double(), double(params))) < 1e-4
