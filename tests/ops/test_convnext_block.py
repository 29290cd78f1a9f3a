"""layer_norm and convnext_block against their meaning in float64, plain and adaptive, in odd sizes and layouts."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from op_cases import block_params, cast, double, norm_params, strided
from torch import Tensor

from fastvoc.errors import ArgumentError, DeviceError, DtypeError, ShapeError
from fastvoc.ops.convnext_block import convnext_block, convnext_block_ref
from fastvoc.ops.layer_norm import LayerNormParams, layer_norm, layer_norm_ref
from fastvoc.runtime import library as _library
from fastvoc.runtime.registry import OPS
from helpers import batches_with, implementations, relative_l2, run_under

LENGTHS = (1, 2, 3, 7, 13, 31, 64, 100, 257)


CASES: dict[str, tuple[str, Callable[[], Any]]] = {
    "norm-64": ("layer_norm", lambda: norm_params(64)),
    "norm-odd": ("layer_norm", lambda: norm_params(37)),
    "norm-narrow": ("layer_norm", lambda: norm_params(3)),
    "norm-adaptive": ("layer_norm", lambda: norm_params(20, 4)),
    "norm-one-row": ("layer_norm", lambda: norm_params(16, 1)),
    "block-64": ("convnext_block", lambda: block_params(64, 192)),
    "block-odd": ("convnext_block", lambda: block_params(37, 101, 3)),
    "block-narrow": ("convnext_block", lambda: block_params(1, 5)),
    "block-adaptive": ("convnext_block", lambda: block_params(48, 144, rows=4)),
    "block-chunks": ("convnext_block", lambda: block_params(24, 1037, rows=2)),
    "block-kernel-1": ("convnext_block", lambda: block_params(18, 30, 1)),
    "block-kernel-11": ("convnext_block", lambda: block_params(18, 30, 11)),
    "block-no-gamma": ("convnext_block", lambda: replace(block_params(16, 64), gamma=None)),
}
FUNCTIONS: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "layer_norm": (layer_norm, layer_norm_ref),
    "convnext_block": (convnext_block, convnext_block_ref),
}
each_case = pytest.mark.parametrize(
    ("op", "make", "impl"),
    [
        pytest.param(op, make, impl.values[0], marks=impl.marks, id=f"{name}-{impl.values[0]}")
        for name, (op, make) in CASES.items()
        for impl in implementations(op)
    ],
)
each_impl = pytest.mark.parametrize("impl", implementations("layer_norm"))


def norm_of(params: Any) -> LayerNormParams:
    norm: LayerNormParams = params if isinstance(params, LayerNormParams) else params.norm
    return norm


def channels(params: Any) -> int:
    return int(norm_of(params).weight.shape[-1])


def some_rows(params: Any, batch: int) -> Tensor | None:
    """A row of an adaptive norm for each item, the last one first."""
    rows = norm_of(params).rows
    return None if rows is None else torch.arange(batch - 1, -1, -1) % rows


@each_case
def test_equals_the_meaning(op: str, make: Callable[[], Any], impl: str, nan_poison: None) -> None:
    run, ref = FUNCTIONS[op]
    params = make()
    row = some_rows(params, 3)
    for steps in LENGTHS:
        x = torch.randn(3, channels(params), steps)
        y = run(x, params, row, backend=impl)
        assert y.shape == x.shape
        assert relative_l2(y, ref(x.double(), double(params), row)) < 1e-6, steps


@each_case
def test_layout_of_the_input_does_not_matter(op: str, make: Callable[[], Any], impl: str) -> None:
    run, _ = FUNCTIONS[op]
    params = make()
    x = torch.randn(2, channels(params), 53)
    results = {name: run(view, params, some_rows(params, 2), backend=impl) for name, view in strided(x).items()}
    for name, y in results.items():
        if impl == "cpp":
            assert torch.equal(y, results["channel-major"]), name
        else:
            torch.testing.assert_close(y, results["channel-major"], rtol=1e-5, atol=1e-5)


@each_case
def test_ragged_batch_equals_single_items(op: str, make: Callable[[], Any], impl: str, nan_poison: None) -> None:
    run, _ = FUNCTIONS[op]
    params = make()
    lengths, row = torch.tensor([50, 17, 1, 61]), some_rows(params, 4)
    x = torch.full((4, channels(params), 61), torch.nan)
    for i, n in enumerate(lengths.tolist()):
        x[i, :, :n] = torch.randn(channels(params), n)
    batched = run(x, params, row, lengths, backend=impl)
    for i, n in enumerate(lengths.tolist()):
        alone = run(x[i : i + 1, :, :n], params, None if row is None else row[i : i + 1], backend=impl)[0]
        assert torch.equal(batched[i, :, :n], alone)
        assert not batched[i, :, n:].any()


@each_case
def test_autograd_sees_the_reference(op: str, make: Callable[[], Any], impl: str) -> None:
    run, ref = FUNCTIONS[op]
    params = make()
    row = some_rows(params, 2)
    x = torch.randn(2, channels(params), 40, requires_grad=True)
    run(x, params, row, backend=impl).square().sum().backward()
    assert torch.equal(x.grad, torch.autograd.grad(ref(x, params, row).square().sum(), x)[0])


@pytest.mark.native
@pytest.mark.parametrize("steps", [777, 33, 5, 1])
@pytest.mark.parametrize("name", ["norm-adaptive", "block-64", "block-adaptive", "block-chunks", "block-odd"])
def test_threads_batch_and_position_do_not_change_a_bit(name: str, steps: int) -> None:
    op, make = CASES[name]
    run, _ = FUNCTIONS[op]
    params = make()
    x = torch.randn(1, channels(params), steps)
    row = some_rows(params, 1)
    results = []
    for stacked, i in batches_with(x):
        rows = some_rows(params, len(stacked))
        if rows is not None and row is not None:
            rows[i] = row[0]
        results.append(run(stacked, params, rows, backend="cpp")[i])
    assert all(torch.equal(results[0], other) for other in results[1:])


@pytest.mark.native
@pytest.mark.parametrize("name", ["norm-odd", "block-adaptive"])
def test_fake_tensors_have_the_real_shapes(name: str) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    op, make = CASES[name]
    params = make()
    impl = OPS[op].impls["cpp"]
    packed, row = impl.pack(params), some_rows(params, 2)
    real = FUNCTIONS[op][0](torch.randn(2, channels(params), 29), params, row, backend="cpp")
    with FakeTensorMode(allow_non_fake_inputs=True):
        fake = impl.run(torch.empty(2, channels(params), 29), packed, row)
    assert (fake.shape, fake.stride(), fake.dtype) == (real.shape, real.stride(), real.dtype)


@pytest.mark.native
def test_nan_stays_in_its_receptive_field() -> None:
    params = block_params(24, 600)
    x = torch.randn(2, 24, 300)
    clean = convnext_block(x, params, backend="cpp")
    x[0, 3, 150] = torch.nan
    y = convnext_block(x, params, backend="cpp")
    touched = torch.zeros(300, dtype=torch.bool)
    touched[147:154] = True
    assert torch.equal(y[0].isnan().any(0), touched)
    assert torch.equal(y[0][:, ~touched], clean[0][:, ~touched])
    assert torch.equal(y[1], clean[1])


@each_impl
def test_the_norm_keeps_small_differences(impl: str) -> None:
    """A quiet signal whose variance is near eps, one of no variance, and one with a large mean."""
    params = norm_params(37)
    x = torch.randn(1, 37, 50) * 1e-3
    assert relative_l2(layer_norm(x, params, backend=impl), layer_norm_ref(x.double(), double(params))) < 1e-6
    flat = torch.full((1, 37, 5), 0.3)
    assert torch.allclose(layer_norm(flat, params, backend=impl)[0], params.bias[:, None].expand(-1, 5), atol=1e-3)
    lifted = torch.randn(1, 37, 50) + 100.0
    assert relative_l2(layer_norm(lifted, params, backend=impl), layer_norm_ref(lifted.double(), double(params))) < 1e-4


@each_case
def test_wrong_arguments_are_named(op: str, make: Callable[[], Any], impl: str) -> None:
    run, _ = FUNCTIONS[op]
    params = make()
    count, rows = channels(params), norm_of(params).rows
    x, row = torch.randn(2, count, 40), some_rows(params, 2)
    wrong: list[tuple[type[Exception], str, Any, Any, Any]] = [
        (ShapeError, "x: expected", x[0], row, None),
        (ShapeError, "x: expected", torch.randn(2, count + 1, 40), row, None),
        (ShapeError, "x: expected", x[:, :, :0], row, None),
        (DtypeError, "x: expected", x.double(), row, None),
        (DtypeError, "x: expected", x.numpy(), row, None),
        (DeviceError, "x: expected", x.to("meta"), row, None),
        (ShapeError, "lengths: expected", x, row, torch.tensor([40])),
        (ArgumentError, "lengths: expected", x, row, torch.tensor([40, 41])),
    ]
    if rows is None:
        wrong.append((ArgumentError, "row: expected None", x, torch.tensor([0, 0]), None))
    else:
        wrong += [
            (ArgumentError, f"row: expected one of {rows} rows", x, None, None),
            (ShapeError, r"row: expected \[2\]", x, torch.tensor([0]), None),
            (DtypeError, "row: expected torch.int64", x, torch.tensor([0.0, 0.0]), None),
            (
                DeviceError,
                "row: expected a tensor on the CPU",
                x,
                torch.zeros(2, dtype=torch.int64, device="meta"),
                None,
            ),
            (ArgumentError, f"row: expected values in 0..{rows - 1}, got 0..{rows}", x, torch.tensor([0, rows]), None),
            (ArgumentError, "row: expected values", x, torch.tensor([-1, 0]), None),
        ]
    for error, text, bad, index, lengths in wrong:
        with pytest.raises(error, match=text):
            run(bad, params, index, lengths, backend=impl)


def test_wrong_parameters_are_named() -> None:
    with pytest.raises(ShapeError, match="layer_norm: weight and bias"):
        LayerNormParams(torch.ones(4), torch.ones(5))
    with pytest.raises(ShapeError, match="layer_norm: weight and bias"):
        LayerNormParams(torch.ones(2, 2, 4), torch.ones(2, 2, 4))
    with pytest.raises(ArgumentError, match="eps"):
        LayerNormParams(torch.ones(4), torch.ones(4), 0.0)
    good = block_params(6, 12)
    for name in ("depthwise_weight", "depthwise_bias", "expand_weight", "project_weight", "project_bias", "gamma"):
        with pytest.raises(ShapeError, match=f"convnext_block: {name}: expected"):
            replace(good, **{name: torch.ones(7, 7)})
    with pytest.raises(ShapeError, match="odd kernel"):
        block_params(6, 12, 4)


BF16 = ["norm-odd", "norm-adaptive", "block-64", "block-odd", "block-narrow", "block-adaptive", "block-chunks"]
each_half = pytest.mark.parametrize("name", BF16)


def half(params: Any) -> Any:
    return cast(params, torch.bfloat16)


@each_impl
@each_half
def test_bfloat16_is_as_close_as_torchs_own(name: str, impl: str, nan_poison: None) -> None:
    op, make = CASES[name]
    run, ref = FUNCTIONS[op]
    params = half(make())
    row = some_rows(params, 3)
    for steps in LENGTHS:
        x = torch.randn(3, channels(params), steps).to(torch.bfloat16)
        y = run(x, params, row, backend=impl)
        assert y.dtype is torch.bfloat16
        meant = ref(x.double(), double(params), row)
        usual = relative_l2(ref(x, params, row), meant)
        assert relative_l2(y, meant) < max(1.2 * usual, 4e-3), steps


@pytest.mark.native
@each_half
def test_bfloat16_threads_batch_layout_and_chunks_do_not_change_a_bit(name: str) -> None:
    op, make = CASES[name]
    run, _ = FUNCTIONS[op]
    params = half(make())
    row = some_rows(params, 1)
    x = torch.randn(1, channels(params), 777).to(torch.bfloat16)
    before = torch.get_num_threads()
    results = []
    for threads, batch, position in ((1, 1, 0), (2, 1, 0), (3, 2, 1), (2, 4, 3)):
        torch.set_num_threads(threads)
        stacked = torch.full((batch, channels(params), 800), torch.nan, dtype=torch.bfloat16)
        stacked[:, :, :777] = x[0]
        lengths = torch.full((batch,), 777)
        rows = None if row is None else row.expand(batch).contiguous()
        for view in strided(stacked).values():
            y = run(view, params, rows, lengths, backend="cpp")[position]
            assert not y[:, 777:].any()
            results.append(y[:, :777])
    torch.set_num_threads(before)
    impl = OPS[op].impls["cpp"]
    assert impl.stream is not None
    state = impl.stream(params, impl.pack(params))
    results.append(torch.cat([state.step(x[:, :, :500], False, row), state.step(x[:, :, 500:], True, row)], 2)[0])
    assert all(torch.equal(results[0], other) for other in results[1:])


@pytest.mark.native
def test_bfloat16_keeps_nan_in_its_receptive_field() -> None:
    params = half(block_params(24, 600))
    x = torch.randn(1, 24, 300).to(torch.bfloat16)
    x[0, 3, 150] = torch.nan
    touched = torch.zeros(300, dtype=torch.bool)
    touched[147:154] = True
    assert torch.equal(convnext_block(x, params, backend="cpp")[0].isnan().all(0), touched)


SCRIPT = """
import json
import torch
from fastvoc.runtime import library as _library
from fastvoc.nn.convnext import ConvNextBlock
from fastvoc.nn.norm import LayerNorm

torch.manual_seed(3)
torch.set_grad_enabled(False)
errors = {}
lengths = torch.tensor([41, 7, 60, 1, 33])
for dtype in (torch.float32, torch.bfloat16):
    for channels, hidden in ((24, 72), (37, 601)):
        x = torch.randn(5, channels, 60).to(dtype)
        block = ConvNextBlock(channels, hidden).to(dtype)
        norm = LayerNorm(channels).to(dtype)
        for name, layer in (("block", block), ("norm", norm)):
            ours, meant = (layer(x, lengths=lengths, backend=backend).double() for backend in ("cpp", "torch"))
            errors[f"{dtype} {name} {channels}"] = ((ours - meant).norm() / meant.norm()).item()
print(json.dumps(errors))
"""


@pytest.mark.native
@pytest.mark.parametrize("isa", _library.ISAS)
def test_every_instruction_set_agrees(isa: str) -> None:
    errors = json.loads(run_under(isa, SCRIPT))
    assert len(errors) == 8
    for name, error in errors.items():
        assert error <= (8e-3 if "bfloat16" in name else 2e-6), name
