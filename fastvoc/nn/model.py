"""What every model has, whatever its network is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from fastvoc.nn.network import Network
from fastvoc.nn.pieces import in_pieces
from fastvoc.nn.prepared import Prepared
from fastvoc.nn.streams import ModelStream


class Stated(nn.Module):
    """A module that states its network once, in methods like `network(run, x)` (see `fastvoc.nn.network`)."""

    def reading(self, method: str = "network", per_frame: tuple[int, ...] = (1,), **choice: Any) -> Network:
        """The network that a method states: `choice` are its keywords, `per_frame` as `Network` has it."""
        networks: dict[Any, Network] = self.__dict__.setdefault("_networks", {})
        key = method, tuple(choice.items())
        if key not in networks:
            networks[key] = Network.of(self, partial(getattr(self, method), **choice), per_frame)
        return networks[key]

    def run(self, network: Network, *values: Tensor | None, lengths: Any = None, backend: str | None = None) -> Tensor:
        """A network on whole signals, piece by piece where they are long; `lengths` [B] are those of the first."""
        return in_pieces(network, values, lengths, backend)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_networks"}


class Model(Stated):
    """What stands behind a vocoder or a codec.

    inputs: what its `forward` takes by name besides the signal, the lengths and the backend; stream_options: what its
    `stream` takes; warmup_inputs: those of its inputs that a call cannot do without, with a value of no consequence.
    """

    inputs: tuple[str, ...] = ()
    stream_options: tuple[str, ...] = ()
    warmup_inputs: Mapping[str, Any] = MappingProxyType({})
    # (backend, *, exact, **options) -> its state for a signal in chunks; a codec has one for either direction instead.
    stream: Callable[..., ModelStream]

    def layers(self) -> dict[str, Prepared]:
        """The ops by the names of their layers, in order of use."""
        return self.reading().layers

    def prepare(self, backend: str | None = None) -> None:
        """Chooses every layer's implementation and packs its weights, so that the first call is as fast as the rest."""
        for layer in self.layers().values():
            weight = layer.weight()
            layer.prepare(weight.device, weight.dtype, backend)

    def input_shapes(self, frames: int) -> dict[str, tuple[int, ...]]:
        """The tensors that `forward` takes besides a signal of so many frames, without the batch axis."""
        return {}
