"""The state of a stream as a safetensors file in memory: what it holds, whose it is, and whom it fits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastvoc.errors import StreamError, shown
from fastvoc.models.families import ModelConfig
from fastvoc.nn.model import Model
from fastvoc.nn.streams import ModelStream

VERSION = 4  # of names, shapes and counters of what a state holds
_SAMPLES = 64  # values of a tensor that are looked at
_DTYPES = {str(t): t for t in vars(torch).values() if isinstance(t, torch.dtype)}  # of what has no elements


def facts_of(model: Model, config: ModelConfig, options: Mapping[str, Any], backend: str | None) -> dict[str, object]:
    """What a stream through a model must have in common with one whose state it takes over.

    Values of options, such as a seed, are a part of the state; which ones there are is a fact.
    """
    given = {name: value for name, value in options.items() if value is not None}
    exact = given.pop("exact", True)
    names = [f"{name}={value}" if isinstance(value, bool) else name for name, value in given.items()]
    chosen = [layer.chosen(backend, exact=exact) or "none" for layer in model.layers().values()]
    runs = [(name, len(list(same))) for name, same in groupby(chosen)]
    described = json.dumps([config.family, config.to_dict()], sort_keys=True)
    tensors = model.state_dict()
    some = [t.detach().flatten()[:: max(1, t.numel() // _SAMPLES)].double() for t in tensors.values()]
    values = torch.cat(some).cpu().numpy().tobytes()
    return {
        "model": f"{config.family} ({_hash(described.encode())})",
        "dtype": ", ".join(sorted({str(t.dtype).removeprefix("torch.") for t in tensors.values()})),
        "weights": _hash(values),
        "implementations": ", ".join(f"{name} x {count}" for name, count in runs),
        "exact": exact,
        "options": ", ".join(sorted(names)),
    }


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def write(facts: Mapping[str, object], tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> bytes:
    """The state of a stream with these facts: its tensors, batch first, and plain values."""
    from safetensors.torch import save

    # Clones: some layers share a tail, and the format has no tensors that share memory.
    kept = {name: t.clone(memory_format=torch.contiguous_format) for name, t in tensors.items() if t.numel()}
    empty = {name: [str(t.dtype), *t.shape] for name, t in tensors.items() if not t.numel()}
    text = json.dumps({"version": VERSION, "facts": facts, "empty": empty, **values})
    return save(kept, {"fastvoc.stream": text, "sha256": _digest(text, kept)})


def read(state: bytes, facts: Mapping[str, object], device: torch.device) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and values that `write` was given, for a stream with the same facts.

    Raises StreamError for bytes that are damaged or no state, and names the first fact that differs.
    """
    tensors, values = _parsed(state)
    if values["version"] != VERSION:
        raise StreamError(f"state: version {values['version']}, expected {VERSION}")
    stated = values["facts"]
    for name in dict.fromkeys([*facts, *stated]):
        if stated.get(name) != facts.get(name):
            got, own = shown(stated.get(name)), shown(facts.get(name))
            raise StreamError(f"state: it belongs to another stream: {name} {got}, expected {own}")
    for name, (dtype, *shape) in values["empty"].items():
        tensors[name] = torch.empty(shape, dtype=_DTYPES[dtype], device="cpu")
    return {name: t.to(device) for name, t in tensors.items()}, _tuples(values)


class Place(NamedTuple):
    """Where a stream stands, as its state says it."""

    batch: int | None
    batched: bool
    given: int
    early: int
    sent: int
    clipped: int


def place(values: Mapping[str, Any]) -> Place:
    """The place among the values of a state. Raises StreamError where there is none."""
    stands = values.get("stream")
    if isinstance(stands, tuple) and len(stands) == 5:
        found = Place(*stands, values.get("clipped"))  # type: ignore[arg-type]
        counts = [*found[2:], 1 if found.batch is None else found.batch]
        if type(found.batched) is bool and all(type(n) is int and n >= 0 for n in counts) and counts[-1]:
            return found
    raise StreamError("state: where the stream stands: expected 5 numbers and how many samples were clipped")


