"""Every implementation of every op against its meaning in float64, in odd sizes, layouts and batches."""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytest
import torch
from op_cases import CONV1D, cast, channels, conv1d_params, double, mrf_params
from op_contract import CASES, Case, layouts
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from fastvoc.errors import ArgumentError, BackendError, DeviceError, DtypeError, ShapeError
from fastvoc.ops.conv1d import Conv1dParams, conv1d, conv1d_ref
from fastvoc.ops.depthwise import DepthwiseParams
from fastvoc.ops.mrf_params import MrfConv, MrfParams
from fastvoc.ops.snake_aa import SnakeAaParams
from fastvoc.ops.upsample import UpsampleParams
from fastvoc.runtime import library as _library
from fastvoc.runtime.registry import OPS, Spec
from helpers import implementations, relative_l2, run_under

REFUSED = (("istft_head-prime", "cpp"),)
each_case = pytest.mark.parametrize(
    ("case", "impl"),
    [
        pytest.param(case, impl.values[0], marks=impl.marks, id=f"{name}-{impl.values[0]}")
        for name, case in CASES.items()
        for impl in implementations(case.op.name)
        if (name, impl.values[0]) not in REFUSED
    ],
)
ONE = {case.op.name: case for case in reversed(CASES.values())}  # the first of each op
each_op = pytest.mark.parametrize("case", ONE.values(), ids=ONE)
ALREADY = ("conv1d", "upsample", "mrf")  # test_conv_bf16.py has those in bfloat16
HALVES = {
    name: case
    for name, case in CASES.items()
    if case.op.name not in ALREADY
    and OPS[case.op.name].impls["cpp"].supports(Spec("cpu", torch.bfloat16, cast(case.make(), torch.bfloat16))) is None
}
each_half = pytest.mark.parametrize("case", HALVES.values(), ids=HALVES)
LAID_OUT = ("conv2d", "adain")  # whose inputs are seen in another shape or dtype first
# Threads, items of a batch, and the place of the one that is looked at.
PLACES = ((1, 1, 0), (3, 1, 0), (4, 3, 1), (2, 9, 8), (5, 7, 0))


def assert_same(y: Tensor, expected: Tensor, impl: str) -> None:
    """The same bits by C++, which knows no order but its own; torch's may depend on strides."""
    if impl == "cpp" or not y.is_floating_point():
        assert torch.equal(y, expected)
    else:
        torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)


@each_case
def test_equals_the_meaning(case: Case, impl: str, nan_poison: None) -> None:
    params = case.make()
    least = case.least(params)
    for batch, steps in (shape for shape in case.shapes if shape[1] >= least):
        inputs = case.inputs(params, batch, steps)
        y, expected = case(params, inputs, impl), case.meaning(params, inputs)
        assert y.shape == expected.shape
        assert relative_l2(y, expected) <= case.close or torch.equal(y, expected), (batch, steps)


@pytest.mark.native
@each_half
def test_bfloat16_is_as_close_as_torchs_own(case: Case, nan_poison: None) -> None:
    params = cast(case.make(), torch.bfloat16)
    least = case.least(cast(params, torch.float32))
    for batch, steps in (shape for shape in case.shapes if shape[1] >= least):
        inputs = cast(case.inputs(params, batch, steps), torch.bfloat16)
        y, meant = case(params, inputs, "cpp"), case.meaning(params, inputs)
        assert y.dtype == inputs[0].dtype
        usual = relative_l2(case(params, inputs, "torch"), meant)
        assert relative_l2(y, meant) < max(1.5 * usual, 6e-3), (batch, steps)


@each_case
def test_layout_of_the_inputs_does_not_matter(case: Case, impl: str) -> None:
    params = case.make()
    inputs = case.inputs(params, 2, max(37, case.least(params)))
    expected = case(params, inputs, impl)
    for i, t in enumerate(inputs):
        for view in layouts(t) if isinstance(t, Tensor) else ():
            assert_same(case(params, (*inputs[:i], view, *inputs[i + 1 :]), impl), expected, impl)
    expanded = tuple(t[:1].expand(2, *t.shape[1:]) if isinstance(t, Tensor) else t for t in inputs)
    expanded = tuple(t.contiguous() if isinstance(t, Tensor) and t.dim() < 3 else t for t in expanded)
    assert_same(case(params, expanded, impl)[0], expected[0], impl)


