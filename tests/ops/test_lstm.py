"""lstm against its meaning in float64, its states, and what must not change a result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from op_cases import strided
from torch import Tensor

from fastvoc.errors import ArgumentError, BackendError, DtypeError, ShapeError
from fastvoc.nn.lstm import Lstm
from fastvoc.ops.lstm import OP, LstmParams, lstm_ref
from fastvoc.runtime.registry import OPS
from helpers import batches_with, implementations, relative_l2


def lstm_params(inputs: int, hidden: int, layers: int = 1, *, skip: bool = False, both: bool = False) -> LstmParams:
    rows = []
    width = inputs
    for _ in range(layers):
        rows += [
            (
                torch.randn(4 * hidden, width) / width**0.5,
                torch.randn(4 * hidden, hidden) / hidden**0.5,
                torch.randn(4 * hidden) * 0.3,
                torch.randn(4 * hidden) * 0.3,
            )
            for _ in range(2 if both else 1)
        ]
        width = hidden * (2 if both else 1)
    return LstmParams(tuple(rows), skip, both)


def lstm(
    x: Tensor,
    params: LstmParams,
    lengths: Tensor | None = None,
    state: tuple[Tensor, Tensor] | None = None,
    backend: str | None = None,
) -> Tensor:
    return OP(x, params, lengths, *(state or (None, None)), backend=backend)


CASES = {
    "one-layer": lambda: lstm_params(12, 20),
    "two-skip": lambda: lstm_params(24, 24, 2, skip=True),
    "one-channel": lambda: lstm_params(1, 1, 3, skip=True),
    "odd": lambda: lstm_params(37, 19, 2),
    "wide": lambda: lstm_params(64, 128, 2),
    "encodec": lambda: lstm_params(512, 512, 2, skip=True),
    "both-ways": lambda: lstm_params(18, 33, 1, both=True),
    "both-ways-two-skip": lambda: lstm_params(22, 11, 2, skip=True, both=True),
}
each_case = pytest.mark.parametrize("make", CASES.values(), ids=CASES)
each_impl = pytest.mark.parametrize("impl", implementations("lstm"))
STREAMS = [name for name in CASES if not name.startswith("both")]
each_stream = pytest.mark.parametrize("make", [CASES[name] for name in STREAMS], ids=STREAMS)


def double(params: LstmParams) -> LstmParams:
    return replace(params, layers=tuple(tuple(t.double() for t in layer) for layer in params.layers))


def half(params: LstmParams) -> LstmParams:
    return replace(params, layers=tuple(tuple(t.to(torch.bfloat16) for t in layer) for layer in params.layers))


def by_hand(x: Tensor, params: LstmParams) -> Tensor:
    """The recurrence, written out, for one direction."""
    y = x.transpose(1, 2)
    for w_ih, w_hh, b_ih, b_hh in params.layers:
        h = c = y.new_zeros(y.shape[0], w_hh.shape[1])
        rows = []
        for step in y.unbind(1):
            i, f, g, o = (step @ w_ih.t() + b_ih + h @ w_hh.t() + b_hh).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            rows.append(h)
        y = torch.stack(rows, 1)
    y = y.transpose(1, 2)
    return x + y if params.skip else y


@each_stream
def test_the_reference_is_the_recurrence(make: Callable[[], LstmParams]) -> None:
    params = double(make())
    x = torch.randn(2, params.inputs, 9).double()
    torch.testing.assert_close(lstm_ref(x, params), by_hand(x, params), rtol=1e-12, atol=1e-12)


@each_case
@each_impl
def test_equals_the_meaning(make: Callable[[], LstmParams], impl: str, nan_poison: None) -> None:
    params = make()
    for batch, steps in ((1, 1), (2, 2), (1, 7), (3, 50), (9, 13), (17, 3)):
        x = torch.randn(batch, params.inputs, steps)
        y = lstm(x, params, backend=impl)
        assert y.shape == (batch, params.outputs, steps)
        assert relative_l2(y, lstm_ref(x.double(), double(params))) < 2e-6


@each_impl
@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_stays_exact_over_many_steps(impl: str, scale: float) -> None:
    params = CASES["wide"]()
    x = torch.randn(1, params.inputs, 1000) * scale
    assert relative_l2(lstm(x, params, backend=impl), lstm_ref(x.double(), double(params))) < 1e-5


@each_case
@each_impl
def test_layout_of_the_input_does_not_matter(make: Callable[[], LstmParams], impl: str) -> None:
    params = make()
    x = torch.randn(2, params.inputs, 23)
    expected = lstm(x, params, backend=impl)
    for name, view in strided(x).items():
        y = lstm(view, params, backend=impl)
        if impl == "cpp":
            assert torch.equal(y, expected), name
        else:
            torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)


@each_case
@each_impl
def test_ragged_batch_equals_single_items(make: Callable[[], LstmParams], impl: str, nan_poison: None) -> None:
    params = make()
    lengths = torch.tensor([5, 1, 31, 17, 31])
    x = torch.full((5, params.inputs, 31), torch.nan)
    for i, n in enumerate(lengths.tolist()):
        x[i, :, :n] = torch.randn(params.inputs, n)
    batched = lstm(x, params, lengths, backend=impl)
    for i, n in enumerate(lengths.tolist()):
        assert torch.equal(batched[i, :, :n], lstm(x[i : i + 1, :, :n], params, backend=impl)[0])
        assert not batched[i, :, n:].any()


@each_stream
@each_impl
def test_a_stream_equals_one_call(make: Callable[[], LstmParams], impl: str) -> None:
    params = make()
    x = torch.randn(2, params.inputs, 40)
    whole = lstm(x, params, backend=impl)
    h, c = params.zero_state(2)
    parts = [lstm(part, params, state=(h, c), backend=impl) for part in x.split([1, 1, 7, 30, 1], 2)]
    last = h.clone(), c.clone()
    h, c = params.zero_state(2)
    lstm(x, params, state=(h, c), backend=impl)
    if impl == "cpp":
        assert torch.equal(torch.cat(parts, 2), whole)
        assert torch.equal(torch.stack(last), torch.stack((h, c)))
    else:
        torch.testing.assert_close(torch.cat(parts, 2), whole, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(torch.stack(last), torch.stack((h, c)), rtol=1e-5, atol=1e-5)
    assert torch.equal(h[-1] if not params.skip else x[:, :, -1] + h[-1], whole[:, :, -1]) or impl != "cpp"


@each_stream
@each_impl
def test_ragged_items_keep_their_own_state(make: Callable[[], LstmParams], impl: str) -> None:
    params = make()
    lengths = torch.tensor([4, 11, 1])
    x = torch.randn(3, params.inputs, 11)
    start = [torch.randn(len(params.layers), 3, params.hidden) * 0.5 for _ in range(2)]
    h, c = (t.clone() for t in start)
    y = lstm(x, params, lengths, (h, c), backend=impl)
    for i, n in enumerate(lengths.tolist()):
        alone = [t[:, i : i + 1].clone() for t in start]
        assert torch.equal(y[i, :, :n], lstm(x[i : i + 1, :, :n], params, state=(alone[0], alone[1]), backend=impl)[0])
        assert torch.equal(alone[0], h[:, i : i + 1])
        assert torch.equal(alone[1], c[:, i : i + 1])
        meant = [t[:, i : i + 1].double() for t in start]
        lstm_ref(x[i : i + 1, :, :n].double(), double(params), None, *meant)
        assert relative_l2(h[:, i : i + 1], meant[0]) < 2e-6
        assert relative_l2(c[:, i : i + 1], meant[1]) < 2e-6


@each_impl
def test_nan_stays_in_its_item_and_its_future(impl: str) -> None:
    params = CASES["odd"]()
    x = torch.randn(3, params.inputs, 12)
    clean = lstm(x, params, backend=impl)
    x[1, 3, 5] = torch.nan
    y = lstm(x, params, backend=impl)
    assert y[1, :, 5:].isnan().all()
    assert not y[1, :, :5].isnan().any()
    keep = [0, 2]
    assert torch.equal(y[keep], clean[keep]) or impl != "cpp"
    torch.testing.assert_close(y[keep], clean[keep], rtol=1e-5, atol=1e-5)


@each_impl
def test_autograd_sees_the_reference(impl: str) -> None:
    params = CASES["odd"]()
    x = torch.randn(1, params.inputs, 8, requires_grad=True)
    lstm(x, params, backend=impl).sum().backward()
    assert torch.equal(x.grad, torch.autograd.grad(lstm_ref(x, params).sum(), x)[0])


@pytest.mark.parametrize("layer", [Lstm(6, 10, 2), Lstm(10, 10, 1, skip=True), Lstm(6, 5, 2, bidirectional=True)])
@each_impl
def test_the_layer_has_torchs_names(layer: Lstm, impl: str) -> None:
    params = layer.params()
    count = len(params.layers) // params.directions
    theirs = torch.nn.LSTM(
        params.inputs, params.hidden, count, batch_first=True, bidirectional=params.bidirectional
    ).requires_grad_(False)
    theirs.load_state_dict(layer.state_dict())
    x = torch.randn(2, params.inputs, 14)
    expected = theirs(x.transpose(1, 2))[0].transpose(1, 2)
    layer.requires_grad_(False)
    torch.testing.assert_close(layer(x, backend=impl), x + expected if params.skip else expected, rtol=1e-5, atol=1e-5)


@each_impl
def test_wrong_arguments_are_named(impl: str) -> None:
    params = CASES["odd"]()
    x = torch.randn(2, params.inputs, 4)
    h, c = params.zero_state(2)
    wide = torch.zeros(2, 2, 2 * params.hidden)[:, :, ::2]
    for error, text, bad, state in (
        (ShapeError, "x: expected", x[:, 1:], None),
        (DtypeError, "x: expected", x.double(), None),
        (ShapeError, "state: c: expected", x, (h, c[:, :1])),
        (ShapeError, "state: h: expected", x, (h[:1], c)),
        (ShapeError, "contiguous", x, (wide, c)),
        (DtypeError, "state: c: expected", x, (h, c.double())),
    ):
        with pytest.raises(error, match=text):
            lstm(bad, params, state=state, backend=impl)
    with pytest.raises(ArgumentError, match="lengths"):
        lstm(x, params, torch.tensor([5, 1]), backend=impl)
    both = CASES["both-ways"]()
    with pytest.raises(ArgumentError, match="bidirectional"):
        lstm(torch.randn(1, both.inputs, 3), both, state=both.zero_state(1), backend=impl)


def test_wrong_parameters_are_named() -> None:
    layer = lstm_params(3, 4).layers[0]
    with pytest.raises(ArgumentError, match="layers"):
        LstmParams(())
    with pytest.raises(ArgumentError, match="layers"):
        LstmParams((layer,), bidirectional=True)
    with pytest.raises(ShapeError, match="entry 1"):
        LstmParams((layer, layer))
    with pytest.raises(ShapeError, match="skip"):
        LstmParams((layer,), skip=True)


@pytest.mark.native
@pytest.mark.parametrize("name", ["odd", "wide", "encodec", "both-ways-two-skip"])
def test_threads_batch_and_position_do_not_change_a_bit(name: str) -> None:
    params = CASES[name]()
    x = torch.randn(1, params.inputs, 61)
    results = []
    for stacked, i in batches_with(x, ((1, 1, 0), (2, 1, 0), (3, 1, 0), (4, 3, 1), (2, 9, 8), (5, 7, 0), (1, 6, 5))):
        lengths = torch.randint(1, 62, (len(stacked),))
        lengths[i] = 61
        results.append(lstm(stacked, params, lengths, backend="cpp")[i])
    assert all(torch.equal(results[0], other) for other in results[1:])


@pytest.mark.native
@pytest.mark.parametrize("name", ["odd", "both-ways"])
def test_fake_tensors_have_the_real_shapes(name: str) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    params = CASES[name]()
    impl = OPS["lstm"].impls["cpp"]
    packed = impl.pack(params)
    real = lstm(torch.randn(2, params.inputs, 9), params, backend="cpp")
    with FakeTensorMode(allow_non_fake_inputs=True):
        fake = impl.run(torch.empty(2, params.inputs, 9), packed)
    assert (fake.shape, fake.stride(), fake.dtype) == (real.shape, real.stride(), real.dtype)


@pytest.mark.native
def test_the_schema_tells_what_is_written() -> None:
    params = CASES["odd"]()
    packed = OPS["lstm"].impls["cpp"].pack(params)
    x = torch.randn(2, params.inputs, 4)
    h, c = params.zero_state(2)
    args = (*packed, x, None, h, c)
    torch.library.opcheck(torch.ops._fastvoc.lstm.default, args, test_utils=("test_schema", "test_faketensor"))


@each_stream
@each_impl
def test_chunks_equal_one_call(make: Callable[[], LstmParams], impl: str) -> None:
    params = make()
    chosen = OPS["lstm"].impls[impl]
    x = torch.randn(2, params.inputs, 40)
    whole = lstm(x, params, backend=impl)
    assert chosen.stream is not None
    stream = chosen.stream(params, chosen.pack(params))
    parts = [stream.step(part, False) for part in x[:, :, :9].split([0, 1, 8], 2)]
    twin = chosen.stream(params, chosen.pack(params))
    kept = {name: t.clone() for name, t in stream.tensors().items()}
    assert all(len(t) == 2 for t in kept.values())
    parts.append(stream.step(x[:, :, 9:], True))
    twin.restore(kept, stream.counters)
    again = twin.step(x[:, :, 9:], True)
    assert torch.equal(again, parts[-1])
    joined = torch.cat(parts, 2)
    assert torch.equal(joined, whole) or impl != "cpp"
    torch.testing.assert_close(joined, whole, rtol=1e-5, atol=1e-5)


@each_impl
def test_a_failed_step_leaves_the_stream_as_it_was(impl: str) -> None:
    params = CASES["odd"]()
    chosen = OPS["lstm"].impls[impl]
    assert chosen.stream is not None
    stream = chosen.stream(params, chosen.pack(params))
    stream.step(torch.randn(1, params.inputs, 3), False)
    before = stream.tensors()
    copies = {name: t.clone() for name, t in before.items()}
    stream.step(torch.randn(1, params.inputs, 3), False)
    assert all(torch.equal(before[name], t) for name, t in copies.items())


def test_both_ways_do_not_stream() -> None:
    params = CASES["both-ways"]()
    stream = OPS["lstm"].impls["torch"].stream
    assert stream is not None
    with pytest.raises(BackendError, match="bidirectional"):
        stream(params, params)


BF16 = ["one-layer", "odd", "encodec", "both-ways-two-skip"]


@each_impl
@pytest.mark.parametrize("name", BF16)
def test_bfloat16_is_close_to_the_meaning_of_its_numbers(name: str, impl: str, nan_poison: None) -> None:
    params = half(CASES[name]())
    lengths = torch.tensor([50, 1, 33])
    x = torch.randn(3, params.inputs, 50).to(torch.bfloat16)
    y = lstm(x, params, lengths, backend=impl)
    assert y.dtype is torch.bfloat16
    meant = lstm_ref(x.double(), double(params), lengths)
    rounding = relative_l2(meant.to(torch.bfloat16), meant)
    assert relative_l2(y, meant) < 3 * rounding


@each_impl
def test_bfloat16_keeps_a_float32_state(impl: str) -> None:
    """Chunks of one step do not drift: what is kept between them is not rounded."""
    params = half(CASES["wide"]())
    x = torch.randn(1, params.inputs, 300).to(torch.bfloat16)
    h, c = params.zero_state(1)
    assert h.dtype is torch.float32
    parts = [lstm(part, params, state=(h, c), backend=impl) for part in x.split(1, 2)]
    whole = lstm(x, params, backend=impl)
    if impl == "cpp":
        assert torch.equal(torch.cat(parts, 2), whole)
    assert relative_l2(torch.cat(parts, 2), whole) < 2e-3
    with pytest.raises(DtypeError, match=r"state: h: expected torch\.float32"):
        lstm(x, params, state=(h.to(torch.bfloat16), c), backend=impl)


@pytest.mark.native
@pytest.mark.parametrize("name", BF16)
def test_bfloat16_threads_batch_and_layout_do_not_change_a_bit(name: str) -> None:
    params = half(CASES[name]())
    x = torch.randn(1, params.inputs, 31).to(torch.bfloat16)
    results = [
        lstm(view, params, backend="cpp")[i]
        for stacked, i in batches_with(x, ((1, 1, 0), (2, 1, 0), (4, 3, 1), (2, 9, 8)))
        for view in strided(stacked).values()
    ]
    assert all(torch.equal(results[0], other) for other in results[1:])


@pytest.mark.native
def test_float16_is_left_to_the_reference() -> None:
    params = replace(CASES["odd"](), layers=tuple(tuple(t.half() for t in row) for row in CASES["odd"]().layers))
    x = torch.randn(1, params.inputs, 5).half()
    with pytest.raises(BackendError, match=r"not in torch\.float16"):
        lstm(x, params, backend="cpp")
    assert lstm(x, params).dtype is torch.float16
