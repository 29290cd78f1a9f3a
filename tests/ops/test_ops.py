"""Every implementation of every op against its meaning in float64, in odd sizes and layouts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from op_cases import CONV1D, DEPTHWISE, MRF, NARROW_MRF, SNAKE_AA, UPSAMPLE, channels, double, strided

from fastvoc.errors import ArgumentError, DeviceError, DtypeError, ShapeError
from fastvoc.ops.conv1d import conv1d, conv1d_ref
from fastvoc.ops.depthwise import depthwise, depthwise_ref
from fastvoc.ops.mrf import mrf, mrf_ref
from fastvoc.ops.snake_aa import snake_aa, snake_aa_ref
from fastvoc.ops.upsample import upsample, upsample_ref
from helpers import batches_with, implementations, relative_l2

FUNCTIONS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "conv1d": (conv1d, conv1d_ref),
    "upsample": (upsample, upsample_ref),
    "mrf": (mrf, mrf_ref),
    "snake_aa": (snake_aa, snake_aa_ref),
    "depthwise": (depthwise, depthwise_ref),
}
TABLES: dict[str, dict[str, Callable[[], Any]]] = {
    "conv1d": CONV1D,
    "upsample": UPSAMPLE,
    "mrf": MRF | NARROW_MRF,
    "snake_aa": SNAKE_AA,
    "depthwise": DEPTHWISE,
}
CASES = [
    pytest.param(op, make, impl.values[0], marks=impl.marks, id=f"{op}-{name}-{impl.values[0]}")
    for op, table in TABLES.items()
    for name, make in table.items()
    for impl in implementations(op)
]
each_case = pytest.mark.parametrize(("op", "make", "impl"), CASES)
LENGTHS = (1, 2, 3, 7, 13, 31, 64, 100, 257, 1000)


def _shortest(op: str, params: Any) -> int:
    """Steps that the case needs at least: a whole kernel, and what reflect padding reads."""
    need = 1
    while op == "conv1d" and params.output_length(need) < 1:
        need += 1
    if getattr(params, "pad_mode", "zeros") != "reflect":
        return need
    pads = params.padding if op == "conv1d" else [conv.padding for conv in params.convs()]
    return max(need, max(pads) + 1)


@each_case
def test_equals_the_meaning(op: str, make: Callable[[], Any], impl: str, nan_poison: None) -> None:
    run, ref = FUNCTIONS[op]
    params = make()
    for steps in (n for n in LENGTHS if n >= _shortest(op, params)):
        x = torch.randn(2, channels(params), steps)
        y = run(x, params, backend=impl)
        expected = ref(x.double(), double(params))
        assert y.shape == expected.shape
        assert relative_l2(y, expected) < 2e-6, steps


@each_case
def test_layout_of_the_input_does_not_matter(op: str, make: Callable[[], Any], impl: str) -> None:
    run, _ = FUNCTIONS[op]
    params = make()
    x = torch.randn(2, channels(params), 53)
    results = {name: run(view, params, backend=impl) for name, view in strided(x).items()}
    results["expanded"] = run(x[:1].expand(2, -1, -1), params, backend=impl)
    for name, y in results.items():
        if impl == "cpp":
            assert torch.equal(y[0], results["channel-major"][0]), name
        else:
            torch.testing.assert_close(y[0], results["channel-major"][0], rtol=1e-5, atol=1e-5)


@each_case
def test_ragged_batch_equals_single_items(op: str, make: Callable[[], Any], impl: str, nan_poison: None) -> None:
    run, _ = FUNCTIONS[op]
    params = make()
    lengths = torch.tensor([50, 17, 61])
    x = torch.full((3, channels(params), 61), torch.nan)
    for i, n in enumerate(lengths.tolist()):
        x[i, :, :n] = torch.randn(channels(params), n)
    batched = run(x, params, lengths=lengths, backend=impl)
    for i, n in enumerate(lengths.tolist()):
        alone = run(x[i : i + 1, :, :n], params, backend=impl)[0]
        assert torch.equal(batched[i, :, : alone.shape[1]], alone)
        assert not batched[i, :, alone.shape[1] :].any()


@each_case
def test_autograd_sees_the_reference(op: str, make: Callable[[], Any], impl: str) -> None:
    run, ref = FUNCTIONS[op]
    params = make()
    x = torch.randn(1, channels(params), 40, requires_grad=True)
    run(x, params, backend=impl).sum().backward()
    expected = torch.autograd.grad(ref(x, params).sum(), x)[0]
    assert torch.equal(x.grad, expected)


@pytest.mark.native
@pytest.mark.parametrize(
    ("op", "make"),
    [
        ("conv1d", CONV1D["dilated"]),
        ("conv1d", CONV1D["wide"]),
        ("upsample", UPSAMPLE["k11-s5"]),
        ("mrf", MRF["v1"]),
        ("mrf", MRF["snake-causal"]),
        ("snake_aa", SNAKE_AA["blocks"]),
        ("depthwise", DEPTHWISE["snake-odd"]),
    ],
)
def test_threads_batch_and_position_do_not_change_a_bit(op: str, make: Callable[[], Any]) -> None:
    run, _ = FUNCTIONS[op]
    params = make()
    x = torch.randn(1, channels(params), 777)
    results = [run(stacked, params, backend="cpp")[i] for stacked, i in batches_with(x)]
    assert all(torch.equal(results[0], other) for other in results[1:])


@pytest.mark.native
@pytest.mark.parametrize(
    ("op", "make"),
    [
        ("conv1d", CONV1D["pre-mel"]),
        ("upsample", UPSAMPLE["k16-s8"]),
        ("mrf", MRF["v3"]),
        ("snake_aa", SNAKE_AA["odd"]),
        ("depthwise", DEPTHWISE["odd"]),
    ],
)
def test_fake_tensors_have_the_real_shapes(op: str, make: Callable[[], Any]) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    from fastvoc.runtime.registry import OPS

    run, _ = FUNCTIONS[op]
    params = make()
    impl = OPS[op].impls["cpp"]
    packed = impl.pack(params)
    real = run(torch.randn(2, channels(params), 29), params, backend="cpp")
    with FakeTensorMode(allow_non_fake_inputs=True):
        fake = impl.run(torch.empty(2, channels(params), 29), packed)
    assert fake.shape == real.shape
    assert fake.stride() == real.stride()
    assert fake.dtype == real.dtype


@each_case
def test_wrong_arguments_are_named(op: str, make: Callable[[], Any], impl: str) -> None:
    run, _ = FUNCTIONS[op]
    params = make()
    count = channels(params)
    x = torch.randn(2, count, 40)
    wrong: list[tuple[type[Exception], str, Any, Any]] = [
        (ShapeError, "x: expected", x[0], None),
        (ShapeError, "x: expected", torch.randn(2, count + 1, 40), None),
        (ShapeError, "x: expected", x[:, :, :0], None),
        (ShapeError, "x: expected", x[:0], None),
        (DtypeError, "x: expected", x.double(), None),
        (DtypeError, "x: expected", x.long(), None),
        (DtypeError, "x: expected", x.numpy(), None),
        (DeviceError, "x: expected", x.to("meta"), None),
        (ShapeError, "lengths: expected", x, torch.tensor([40])),
        (DtypeError, "lengths: expected", x, torch.tensor([40.0, 40.0])),
        (ArgumentError, "lengths: expected", x, torch.tensor([40, 41])),
        (ArgumentError, "lengths: expected", x, torch.tensor([0, 40])),
    ]
    for error, text, bad, lengths in wrong:
        with pytest.raises(error, match=text):
            run(bad, params, lengths=lengths, backend=impl)


def test_wrong_parameters_are_named() -> None:
    from op_cases import conv1d_params, mrf_params

    from fastvoc.ops.conv1d import Conv1dParams
    from fastvoc.ops.depthwise import DepthwiseParams
    from fastvoc.ops.mrf import MrfConv, MrfParams
    from fastvoc.ops.snake_aa import SnakeAaParams
    from fastvoc.ops.upsample import UpsampleParams

    with pytest.raises(ArgumentError, match="pad_mode"):
        Conv1dParams(torch.randn(2, 2, 3), None, pad_mode="circular")
    with pytest.raises(ArgumentError, match="stride"):
        conv1d_params(stride=0)
    with pytest.raises(ArgumentError, match="stride"):
        UpsampleParams(torch.randn(2, 2, 2), None, 0)
    with pytest.raises(ShapeError, match="K odd"):
        DepthwiseParams(torch.randn(4, 1, 6), None)
    with pytest.raises(ShapeError, match="C, 1, K"):
        DepthwiseParams(torch.randn(4, 4, 7), None)
    with pytest.raises(ArgumentError, match="dilation"):
        DepthwiseParams(torch.randn(4, 1, 7), None, 0)
    with pytest.raises(ShapeError, match="keep the length"):
        mrf_params(4, (4,), ((1,),), 1)
    with pytest.raises(ShapeError, match="alpha, inverse"):
        SnakeAaParams(torch.ones(3), torch.ones(4))
    with pytest.raises(ShapeError, match="taps"):
        SnakeAaParams(torch.ones(3), torch.ones(3), torch.ones(11))
    with pytest.raises(ArgumentError, match="blocks"):
        MrfParams((), mrf_params(4, (3,), ((1,),), 1).act)
    with pytest.raises(ShapeError, match="weight"):
        MrfParams((((MrfConv(torch.randn(4, 5, 3), None, 1),),),), mrf_params(4, (3,), ((1,),), 1).act)


@pytest.mark.parametrize("impl", implementations("conv1d"))
def test_residual(impl: str) -> None:
    params = CONV1D["reflect"]()
    x = torch.randn(2, channels(params), 41)
    residual = torch.randn(2, 41, 20).transpose(1, 2)
    y = conv1d(x, params, residual, backend=impl)
    torch.testing.assert_close(
        y, conv1d_ref(x.double(), double(params), residual.double()).float(), rtol=1e-5, atol=1e-5
    )
    with pytest.raises(ShapeError, match="residual"):
        conv1d(x, params, residual[:, :, 1:], backend=impl)
