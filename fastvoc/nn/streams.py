"""All layers of a model on a stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from fastvoc.nn.prepared import Layer, Prepared
from fastvoc.ops.stream import OpStream


class LayerStreams:
    """The state of every layer of a model for a batch of streams that are all at the same point.

    layers: by name, as the model lists them; `run(layer, x)` takes the next chunk through one of them. exact: whether
    each computes every sum in one order, so that chunks change no bit.
    """

    def __init__(self, layers: Mapping[str, Prepared], backend: str | None = None, *, exact: bool = True) -> None:
        self._streams: dict[str, OpStream] = {
            name: layer.stream(backend, exact=exact) for name, layer in layers.items()
        }
        self._by_layer = {id(layer): self._streams[name] for name, layer in layers.items()}
        self.final = False

    def __call__(self, layer: Layer, x: Tensor, *more: Tensor | None) -> Tensor:
        """[B, C, n] -> [B, C_out, m], `more` being the op's further tensors; the last chunk when `final` is set."""
        return self._by_layer[id(layer.prepared)].step(x, self.final, *more)

    def steps(self, layer: Layer) -> Callable[..., Tensor]:
        """What runs one layer: called with the next chunk and whether it is the last."""
        return self._by_layer[id(layer.prepared)].step

    def join(self, name: str, layers: Sequence[str], joined: Callable[[Sequence[OpStream]], OpStream | None]) -> bool:
        """Puts one stream in the place of those of `layers`, where `joined` makes one of them."""
        one = joined([self._streams[layer] for layer in layers])
        if one is not None:
            self._streams = {key: s for key, s in self._streams.items() if key not in layers} | {name: one}
        return one is not None

    def stream(self, name: str) -> Any:
        """The state of one layer."""
        return self._streams[name]

    def reads(self, name: str, first: int, last: int) -> tuple[int, int]:
        """The input steps that the output steps [first, last] of a layer depend on."""
        return self._streams[name].reads(first, last)

    @property
    def counters(self) -> dict[str, tuple[int, ...]]:
        """Where every layer stands."""
        return {name: stream.counters for name, stream in self._streams.items()}

    def tensors(self) -> dict[str, Tensor]:
        """All state, batch first, by layer and part."""
        return {f"{n}:{part}": t for n, stream in self._streams.items() for part, t in stream.tensors().items()}

    def restore(self, tensors: Mapping[str, Tensor], counters: Mapping[str, tuple[int, ...]]) -> None:
        """Continues from the state that another one's `tensors` and `counters` gave."""
        for name, stream in self._streams.items():
            own = {key.partition(":")[2]: t for key, t in tensors.items() if key.partition(":")[0] == name}
            stream.restore(own, counters[name])


class _Part(Protocol):
    """Something with state: LayerStreams, a Join, a model's own."""

    @property
    def counters(self) -> Any: ...
    def tensors(self) -> dict[str, Tensor]: ...
    def restore(self, tensors: dict[str, Tensor], counters: Any) -> None: ...


class ModelStream:
    """A batch of streams through a model, all at the same point; `parts` hold the state, by name.

    A model's own class adds `step` and `reads`.
    """

    parts: Mapping[str, _Part]

    def step(self, x: Tensor, final: bool, **inputs: Tensor) -> Tensor:
        """[B, n_mels, n >= 0] -> the samples [B, 1, m >= 0] that these frames complete; `final` ends the streams."""
        raise NotImplementedError

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """The first and last frame that the samples [first, last] depend on, far from either end."""
        raise NotImplementedError

    @property
    def counters(self) -> dict[str, Any]:
        """Where every part stands: streams with equal counters may be batched."""
        return {name: part.counters for name, part in self.parts.items()}

    def tensors(self) -> dict[str, Tensor]:
        """All state, batch first."""
        return {f"{name}/{key}": t for name, part in self.parts.items() for key, t in part.tensors().items()}

    def restore(self, tensors: Mapping[str, Tensor], counters: Mapping[str, Any]) -> None:
        """Continues from the state that another stream's `tensors` and `counters` gave."""
        for name, part in self.parts.items():
            own = {key.partition("/")[2]: t for key, t in tensors.items() if key.partition("/")[0] == name}
            part.restore(own, counters[name])


class Constant:
    """A part of the state that never changes: one row per stream, such as a choice made when it began."""

    def __init__(self, value: Tensor | None = None) -> None:
        self.value = value

    @property
    def counters(self) -> tuple[int, ...]:
        return ()

    def tensors(self) -> dict[str, Tensor]:
        return {} if self.value is None else {"value": self.value}

    def restore(self, tensors: dict[str, Tensor], counters: tuple[int, ...]) -> None:
        self.value = tensors.get("value", self.value)