@each_case
def test_ragged_batch_equals_single_items(case: Case, impl: str, nan_poison: None) -> None:
    params = case.make()
    least = case.least(params)
    items = [case.inputs(params, 1, n) for n in (least + 30, least, least + 11, least + 41, least + 41)]
    lengths = torch.tensor([item[0].shape[2] for item in items])
    batched = case(params, case.batch(params, items, least + 41), impl, lengths)
    for y, item in zip(batched, items, strict=True):
        alone = case(params, item, impl)[0]
        assert_same(y[:, : alone.shape[1]], alone, impl)
        assert not y[:, alone.shape[1] :].any()


def among_others(case: Case, params: Any, dtype: torch.dtype) -> list[Tensor]:
    """What an item gives in batches of others of any lengths, by any number of threads."""
    least = case.least(cast(params, torch.float32))
    item, results = cast(case.inputs(params, 1, case.long), dtype), []
    before = torch.get_num_threads()
    for threads, count, place in PLACES:
        torch.set_num_threads(threads)
        steps = [case.long if i == place else int(torch.randint(least, case.long + 1, ())) for i in range(count)]
        items = [item if i == place else cast(case.inputs(params, 1, n), dtype) for i, n in enumerate(steps)]
        batch = cast(case.batch(params, items, case.long), dtype)
        results.append(case(params, batch, "cpp", torch.tensor([item[0].shape[2] for item in items]))[place])
    torch.set_num_threads(before)
    return results


@pytest.mark.native
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_threads_batch_and_position_do_not_change_a_bit(case: Case) -> None:
    params = case.make()
    if case.op.impls["cpp"].supports(Spec("cpu", torch.float32, params)) is None:
        first, *others = among_others(case, params, torch.float32)
        assert all(torch.equal(first, other) for other in others)


@pytest.mark.native
@each_half
def test_bfloat16_threads_batch_layout_and_chunks_do_not_change_a_bit(case: Case) -> None:
    params, chosen = cast(case.make(), torch.bfloat16), case.op.impls["cpp"]
    first, *others = among_others(case, params, torch.bfloat16)
    assert all(torch.equal(first, other) for other in others)
    inputs = cast(case.inputs(params, 2, 31), torch.bfloat16)
    expected = case(params, inputs, "cpp")
    for view in layouts(inputs[0]):
        assert torch.equal(case(params, (view, *inputs[1:]), "cpp"), expected)
    x, *more = inputs
    if chosen.stream is None or any(t is not None and t.dim() > 1 for t in more):
        return
    try:
        stream = chosen.stream(params, chosen.packed(params, True))
    except BackendError:  # which needs the whole signal
        return
    parts = [stream.step(x[:, :, :17], False, *more), stream.step(x[:, :, 17:], True, *more)]
    assert torch.equal(torch.cat(parts, 2), expected)


@each_case
def test_autograd_sees_the_reference(case: Case, impl: str) -> None:
    params = case.make()
    inputs = case.inputs(params, 2, max(9, case.least(params)))
    watched = [t.requires_grad_() for t in inputs if isinstance(t, Tensor) and t.is_floating_point()]
    y, expected = case(params, inputs, impl), case.op.reference(inputs[0], params, *inputs[1:])
    assert y.requires_grad == expected.requires_grad
    if y.requires_grad:
        made, wanted = (torch.autograd.grad(t.square().sum(), watched, allow_unused=True) for t in (y, expected))
        assert all(a is b or torch.equal(a, b) for a, b in zip(made, wanted, strict=True))


