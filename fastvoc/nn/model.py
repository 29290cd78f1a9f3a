"""What every model has, whatever its network is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from fastvoc.errors import ArgumentError
from fastvoc.nn.network import Network
from fastvoc.nn.pieces import in_pieces
from fastvoc.nn.prepared import Prepared
from fastvoc.nn.quantized import QuantizedInput
from fastvoc.nn.streams import ModelStream


class Stated(nn.Module):
    """A module that states its network once, in methods like `network(run, x)` (see `fastvoc.nn.network`)."""

    def reading(self, method: str = "network", per_frame: tuple[int, ...] = (1,), **choice: Any) -> Network:
        """The network that a method states: `choice` are its keywords, `per_frame` as `Network` has it."""
        networks: dict[Any, Network] = self.__dict__.setdefault("_networks", {})
        key = method, per_frame, tuple(choice.items())
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
    `stream` takes; warmup_inputs: those of its inputs that a call cannot do without, with a value of no consequence;
    min_frames: the least that it takes; codebooks: how many of a codec's it has, 0 where it takes no codes;
    predicts_f0: whether it has `predict_f0`; float_layers: names of what an int8 model keeps in floating point, None
    where there is no int8 model.

    torch.compile and torch.export take what `prepare` packed, or what is packed when the graph is made: after a change
    of the weights another `prepare` has them compiled anew. They take calls without lengths and without gradients.
    """

    inputs: tuple[str, ...] = ()
    stream_options: tuple[str, ...] = ()
    warmup_inputs: Mapping[str, Any] = MappingProxyType({})
    min_frames: int = 1
    codebooks: int = 0
    predicts_f0: bool = False
    float_layers: tuple[str, ...] | None = None
    # (backend, *, exact, **options) -> its state for a signal in chunks; a codec has one for either direction instead.
    stream: Callable[..., ModelStream]
    decode_codes: Callable[..., Tensor]  # (codes, lengths, backend, **inputs) -> samples, where it has codebooks
    predict_f0: Callable[..., Tensor]  # (mel, lengths, *, backend) -> F0, where `predicts_f0`

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

    def int8_layers(self) -> dict[str, QuantizedInput]:
        """The layers by name that compute in int8 where it is converted to that: all that can but `float_layers`."""
        if self.float_layers is None:
            return {}
        return {
            name: layer
            for name, layer in self.named_modules()
            if isinstance(layer, QuantizedInput) and not any(f"{name}.".startswith(f"{k}.") for k in self.float_layers)
        }

    def stream_inputs(self, x: Tensor, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
        """What comes with a chunk x [B, C, n] of its stream, checked. Raises ArgumentError for what it cannot take."""
        if inputs:
            raise ArgumentError(f"{min(inputs)}: no such input of a stream; it takes nothing but the chunk")
        return {}
