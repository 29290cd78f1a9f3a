"""seanet_block against its meaning in float64, short inputs, and what must not change a result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from op_cases import cast, strided
from torch import Tensor
from torch.nn import functional as F

from fastvoc.errors import ArgumentError, BackendError, ShapeError
from fastvoc.nn.seanet import SeanetBlock
from fastvoc.ops.activation import elu, leaky_relu
from fastvoc.ops.conv1d import Conv1dParams
from fastvoc.ops.group_norm_act import GroupNormParams
from fastvoc.ops.seanet_block import SeanetBlockParams, seanet_block, seanet_block_ref
from fastvoc.runtime.registry import OPS
from helpers import batches_with, implementations, relative_l2


def conv(cin: int, cout: int, kernel: int, pad: tuple[int, int], dilation: int = 1) -> Conv1dParams:
    weight = torch.randn(cout, cin, kernel) / (cin * kernel) ** 0.5
    return Conv1dParams(weight, torch.randn(cout) * 0.3, 1, dilation, pad, "reflect", elu())


def block_params(
    channels: int, hidden: int, kernel: int = 3, pad: tuple[int, int] = (2, 0), dilation: int = 1
) -> SeanetBlockParams:
    shortcut = Conv1dParams(torch.randn(channels, channels, 1) / channels**0.5, torch.randn(channels))
    return SeanetBlockParams(conv(channels, hidden, kernel, pad, dilation), conv(hidden, channels, 1, (0, 0)), shortcut)


def same_act(params: SeanetBlockParams, slope: float) -> SeanetBlockParams:
    act = leaky_relu(slope)
    return replace(params, conv1=replace(params.conv1, pre=act), conv2=replace(params.conv2, pre=act))


CASES: dict[str, Callable[[], SeanetBlockParams]] = {
    "causal": lambda: block_params(32, 16),
    "split": lambda: block_params(64, 32, pad=(1, 1)),
    "odd": lambda: block_params(27, 13),
    "narrow": lambda: block_params(2, 1, pad=(1, 1)),
    "wide": lambda: block_params(256, 128),
    "dilated": lambda: block_params(20, 10, 3, (10, 0), 5),
    "dilated-split": lambda: block_params(20, 10, 4, (5, 4), 3),
    "kernel-7": lambda: block_params(16, 24, 7, (3, 3)),
    "kernel-1": lambda: block_params(16, 8, 1, (0, 0)),
    "identity-shortcut": lambda: replace(block_params(21, 9), shortcut=None),
    "leaky": lambda: same_act(block_params(12, 6), 0.2),
    "zeros": lambda: (lambda p: replace(p, conv1=replace(p.conv1, pad_mode="zeros")))(block_params(12, 6)),
    "no-bias": lambda: (lambda p: replace(p, conv1=replace(p.conv1, bias=None), conv2=replace(p.conv2, bias=None)))(
        block_params(24, 12)
    ),
}


def normed(params: SeanetBlockParams) -> SeanetBlockParams:
    def norm(channels: int) -> GroupNormParams:
        return GroupNormParams(torch.randn(channels) + 1, torch.randn(channels), 1e-5 * channels)

    hidden, out = params.conv1.weight.shape[0], params.conv2.weight.shape[0]
    shortcut = None if params.shortcut is None else norm(out)
    return replace(params, norm1=norm(hidden), norm2=norm(out), norm_shortcut=shortcut)


CASES |= {
    "normed": lambda: normed(block_params(32, 16, pad=(1, 1))),
    "normed-odd": lambda: normed(block_params(27, 13, 4, (5, 4), 3)),
    "normed-identity": lambda: normed(replace(block_params(21, 9), shortcut=None)),
    "normed-wide": lambda: normed(block_params(128, 64, pad=(1, 1))),
}
STREAMED = ["causal", "split", "dilated-split", "identity-shortcut", "kernel-1"]
each_case = pytest.mark.parametrize("make", CASES.values(), ids=CASES)
each_impl = pytest.mark.parametrize("impl", implementations("seanet_block"))


def double(params: SeanetBlockParams) -> SeanetBlockParams:
    def wide(p: Conv1dParams | None) -> Conv1dParams | None:
        if p is None:
            return None
        return replace(p, weight=p.weight.double(), bias=None if p.bias is None else p.bias.double())

    norms = {name: replace(n, weight=n.weight.double(), bias=n.bias.double()) for name, n in params.norms().items()}
    convs = (wide(p) for p in (params.conv1, params.conv2, params.shortcut))
    return SeanetBlockParams(*convs, **norms)  # type: ignore[arg-type]


def channels(params: SeanetBlockParams) -> int:
    return int(params.conv1.weight.shape[1])


def pad_reflect(x: Tensor, left: int, right: int) -> Tensor:
    """Reflect padding by index, of the signal with zeros appended where it is too short."""
    steps = x.shape[2]
    longer = F.pad(x, (0, max(0, max(left, right) + 1 - steps)))
    last = longer.shape[2] - 1
    index = [abs(t) if t <= last else 2 * last - t for t in range(-left, steps + right)]
    return longer[:, :, index]


@each_impl
def test_short_signals_reflect_with_zeros_appended(impl: str, nan_poison: None) -> None:
    for make in (CASES["dilated"], CASES["dilated-split"], CASES["kernel-7"], CASES["causal"]):
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


@each_case
@each_impl
def test_equals_the_meaning(make: Callable[[], SeanetBlockParams], impl: str, nan_poison: None) -> None:
    params = make()
    for steps in (1, 2, 3, 7, 13, 31, 64, 257, 1000, 3001):
        x = torch.randn(2, channels(params), steps)
        y = seanet_block(x, params, backend=impl)
        assert relative_l2(y, seanet_block_ref(x.double(), double(params))) < 2e-6, steps


@each_case
@each_impl
def test_layout_of_the_input_does_not_matter(make: Callable[[], SeanetBlockParams], impl: str) -> None:
    params = make()
    x = torch.randn(2, channels(params), 53)
    expected = seanet_block(x, params, backend=impl)
    for name, view in strided(x).items():
        y = seanet_block(view, params, backend=impl)
        if impl == "cpp":
            assert torch.equal(y, expected), name
        else:
            torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)


@each_case
@each_impl
def test_ragged_batch_equals_single_items(make: Callable[[], SeanetBlockParams], impl: str, nan_poison: None) -> None:
    params = make()
    lengths = torch.tensor([50, 1, 61, 3])
    x = torch.full((4, channels(params), 61), torch.nan)
    for i, n in enumerate(lengths.tolist()):
        x[i, :, :n] = torch.randn(channels(params), n)
    batched = seanet_block(x, params, lengths, backend=impl)
    for i, n in enumerate(lengths.tolist()):
        assert torch.equal(batched[i, :, :n], seanet_block(x[i : i + 1, :, :n], params, backend=impl)[0])
        assert not batched[i, :, n:].any()


@each_impl
def test_autograd_sees_the_reference(impl: str) -> None:
    params = CASES["odd"]()
    x = torch.randn(1, channels(params), 8, requires_grad=True)
    seanet_block(x, params, backend=impl).sum().backward()
    assert torch.equal(x.grad, torch.autograd.grad(seanet_block_ref(x, params).sum(), x)[0])


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
    params = CASES["odd"]()
    with pytest.raises(ShapeError, match="x: expected"):
        seanet_block(torch.randn(1, 5, 8), params, backend=impl)
    with pytest.raises(ShapeError, match="conv1: kernel"):
        replace(params, conv1=replace(params.conv1, padding=(1, 0)))
    with pytest.raises(ShapeError, match="conv2: weight"):
        replace(params, conv2=conv(5, 27, 1, (0, 0)))
    with pytest.raises(ShapeError, match="shortcut: weight"):
        replace(params, shortcut=Conv1dParams(torch.randn(27, 4, 1), None))
    params = CASES["normed-odd"]()
    with pytest.raises(ArgumentError, match="norms: expected one for each of conv1, conv2, shortcut or none"):
        replace(params, norm2=None)
    with pytest.raises(ArgumentError, match="norms"):
        replace(params, shortcut=None)
    with pytest.raises(ShapeError, match="norm1: weight"):
        replace(params, norm1=params.norm2)


@each_impl
@pytest.mark.parametrize("name", STREAMED)
def test_chunks_equal_one_call(name: str, impl: str) -> None:
    params = CASES[name]()
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
@pytest.mark.parametrize("name", ["causal", "dilated-split", "odd", "identity-shortcut", "normed", "normed-odd"])
def test_threads_batch_and_position_do_not_change_a_bit(name: str) -> None:
    params = CASES[name]()
    x = torch.randn(1, channels(params), 2777)
    results = [seanet_block(stacked, params, backend="cpp")[i] for stacked, i in batches_with(x)]
    assert all(torch.equal(results[0], other) for other in results[1:])


@pytest.mark.native
def test_fake_tensors_have_the_real_shapes() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    params = CASES["odd"]()
    impl = OPS["seanet_block"].impls["cpp"]
    packed = impl.pack(params)
    real = seanet_block(torch.randn(2, 27, 9), params, backend="cpp")
    with FakeTensorMode(allow_non_fake_inputs=True):
        fake = impl.run(torch.empty(2, 27, 9), packed)
    assert (fake.shape, fake.stride(), fake.dtype) == (real.shape, real.stride(), real.dtype)


@pytest.mark.native
def test_the_kernel_says_what_it_cannot_do() -> None:
    params = CASES["odd"]()
    x = torch.randn(1, 27, 9)
    with pytest.raises(BackendError, match="kernel of 1"):
        seanet_block(x, replace(params, conv2=conv(13, 27, 3, (1, 1))), backend="cpp")
    with pytest.raises(BackendError, match="no activation but"):
        seanet_block(x, replace(params, conv2=replace(params.conv2, post=elu())), backend="cpp")
    params = CASES["normed-odd"]()
    assert params.norm1 is not None
    with pytest.raises(BackendError, match="no activation in its norms"):
        seanet_block(x, replace(params, norm1=replace(params.norm1, act=elu())), backend="cpp")
    stream = OPS["seanet_block"].impls["cpp"].stream
    assert stream is not None
    with pytest.raises(BackendError, match="whole signal"):
        stream(params, OPS["seanet_block"].impls["cpp"].pack(params))


@each_impl
def test_a_large_mean_does_not_spoil_the_norms(impl: str) -> None:
    params = CASES["normed"]()
    assert params.conv1.bias is not None
    params.conv1.bias[:] = 300.0
    x = torch.randn(1, 32, 4000)
    y = seanet_block(x, params, backend=impl)
    assert relative_l2(y, seanet_block_ref(x.double(), double(params))) < 1e-4


BF16 = [
    "causal",
    "split",
    "odd",
    "narrow",
    "dilated-split",
    "identity-shortcut",
    "no-bias",
    "leaky",
    "normed",
    "normed-odd",
    "normed-identity",
    "normed-wide",
]


def half(params: SeanetBlockParams) -> SeanetBlockParams:
    rounded: SeanetBlockParams = cast(params, torch.bfloat16)
    return rounded


@each_impl
@pytest.mark.parametrize("name", BF16)
def test_bfloat16_is_as_close_as_torchs_own(name: str, impl: str, nan_poison: None) -> None:
    params = half(CASES[name]())
    for steps in (1, 3, 31, 257):
        x = torch.randn(2, channels(params), steps).to(torch.bfloat16)
        y = seanet_block(x, params, backend=impl)
        assert y.dtype is torch.bfloat16
        meant = seanet_block_ref(x.double(), double(params))
        usual = relative_l2(seanet_block_ref(x, params), meant)
        assert relative_l2(y, meant) < max(1.5 * usual, 6e-3), steps


@pytest.mark.native
@pytest.mark.parametrize("name", BF16)
def test_bfloat16_threads_batch_layout_and_chunks_do_not_change_a_bit(name: str) -> None:
    params = half(CASES[name]())
    x = torch.randn(1, channels(params), 1777).to(torch.bfloat16)
    results = [
        seanet_block(view, params, backend="cpp")[i]
        for stacked, i in batches_with(x, ((1, 1, 0), (2, 1, 0), (3, 2, 1), (2, 4, 3)))
        for view in strided(stacked).values()
    ]
    stream = OPS["seanet_block"].impls["cpp"].stream
    assert stream is not None
    if not params.norms():
        state = stream(params, OPS["seanet_block"].impls["cpp"].pack(params))
        results.append(torch.cat([state.step(x[:, :, :500], False), state.step(x[:, :, 500:], True)], 2)[0])
    assert all(torch.equal(results[0], other) for other in results[1:])