@pytest.mark.native
@each_op
def test_fake_tensors_have_the_real_shapes(case: Case) -> None:
    params, impl = case.make(), case.op.impls["cpp"]
    inputs = case.inputs(params, 2, max(29, case.least(params)))
    packed, real = impl.pack(params), case(params, inputs, "cpp")
    with FakeTensorMode(allow_non_fake_inputs=True):
        x, *more = (torch.empty_like(t) if isinstance(t, Tensor) else t for t in inputs)
        fake = impl.run(x, packed, *more)
    assert (fake.shape, fake.stride(), fake.dtype) == (real.shape, real.stride(), real.dtype)


@pytest.mark.native
@pytest.mark.filterwarnings("ignore:.*Profiler clears events")  # of torch 2.11
@each_op
def test_calls_no_torch_compute_op(case: Case) -> None:
    params, impl = case.make(), case.op.impls["cpp"]
    packed, (x, *more) = impl.pack(params), case.inputs(params, 2, max(29, case.least(params)))
    impl.run(x, packed, *more)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        impl.run(x, packed, *more)
    called = {event.name for event in profile.events() if event.name.startswith("aten::")}
    views = (
        {"permute", "flatten", "reshape", "view", "_unsafe_view", "to"} if case.op.name in ("conv2d", "adain") else {}
    )
    assert called <= {f"aten::{name}" for name in ("empty", "transpose", "as_strided", *views)}


# Of a ragged batch in float32, and of whole ones in bfloat16 where that is computed, the worst error.
SCRIPT = """
import torch
from op_cases import cast
from op_contract import CASES
from fastvoc.runtime.registry import Spec
torch.set_grad_enabled(False)

def whole(name, y):  # angles of nearly nothing say nothing
    if name != "stft-polar":
        return y.double()
    magnitude, angle = y.double().chunk(2, 1)
    return torch.cat([magnitude * angle.cos(), magnitude * angle.sin()], 1)

for name, case in CASES.items():
    params, supports = case.make(), case.op.impls["cpp"].supports
    least = case.least(params)
    for dtype, close in ((torch.float32, case.close), (torch.bfloat16, 1e-2)):
        params = cast(params, dtype)
        if supports(Spec("cpu", dtype, params)) is not None:
            continue
        items = [cast(case.inputs(params, 1, least + n), dtype) for n in (41, 7, 60, 0, 33)]
        batch, lengths = cast(case.batch(params, items, least + 60), dtype), [item[0].shape[2] for item in items]
        ours, meant = (whole(name, case(params, batch, impl, torch.tensor(lengths))) for impl in ("cpp", "torch"))
        error = ((ours - meant).norm() / meant.norm()).item()
        assert error <= (10 if name == "snake_aa-fast" else 2) * close, (name, dtype, error)
"""


@pytest.mark.native
@pytest.mark.parametrize("isa", _library.ISAS)
def test_every_instruction_set_agrees(isa: str) -> None:
    run_under(isa, SCRIPT)


@each_op
def test_wrong_arguments_are_named(case: Case) -> None:
    params = case.make()
    x, *more = case.inputs(params, 2, 40)
    steps = x.shape[2]
    wrong: list[tuple[type[Exception], Any, Any]] = [
        (ShapeError, x[0], None),
        (ShapeError, torch.cat([x, x], 1), None),
        (ShapeError, x[:, :, :0], None),
        (ShapeError, x[:0], None),
        (DtypeError, x.double(), None),
        (DtypeError, x.int(), None),
        (DtypeError, x.numpy(), None),
        (DeviceError, x.to("meta"), None),
        (ShapeError, x, torch.tensor([steps])),
        (DtypeError, x, torch.tensor([steps, steps]).float()),
        (ArgumentError, x, torch.tensor([steps, steps + 1])),
        (ArgumentError, x, torch.tensor([0, steps])),
    ]
    for impl, (error, bad, lengths) in chain.from_iterable(([(n, w) for w in wrong]) for n in case.op.impls):
        argument = "lengths" if lengths is not None else "(x|f0|codes|kernels)"
        with pytest.raises(error, match=f": {argument}: expected"):
            case(params, (bad, *more), impl, lengths)


def test_wrong_parameters_are_named() -> None:
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
