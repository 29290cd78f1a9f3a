"""lstm against its meaning in float64, its states, and what must not change a result."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from op_cases import cast, double
from op_contract import LSTM, lstm_params
from torch import Tensor

from fastvoc.errors import ArgumentError, BackendError, DtypeError, ShapeError
from fastvoc.nn.lstm import Lstm
from fastvoc.ops.lstm import OP, LstmParams, lstm_ref
from fastvoc.runtime.registry import OPS
from helpers import implementations, relative_l2


def lstm(
    x: Tensor,
    params: LstmParams,
    lengths: Tensor | None = None,
    state: tuple[Tensor, Tensor] | None = None,
    backend: str | None = None,
) -> Tensor:
    return OP(x, params, lengths, *(state or (None, None)), backend=backend)


each_impl = pytest.mark.parametrize("impl", implementations("lstm"))
STREAMS = [name for name in LSTM if not name.startswith("both")]
each_stream = pytest.mark.parametrize("make", [LSTM[name] for name in STREAMS], ids=STREAMS)


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


@each_impl
@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_stays_exact_over_many_steps(impl: str, scale: float) -> None:
    params = LSTM["wide"]()
    x = torch.randn(1, params.inputs, 1000) * scale
    assert relative_l2(lstm(x, params, backend=impl), lstm_ref(x.double(), double(params))) < 1e-5


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


@pytest.mark.native
def test_threads_that_share_out_a_long_signal_change_no_bit() -> None:
    params, lengths = lstm_params(40, 112, 2), torch.tensor([230, 97, 1])
    x, start = torch.randn(3, 40, 230), torch.randn(2, 2, 3, 112) * 0.5

    def made(threads: int) -> tuple[Tensor, Tensor]:
        state = start.clone()
        torch.set_num_threads(threads)
        return lstm(x, params, lengths, (state[0], state[1]), backend="cpp"), state

    before = torch.get_num_threads()
    try:
        y, state = made(1)
        for threads in (2, 3):
            shared, last = made(threads)
            assert torch.equal(shared, y)
            assert torch.equal(last, state)
    finally:
        torch.set_num_threads(before)
    meant = start.double()
    assert relative_l2(y, lstm_ref(x.double(), double(params), lengths, meant[0], meant[1])) < 2e-6
    assert relative_l2(state, meant) < 2e-6


@pytest.mark.native
@pytest.mark.parametrize("count", [1, 2])
def test_no_steps_give_none(count: int) -> None:
    """Where the op is called past the checks of arguments."""
    params = lstm_params(40, 112, 2)
    packed = OPS["lstm"].impls["cpp"].pack(params)
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        for batch, steps in ((3, 0), (0, 3)):
            made = torch.ops._fastvoc.lstm(*packed, torch.randn(batch, 40, steps), None, None, None)
            assert made.shape == (batch, 112, steps)
    finally:
        torch.set_num_threads(before)


@each_impl
def test_nan_stays_in_its_item_and_its_future(impl: str) -> None:
    params = LSTM["odd"]()
    x = torch.randn(3, params.inputs, 12)
    clean = lstm(x, params, backend=impl)
    x[1, 3, 5] = torch.nan
    y = lstm(x, params, backend=impl)
    assert y[1, :, 5:].isnan().all()
    assert not y[1, :, :5].isnan().any()
    keep = [0, 2]
    assert torch.equal(y[keep], clean[keep]) or impl != "cpp"
    torch.testing.assert_close(y[keep], clean[keep], rtol=1e-5, atol=1e-5)


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
    params = LSTM["odd"]()
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
    both = LSTM["both-ways"]()
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
def test_the_schema_tells_what_is_written() -> None:
    params = LSTM["odd"]()
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
    params = LSTM["odd"]()
    chosen = OPS["lstm"].impls[impl]
    assert chosen.stream is not None
    stream = chosen.stream(params, chosen.pack(params))
    stream.step(torch.randn(1, params.inputs, 3), False)
    before = stream.tensors()
    copies = {name: t.clone() for name, t in before.items()}
    stream.step(torch.randn(1, params.inputs, 3), False)
    assert all(torch.equal(before[name], t) for name, t in copies.items())


def test_both_ways_do_not_stream() -> None:
    params = LSTM["both-ways"]()
    stream = OPS["lstm"].impls["torch"].stream
    assert stream is not None
    with pytest.raises(BackendError, match="bidirectional"):
        stream(params, params)


@each_impl
def test_bfloat16_keeps_a_float32_state(impl: str) -> None:
    """Chunks of one step do not drift: what is kept between them is not rounded."""
    params = cast(LSTM["wide"](), torch.bfloat16)
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
def test_float16_is_left_to_the_reference() -> None:
    params = cast(LSTM["odd"](), torch.float16)
    x = torch.randn(1, params.inputs, 5).half()
    with pytest.raises(BackendError, match=r"not in torch\.float16"):
        lstm(x, params, backend="cpp")
    assert lstm(x, params).dtype is torch.float16
