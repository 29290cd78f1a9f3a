"""The CUDA lstm, compiled as plain C++ with all its blocks running at the same time, against its meaning in float64."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from cuda_emulation import DTYPES, RUN, set_device
from torch import Tensor

from fastvoc.ops.lstm import OP, LstmParams, LstmStream, lstm_ref
from fastvoc.runtime import library
from fastvoc.runtime.registry import Spec

SPEC = Spec("cuda", torch.bfloat16, None)
ROUNDING = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


def make(inputs: int, hidden: int, layers: int = 1, skip: bool = False, both: bool = False) -> LstmParams:
    rows, entries = inputs, []
    for _ in range(layers):
        for _ in range(2 if both else 1):
            shapes = ((4 * hidden, rows), (4 * hidden, hidden), (4 * hidden,), (4 * hidden,))
            entries.append(tuple((torch.rand(s) * 2 - 1) / hidden**0.5 for s in shapes))
        rows = hidden * (2 if both else 1)
    return LstmParams(tuple(entries), skip, both)  # type: ignore[arg-type]


def cast(params: LstmParams, dtype: torch.dtype) -> LstmParams:
    layers = tuple(tuple(t.to(dtype) for t in layer) for layer in params.layers)
    return LstmParams(layers, params.skip, params.bidirectional)  # type: ignore[arg-type]


PARAMS = {
    "encodec-like": make(24, 24, 2, skip=True),
    "one-unit": make(3, 1),
    "odd": make(5, 19, 3),
    "both-ways": make(7, 10, 2, both=True),
    "both-ways-skip": make(12, 6, 1, skip=True, both=True),
}
each_case = pytest.mark.parametrize("params", PARAMS.values(), ids=PARAMS.keys())


@pytest.fixture(autouse=True)
def multiprocessors() -> None:
    set_device()


def run(x: Tensor, params: LstmParams, *args: Tensor | None) -> Tensor:
    return RUN["lstm"](x, OP.impls["cuda"].pack(params), *args)


@each_case
def test_ragged_batch_equals_single_items(params: LstmParams) -> None:
    lengths = torch.tensor([3, 8, 1, 5, 8, 2, 8, 4, 7, 6])  # more items than one group has
    x = torch.full((10, params.inputs, 8), torch.nan)
    for i, n in enumerate(lengths.tolist()):
        x[i, :, :n] = torch.randn(params.inputs, n)
    y = run(x, params, lengths)
    for i, n in enumerate(lengths.tolist()):
        assert torch.equal(run(x[i : i + 1, :, :n], params)[0], y[i, :, :n])
        assert not y[i, :, n:].any()


def test_device_does_not_matter() -> None:
    params = PARAMS["odd"]
    x = torch.randn(9, params.inputs, 4)
    first = run(x, params)
    for count in (1, 19):
        set_device(multiprocessors=count)
        assert torch.equal(run(x, params), first), count


def test_a_process_with_a_share_of_the_device_runs_fewer_blocks_at_once() -> None:
    params = PARAMS["odd"]
    x = torch.randn(9, params.inputs, 4)
    set_device(multiprocessors=19)
    first = run(x, params)
    for granted in (10, 1):
        set_device(multiprocessors=19, granted=granted)
        assert torch.equal(run(x, params), first), granted
    set_device(multiprocessors=19, granted=0)
    with pytest.raises(RuntimeError, match="19 units are too many for this device"):
        run(x, params)


def test_state_goes_on_where_it_was() -> None:
    params = PARAMS["odd"]
    x = torch.randn(2, params.inputs, 13)
    whole = run(x, params)
    h, c = params.zero_state(2)
    parts = [run(x[:, :, a:b], params, None, h, c) for a, b in ((0, 4), (4, 5), (5, 13))]
    assert torch.equal(torch.cat(parts, 2), whole)
    h_ref, c_ref = params.zero_state(2)
    lstm_ref(x, params, None, h_ref, c_ref)
    torch.testing.assert_close(h, h_ref, rtol=0, atol=1e-6)
    torch.testing.assert_close(c, c_ref, rtol=0, atol=1e-6)


def test_it_is_the_default_where_the_library_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's reads lengths on the host: no CUDA graph can have it."""
    params = PARAMS["encodec-like"]
    monkeypatch.setattr(library, "cuda_problem", lambda: None)
    for dtype in DTYPES:
        assert OP.select(replace(SPEC, dtype=dtype, params=params)).name == "cuda"
    assert OP.select(replace(SPEC, dtype=torch.float64, params=params)).name == "torch"
    monkeypatch.setattr(library, "cuda_problem", lambda: "not built")
    assert OP.select(replace(SPEC, params=params)).name == "torch"


def test_the_default_has_a_stream() -> None:
    """The state of one without it could not be kept between chunks."""
    params = PARAMS["encodec-like"]
    impl = OP.impls["cuda"]
    assert impl.stream is not None
    assert isinstance(impl.stream(params, impl.pack(params)), LstmStream)


@pytest.mark.parametrize(("hidden", "takes"), [(512, True), (1024, True), (8192, False)])
def test_too_many_units_are_refused_before_a_launch(hidden: int, takes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    device = SimpleNamespace(
        shared_memory_per_block=48 * 1024, shared_memory_per_block_optin=227 * 1024, multi_processor_count=132
    )
    monkeypatch.setattr(library, "cuda_problem", lambda: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: device)
    reason = OP.impls["cuda"].supports(replace(SPEC, params=SimpleNamespace(hidden=hidden)))
    assert (reason is None) == takes
    assert takes or "8192 units are too many" in str(reason)
