"""attention_block against its meaning in float64, its states, and what must not change a result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from op_cases import ATTENTION as CASES
from op_cases import cast
from torch import Tensor
from torch.nn import functional as F

from fastvoc.errors import ArgumentError, DtypeError, ShapeError
from fastvoc.ops.attention_block import OP, AttentionBlockParams, AttentionStream, attention_block_ref
from fastvoc.ops.layer_norm import LayerNormParams
from fastvoc.runtime.registry import OPS, use_backend
from helpers import implementations, need_triton, relative_l2

each_case = pytest.mark.parametrize("make", CASES.values(), ids=CASES)
each_impl = pytest.mark.parametrize("impl", implementations("attention_block"))


def attention_block(
    x: Tensor,
    params: AttentionBlockParams,
    lengths: Tensor | None = None,
    state: tuple[Tensor, Tensor, Tensor] | None = None,
    backend: str | None = None,
) -> Tensor:
    """The op with a whole state or none."""
    return OP(x, params, lengths, *(state or (None, None, None)), backend=backend)


def by_hand(x: Tensor, params: AttentionBlockParams) -> Tensor:
    """The layer on one item [C, T] as its definition has it, step by step and head by head."""
    p, size = params, params.head_dim
    rows = x.T

    def norm(row: Tensor, of: LayerNormParams) -> Tensor:
        return (row - row.mean()) / (row.var(correction=0) + of.eps).sqrt() * of.weight + of.bias

    def turned(head: Tensor, place: int) -> Tensor:
        pairs = torch.complex(head[: size // 2], head[size // 2 :])
        angle = place * p.frequencies().double()
        pairs = pairs * torch.polar(torch.ones_like(angle), angle)
        return torch.cat([pairs.real, pairs.imag])

    keys: list[Tensor] = []
    values: list[Tensor] = []
    out = []
    for t, row in enumerate(rows):
        q, k, v = (weight @ norm(row, p.norm1) for weight in (p.query, p.key, p.value))
        keys.append(torch.stack([turned(head, t) for head in k.split(size)]))
        values.append(torch.stack(list(v.split(size))))
        seen = range(max(0, t - p.window + 1), t + 1)
        heads = []
        for h, query in enumerate(q.split(size)):
            of = h // (p.heads // p.kv_heads)
            scores = torch.stack([turned(query, t) @ keys[s][of] for s in seen]) / size**0.5
            heads.append(sum(w * values[s][of] for w, s in zip(scores.softmax(0), seen, strict=True)))
        added = p.out @ torch.cat(heads)
        row = row + (added if p.scale1 is None else p.scale1 * added)
        added = p.project @ F.gelu(p.expand @ norm(row, p.norm2))
        out.append(row + (added if p.scale2 is None else p.scale2 * added))
    return torch.stack(out, 1)


@pytest.mark.parametrize("name", [name for name in CASES if name != "mimi"])
def test_the_reference_is_the_definition(name: str) -> None:
    params = cast(CASES[name](), torch.float64)
    x = torch.randn(1, params.channels, 12).double()
    torch.testing.assert_close(attention_block_ref(x, params)[0], by_hand(x[0], params), rtol=1e-9, atol=1e-9)


def test_long_signals_are_those_of_blocks() -> None:
    params = cast(CASES["one-head"](), torch.float64)
    x = torch.randn(1, params.channels, 1100).double()
    whole = attention_block_ref(x, params)
    torch.testing.assert_close(whole[0, :, :40], by_hand(x[0, :, :40], params), rtol=1e-9, atol=1e-9)
    state = params.zero_state(1, 8)
    parts = [attention_block(part, params, state=at(state, i * 5)) for i, part in enumerate(x.split(5, 2))]
    torch.testing.assert_close(torch.cat(parts, 2), whole, rtol=1e-9, atol=1e-9)


def at(state: tuple[Tensor, Tensor, Tensor], place: int) -> tuple[Tensor, Tensor, Tensor]:
    """The rings of a state whose items are all at a place."""
    return state[0], state[1], torch.full_like(state[2], place)


@each_case
@each_impl
@pytest.mark.parametrize("spare", [0, 40])
def test_chunks_equal_one_call(make: Callable[[], AttentionBlockParams], impl: str, spare: int) -> None:
    params = make()
    x = torch.randn(2, params.channels, 340)
    whole = attention_block(x, params, backend=impl)
    state, place, parts = params.zero_state(2, params.window - 1 + spare), 0, []
    for part in x.split([1, 2, 1, 30, 3, 1, 200, 7, 90, 5], 2):
        parts.append(attention_block(part, params, state=at(state, place), backend=impl))
        place += part.shape[2]
    if impl == "cpp":
        assert torch.equal(torch.cat(parts, 2), whole)
    else:
        torch.testing.assert_close(torch.cat(parts, 2), whole, rtol=1e-4, atol=1e-5)


@each_impl
def test_items_at_their_own_places(impl: str, nan_poison: None) -> None:
    """Streams that began at different times run as one batch."""
    params = CASES["panels"]()
    x = torch.randn(3, params.channels, 60)
    begun, lengths = [0, 13, 40], torch.tensor([20, 11, 3])
    keys, values, place = params.zero_state(3, 30)
    for i, n in enumerate(begun):
        if n:
            own = keys[i : i + 1], values[i : i + 1], place[i : i + 1]
            for t in range(n):
                attention_block(x[i : i + 1, :, t : t + 1], params, state=at(own, t), backend=impl)
            place[i] = n
    chunk = torch.full((3, params.channels, 20), torch.nan)
    for i, (n, more) in enumerate(zip(begun, lengths.tolist(), strict=True)):
        chunk[i, :, :more] = x[i, :, n : n + more]
    y = attention_block(chunk, params, lengths, (keys, values, place), backend=impl)
    assert place.tolist() == begun
    whole = attention_block(x, params, backend=impl)
    for i, (n, more) in enumerate(zip(begun, lengths.tolist(), strict=True)):
        expected = whole[i, :, n : n + more]
        assert torch.equal(y[i, :, :more], expected) if impl == "cpp" else relative_l2(y[i, :, :more], expected) < 1e-5
        assert not y[i, :, more:].any()


@each_impl
def test_far_into_a_signal_it_is_what_it_is_at_the_beginning(impl: str) -> None:
    """Only distances count: after a day at 25 steps a second, too."""
    params = CASES["panels"]()
    x = torch.randn(1, params.channels, 40)
    state = params.zero_state(1, 64)
    first = attention_block(x, params, state=state, backend=impl)
    far = 25 * 86400
    late = attention_block(x, params, state=at(params.zero_state(1, 64), far), backend=impl)
    later = slice(params.window, None)  # the zeros before the first step count there
    assert relative_l2(late[:, :, later], first[:, :, later]) < 1e-5


@each_impl
def test_nan_stays_in_its_item_and_in_the_window(impl: str) -> None:
    params = CASES["odd"]()
    x = torch.randn(3, params.channels, 30)
    clean = attention_block(x, params, backend=impl)
    x[1, 3, 5] = torch.nan
    y = attention_block(x, params, backend=impl)
    reached = slice(5, 5 + params.window)
    assert y[1, :, reached].isnan().all()
    y[1, :, reached] = clean[1, :, reached]
    assert torch.equal(y, clean) or impl != "cpp"
    torch.testing.assert_close(y, clean, rtol=1e-5, atol=1e-5)


def stream_of(params: AttentionBlockParams, impl: str) -> AttentionStream:
    chosen = OPS["attention_block"].impls[impl]
    assert chosen.stream is not None
    stream: AttentionStream = chosen.stream(params, chosen.packed(params, True))
    return stream


@each_impl
def test_what_a_stream_was_is_never_written_over(impl: str) -> None:
    """Steps are undone by going back to the old attributes; states that others hold stay as they are."""
    params = CASES["panels"]()
    x = torch.randn(2, params.channels, 400)
    whole = attention_block(x, params, backend=impl)
    stream = stream_of(params, impl)
    place = 0
    for n in (1, 5, 32, 90, 3, 41, 60):
        before = dict(vars(stream))
        kept = stream.tensors() if n % 2 else {}
        copies = {name: t.clone() for name, t in kept.items()}
        stream.step(torch.randn(2, params.channels, n), False)
        for name, copy in copies.items():
            assert torch.equal(kept[name], copy), name
        vars(stream).clear()
        vars(stream).update(before)
        y = stream.step(x[:, :, place : place + n], False)
        assert relative_l2(y, whole[:, :, place : place + n]) < 1e-5
        if impl == "cpp":
            assert torch.equal(y, whole[:, :, place : place + n])
        other = stream_of(params, impl)
        other.restore(stream.tensors(), stream.counters)
        other.step(torch.randn(2, params.channels, 7), False)
        place += n


@each_impl
def test_wrong_arguments_are_named(impl: str) -> None:
    params = CASES["odd"]()
    x = torch.randn(2, params.channels, 4)
    keys, values, place = params.zero_state(2, 20)
    for error, text, bad, state in (
        (ShapeError, "x: expected", x[:, 1:], None),
        (DtypeError, "x: expected", x.double(), None),
        (ShapeError, "rings of 7 places", x, (keys[:, :, :4], values[:, :4], place)),
        (ShapeError, "a multiple of 16", x, (keys[:, :, :9], values[:, :9], place)),
        (ShapeError, "state: keys: expected", x, (keys[:1], values, place)),
        (ShapeError, "state: values: expected a contiguous", x, (keys, values.mT.contiguous().mT, place)),
        (ShapeError, "state: place: expected", x, (keys, values, place[:1])),
        (DtypeError, "state: values: expected", x, (keys, values.double(), place)),
        (DtypeError, "state: place: expected", x, (keys, values, place.int())),
    ):
        with pytest.raises(error, match=text):
            attention_block(bad, params, state=state, backend=impl)
    with pytest.raises(ArgumentError, match="lengths"):
        attention_block(x, params, torch.tensor([5, 1]), backend=impl)


def test_wrong_parameters_are_named() -> None:
    params = CASES["panels"]()
    for text, wrong in (
        ("heads: expected 1 or more", {"heads": 0}),
        ("window: expected 1 or more", {"window": 0}),
        ("kv_heads: expected a divisor", {"kv_heads": 3}),
        ("theta", {"theta": 0.0}),
    ):
        with pytest.raises(ArgumentError, match=text):
            replace(params, **wrong)
    for text, misshapen in (
        ("query: expected", {"query": params.query[:-1]}),
        ("value: expected", {"value": params.value[:-1]}),
        ("out: expected", {"out": params.out[:, 1:]}),
        ("project: expected", {"project": params.project[:, 1:]}),
        ("scale2: expected", {"scale2": params.scale1[1:]}),
        ("norm1: weight: expected", {"norm1": LayerNormParams(torch.ones(3), torch.zeros(3))}),
    ):
        with pytest.raises(ShapeError, match=text):
            replace(params, **misshapen)


@pytest.mark.native
def test_a_forced_backend_is_the_one_that_runs() -> None:
    params = CASES["odd"]()
    x = torch.randn(1, params.channels, 20)
    with use_backend("torch"):
        forced = attention_block(x, params)
    assert torch.equal(forced, attention_block_ref(x, params))


@pytest.mark.parametrize(("name", "dtype"), [("odd", torch.bfloat16), ("shared-keys", torch.float16)], ids=str)
def test_triton_in_chunks(name: str, dtype: torch.dtype) -> None:
    """Chunks of any size, ragged ones, streams, and that nothing is seen but the window."""
    need_triton()
    params = replace(CASES[name](), window=7)
    x = torch.randn(2, params.channels, 14)
    whole = attention_block(x, params, backend="triton")
    assert relative_l2(whole, attention_block_ref(x.double(), cast(params, torch.float64))) < 2e-6
    state, place, parts = params.zero_state(2, params.window + 5), 0, []
    for part in x.split([2, 10, 1, 1], 2):
        parts.append(attention_block(part, params, state=at(state, place), backend="triton"))
        place += part.shape[2]
    close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)  # the interpreter's products know no order
    close(torch.cat(parts, 2), whole)
    lengths = torch.tensor([3, 9])
    y = attention_block(x[:, :, :9], params, lengths, state=params.zero_state(2, 64), backend="triton")
    close(y[1], whole[1, :, :9])
    close(y[0, :, :3], whole[0, :, :3])
    assert not y[0, :, 3:].any()
    stream = stream_of(params, "triton")
    close(torch.cat([stream.step(part, False) for part in x[:1].split(11, 2)], 2), whole[:1])
    half, short = cast(params, dtype), x[:1, :, :13].to(dtype)
    y = attention_block(short, half, backend="triton")
    assert y.dtype == dtype
    assert relative_l2(y, attention_block_ref(short.double(), cast(half, torch.float64))) < 2e-2
    x[1, 2, 5] = torch.nan
    reached = slice(5, 5 + params.window)
    y = attention_block(x, params, backend="triton")
    assert y[1, :, reached].isnan().all()
    y[1, :, reached] = whole[1, :, reached]
    close(y, whole)


@pytest.mark.native
@pytest.mark.parametrize("place", [-1, (1 << 63) - 1])
def test_places_where_no_signal_is_are_refused(place: int) -> None:
    """One near the end of int64 would wrap to an entry before its ring."""
    params = CASES["odd"]()
    state = at(params.zero_state(1, 30), place)
    with pytest.raises(RuntimeError, match="place: expected values in"):
        attention_block(torch.randn(1, params.channels, 3), params, state=state, backend="cpp")