def put(
    stream: ModelStream, tensors: Mapping[str, Tensor], counters: Mapping[str, Any], nothing: Tensor | None
) -> None:
    """Has a new stream go on from there. Raises StreamError where they are not those of such a stream.

    nothing: a chunk [B, C, 0] for the signals of the state, None before their first. A part that has met it alone keeps
    no steps of signals, but in the types and sizes of any state; one that meets it later completes and changes nothing.
    """
    cause = None
    try:
        if nothing is not None:
            stream.step(nothing, False)
        begins = _form(stream)
        stream.restore(tensors, counters)
        form = _form(stream)
        fits = form[1] == counters and form[0].keys() == tensors.keys() and _counts(counters)
        if nothing is None:
            fits = fits and form == begins
        elif fits:
            batch = len(nothing)
            fits = all(len(t) == batch for t in tensors.values()) and stream.fits(batch)
            fits = fits and all(_alike(form[0][name], begins[0].get(name, form[0][name])) for name in tensors)
            fits = fits and not stream.step(nothing, False).shape[-1] and _form(stream) == form
    except Exception as error:  # whatever a part says of a state that is not its own
        fits, cause = False, error
    if not fits:
        raise StreamError("state: its tensors and counters are not those of such a stream") from cause


def _form(stream: ModelStream) -> tuple[dict[str, tuple[torch.dtype, torch.Size]], Mapping[str, Any]]:
    """What a stream keeps, but for the values, and where it stands."""
    return {name: (t.dtype, t.shape) for name, t in stream.tensors().items()}, stream.counters


def _alike(form: tuple[torch.dtype, torch.Size], empty: tuple[torch.dtype, torch.Size]) -> bool:
    """Whether the type and shape of a tensor are those of one without steps, but for the steps."""
    same = form[0] is empty[0] and len(form[1]) == len(empty[1])
    return same and all(b in (0, a) for a, b in zip(form[1], empty[1], strict=True))


def _counts(value: Any) -> bool:
    """Whether nested counters are whole numbers of 0 or more."""
    if isinstance(value, Mapping):
        return all(map(_counts, value.values()))
    return all(map(_counts, value)) if isinstance(value, tuple) else type(value) is int and value >= 0


def _parsed(state: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    if not isinstance(state, bytes | bytearray | memoryview):
        raise StreamError(f"state: expected bytes, got {type(state).__name__}")
    raw = bytes(state)
    try:
        tensors = load(raw)
        header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]
        text, stated = header["fastvoc.stream"], header["sha256"]
        values = json.loads(text)
        if not _sound(values):
            raise ValueError("values of other types")
    except (SafetensorError, ValueError, LookupError, AttributeError, TypeError, RuntimeError) as error:
        raise StreamError(f"state: not the state of a stream, or damaged ({type(error).__name__})") from None
    if _digest(text, tensors) != stated:
        raise StreamError("state: damaged, its checksum differs")
    return tensors, values


def _sound(values: Any) -> bool:
    """Whether plain values have the form that `write` gives them."""
    empty, numbers = values["empty"], {key: v for key, v in values.items() if key not in ("facts", "empty")}
    sized = [n for _, *shape in empty.values() for n in shape]
    empties = all(one[0] in _DTYPES and 0 in one[1:] for one in empty.values())
    empties = empties and all(type(n) is int and 0 <= n < 1 << 31 for n in sized)
    return (
        isinstance(values["facts"], dict) and empties and {"version", "counters"} <= numbers.keys() and _whole(numbers)
    )


def _whole(value: Any) -> bool:
    """Whether there are whole numbers of 64 bits alone, or None, in nested lists and dicts."""
    if isinstance(value, dict | list):
        return all(map(_whole, value.values() if isinstance(value, dict) else value))
    return value is None or (isinstance(value, int) and abs(value) < 1 << 62)


def _tuples(value: Any) -> Any:
    """Counters as they were before JSON made lists of them."""
    if isinstance(value, dict):
        return {key: _tuples(v) for key, v in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
