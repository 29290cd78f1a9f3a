"""A saved state goes on in a stream that it fits, and is refused whole by any other, by the fact that differs."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from mimi_models import SMALL as MIMI
from mimi_models import lively
from safetensors.torch import save
from stream_families import FAMILIES, mel_of, vocoder
from torch import Tensor
from whole_codecs import whole_codec

import fastvoc
from fastvoc.codec import Codec
from fastvoc.errors import StreamError
from fastvoc.streams.saved import _digest, _parsed
from fastvoc.streams.stream import Stream
from fastvoc.vocoder import Vocoder
from helpers import need_native

Made = Callable[[], Stream]
FRAMES = 60


def _other_weights(voc: Vocoder, name: str) -> Vocoder:
    """The same model with one tensor of another training."""
    other = deepcopy(voc)
    dict(other.model.named_parameters())[name].mul_(1.001)
    other.model.prepare()
    return other


def _within(context: AbstractContextManager[Any], made: Made) -> Stream:
    with context:
        return made()


VOC = vocoder("hifigan-1")
SOURCE = vocoder("hift-sample")
SNAC = whole_codec("snac")
FITTING: dict[str, tuple[Made, Made, str]] = {  # whose state, whose stream, what is said
    "lookahead": (VOC.stream, lambda: VOC.stream(lookahead=2), "lookahead {full}, expected 2"),
    "no lookahead": (lambda: VOC.stream(lookahead=2), VOC.stream, "lookahead 2, expected {full}"),
    "other lookahead": (
        lambda: VOC.stream(lookahead=2),
        lambda: VOC.stream(lookahead=0),
        "lookahead 2, expected 0",
    ),
    "exact": (lambda: VOC.stream(exact=False), VOC.stream, "exact False, expected True"),
    "rate": (lambda: VOC.stream(rate=8000), VOC.stream, "rate 8000, expected None"),
    "weights": (VOC.stream, lambda: _other_weights(VOC, "conv_post.weight").stream(), "weights"),
    "dtype": (VOC.stream, lambda: deepcopy(VOC).to(torch.bfloat16).stream(), "dtype 'float32', expected 'bfloat16"),
    "backend": (
        lambda: _within(fastvoc.use_backend("torch"), VOC.stream),
        lambda: _within(fastvoc.use_backend("mrf=cpp,*=torch"), VOC.stream),
        "implementations",
    ),
    "f0": (SOURCE.stream, lambda: SOURCE.stream(f0=True), "options '', expected 'f0=True'"),
    "seed": (lambda: SOURCE.stream(seed=4), SOURCE.stream, "options 'seed', expected ''"),
    "configuration": (VOC.stream, lambda: vocoder("hifigan-2").stream(), "model"),
    "direction": (SNAC.encoding().stream, SNAC.decoding().stream, "direction 'encoding', expected 'decoding'"),
    "codebooks": (lambda: SNAC.decoding(1).stream(), SNAC.decoding().stream, "codebooks 1, expected 3"),
    "kind": (VOC.stream, SNAC.decoding().stream, "direction None, expected 'decoding'"),
    "window": (
        lambda: Codec(lively(MIMI), MIMI).decoding().stream(),
        lambda: (
            Codec(lively(replace(MIMI, window=MIMI.window + 1)), replace(MIMI, window=MIMI.window + 1))
            .decoding()
            .stream()
        ),
        "model",
    ),
}


@pytest.mark.parametrize("name", FITTING)
def test_a_state_of_another_stream_is_refused(name: str) -> None:
    theirs, ours, said = FITTING[name]
    if name == "backend":
        need_native()
    saved, stream = theirs().state(), ours()
    before = stream._model
    with pytest.raises(StreamError, match="state: it belongs to another stream: .*" + said.format(full="[0-9]+")):
        stream.restore(saved)
    assert stream._model is before
    theirs().restore(saved)


@pytest.mark.parametrize("options", [{}, {"lookahead": 3}, {"exact": False}, {"rate": 12000, "format": "s16"}])
def test_a_refused_state_changes_nothing(options: dict[str, Any]) -> None:
    mel = mel_of(VOC, FRAMES)
    whole, tried = VOC.stream(**options), VOC.stream(**options)
    foreign = VOC.stream(lookahead=1)
    foreign.push(mel[:, :20])
    for a, b in ((0, 25), (25, 40)):
        assert torch.equal(whole.push(mel[:, a:b]), tried.push(mel[:, a:b]))
        with pytest.raises(StreamError):
            tried.restore(foreign.state())
    assert torch.equal(whole.flush(mel[:, 40:]), tried.flush(mel[:, 40:]))


def test_other_weights_of_the_same_shape_are_seen() -> None:
    """A fine-tuned voice of the same shape."""
    saved = VOC.stream().state()
    for name, _ in [*VOC.model.named_parameters()][::9]:
        with pytest.raises(StreamError, match="weights"):
            _other_weights(VOC, name).stream().restore(saved)
    again = deepcopy(VOC)
    again.stream().restore(saved)


def test_what_was_clipped_is_counted_on() -> None:
    one, two = VOC.stream(format="s16"), VOC.stream(format="s16")
    one.clipped = 3
    two.restore(one.state())
    assert two.clipped == 3


@pytest.mark.parametrize("lookahead", [None, 2])
def test_a_stream_keeps_the_backend_that_it_began_with(lookahead: int | None) -> None:
    """Also for what is guessed, after reset, and in a pool whose streams part and meet."""
    mel = mel_of(VOC, FRAMES)
    with fastvoc.use_backend("torch"):
        stream, pool = VOC.stream(lookahead=lookahead), fastvoc.Streams(VOC)
        pool.step({"a": mel[:, :20], "b": mel[:, :20]})
    for _ in range(2):
        parts = [stream.push(mel[:, :20]), stream.push(mel[:, 20:40]), stream.flush(mel[:, 40:])]
        assert sum(map(len, parts)) == VOC.config.samples(FRAMES)
        stream.reset()
    with fastvoc.use_backend("torch"):
        other = VOC.stream(lookahead=lookahead)
    other.restore(stream.state())
    for ids in ("a", "ab", "b", "ab"):
        pool.step(dict.fromkeys(ids, mel[:, :3]))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_forged_state_does_no_harm(family: str) -> None:
    """Of other types, shapes or counters, its checksum right: refused at once, or the stream goes on."""
    voc = vocoder(family)
    mel = mel_of(voc, FRAMES)
    stream = voc.stream()
    stream.push(mel[:, :31])
    tensors, values = _parsed(stream.state())
    forged: list[tuple[dict[str, Tensor], dict[str, Any]]] = []
    for name, t in tensors.items():
        others = t[..., :-1], torch.cat([t, t], -1), t[None], torch.cat([t, t]), t.to(torch.float16), t.to(torch.int32)
        others += (t.double() if t.is_floating_point() else t.clone().fill_((1 << 63) - 1),)
        forged += [({**tensors, name: other.contiguous()}, values) for other in others]
        forged.append(({key: one for key, one in tensors.items() if key != name}, values))
    for name, counters in values["counters"].items():
        for i, by in product(range(len(counters)), (-1, 1, 1 << 40, -(1 << 40))):
            changed = deepcopy(values)
            changed["counters"][name][i] += by
            forged.append((tensors, changed))
    for held, said in random.Random(family).sample(forged, min(len(forged), 24)):
        tried = voc.stream()
        before = tried._model
        try:
            tried.restore(_state(held, said))
        except StreamError:
            assert tried._model is before
            continue
        tried.push(mel[:, 31:40])
        tried.flush(mel[:, 40:])
    moved = voc.stream()
    moved.restore(_state(tensors, values))
    assert torch.equal(moved.flush(mel[:, 31:]), stream.flush(mel[:, 31:]))


@pytest.mark.parametrize("direction", ["encoding", "decoding"])
@pytest.mark.parametrize("name", ["mimi", "snac"])
def test_forged_tensors_of_codecs_are_refused(name: str, direction: str) -> None:
    """Rings, places and states of an LSTM, which a chunk of nothing does not reach, among them."""
    codec = Codec(lively(MIMI), MIMI) if name == "mimi" else SNAC
    side = getattr(codec, direction)()
    stream, shape = side.stream(), (codec.channels, 5 * codec.hop)
    stream.push(torch.randn(shape) if direction == "encoding" else torch.zeros((side._rows, 5), dtype=torch.int64))
    tensors, values = _parsed(stream.state())
    for key, t in tensors.items():
        others = [t[None], torch.cat([t, t]), t.double() if t.is_floating_point() else t.to(torch.int32)]
        others += [torch.full_like(t, n) for n in (-1, (1 << 63) - 1) if key.endswith("place")]
        for other in others:
            with pytest.raises(StreamError, match="state: "):
                side.stream().restore(_state({**tensors, key: other.contiguous()}, values))
    side.stream().restore(_state(tensors, values))


@pytest.mark.parametrize(("which", "by"), [(0, -(1 << 40)), *product((1, 2), (-1, 1, 1 << 40))])
def test_a_forged_place_of_another_rate_is_refused(which: int, by: int) -> None:
    stream = VOC.stream(rate=12000, format="s16")
    stream.push(mel_of(VOC, 31))
    tensors, values = _parsed(stream.state())
    values["delivery"][which] += by
    with pytest.raises(StreamError, match="state: "):
        VOC.stream(rate=12000, format="s16").restore(_state(tensors, values))


def _state(tensors: dict[str, Tensor], values: dict[str, Any]) -> bytes:
    text = json.dumps(values)
    return save(tensors, {"fastvoc.stream": text, "sha256": _digest(text, tensors)})


@pytest.mark.parametrize("where", ["version", "facts", "empty", "counters", "stream", "clipped", "named", "sized"])
def test_values_of_another_form_are_refused_and_change_nothing(where: str) -> None:
    stream, mel = VOC.stream(), mel_of(VOC, FRAMES)
    tensors, values = _parsed(stream.state())
    stream.push(mel[:, :31])
    key = {"named": "empty", "sized": "empty"}.get(where, where)
    others: list[Any] = [1.5, "x", {"a": 1.5}, [1, 2, 3], [1 << 70] * 5, [[1.5]]]
    others = {
        "named": [{"a": ["torch.load", 0]}, {"a": [0]}],
        "sized": [{"a": ["torch.float32", *n]} for n in ([3], [0, -1], [0, None])],
    }.get(where, others)
    forged = [{**values, key: other} for other in others] + [{k: v for k, v in values.items() if k != key}]
    for changed in forged:
        with pytest.raises(StreamError, match="state: "):
            stream.restore(_state(tensors, changed))
    twin = VOC.stream()
    twin.push(mel[:, :31])
    assert torch.equal(stream.flush(mel[:, 31:]), twin.flush(mel[:, 31:]))


@pytest.mark.native
@pytest.mark.parametrize("family", FAMILIES)
def test_a_state_holds_what_was_written_alone(family: str, nan_poison: None) -> None:
    voc = vocoder(family)
    mel = mel_of(voc, FRAMES)
    with fastvoc.use_backend("cpp"):
        stream = voc.stream()
    for frames in (0, 1, 1, 3, 30):
        stream.push(mel[:, :frames])
        tensors, _ = _parsed(stream.state())
        assert all(t.isfinite().all() for t in tensors.values() if t.is_floating_point())
