"""What every model has, whatever its network is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn

from fastvoc.errors import ArgumentError, ExportError
from fastvoc.nn.layer import Part
from fastvoc.nn.network import Network, Value
from fastvoc.nn.pieces import in_pieces
from fastvoc.nn.prepared import Prepared
from fastvoc.nn.quantized import QuantizedInput, Stage
from fastvoc.nn.streams import ModelStream

Array = Tensor | np.ndarray[Any, Any]
# What comes by name beside a signal: values for each step or item, or one choice for all.
Input = Array | float | Sequence[int] | Sequence[Tensor] | None


class Stated(nn.Module):
    """A module that states its network once, in methods like `network(run, x)` (see `fastvoc.nn.network`)."""

    def reading(self, method: str = "network", per_frame: tuple[int, ...] = (1,), **choice: Hashable) -> Network:
        """The network that a method states: `choice` are its keywords, `per_frame` as `Network` has it."""
        networks: dict[Any, Network] = self.__dict__.setdefault("_networks", {})
        key = method, per_frame, tuple(choice.items())
        if key not in networks:
            networks[key] = Network.of(self, partial(getattr(self, method), **choice), per_frame)
        return networks[key]

    def run(
        self, network: Network, *values: Tensor | None, lengths: Tensor | None = None, backend: str | None = None
    ) -> Tensor:
        """A network on whole signals, piece by piece where they are long; `lengths` [B] are those of the first."""
        return in_pieces(network, values, lengths, backend)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_networks"}


class Given(NamedTuple):
    """An input of a whole network: its axes, each a length or the name of an open one; whole numbers or floats."""

    axes: tuple[int | str, ...]
    whole: bool = False


@dataclass(frozen=True)
class Written:
    """A whole network as a file has it: its inputs by name, in the order in which `network(run, *values)` takes them.

    The output is [batch, channels, samples].
    """

    inputs: Mapping[str, Given]
    network: Callable[..., Value]


class Model(Stated):
    """What stands behind a vocoder or a codec.

    inputs: what its `forward` takes by name besides the signal, the lengths and the backend; stream_options: what its
    `stream` takes; warmup_inputs: those of its inputs that a call cannot do without, with a value of no consequence;
    min_frames: the least that it takes; codebooks: how many of a codec's it has, 0 where it takes no codes;
    predicts_f0: whether it has `predict_f0`.

    torch.compile and torch.export take what `prepare` packed, or what is packed when the graph is made: after a change
    of the weights another `prepare` has them compiled anew. They take calls without lengths and without gradients.
    """

    inputs: tuple[str, ...] = ()
    stream_options: tuple[str, ...] = ()
    warmup_inputs: Mapping[str, Any] = MappingProxyType({})
    min_frames: int = 1
    codebooks: int = 0
    predicts_f0: bool = False
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
            layer.repack(backend)

    def settle(self, meant: Callable[[], Model], backend: str | None = None) -> tuple[str, ...]:
        """Chooses what costs precision in bfloat16 on the CPU. `meant` makes this model in float32, prepared.

        Returns the names of the layers that stay in float32 for it.
        """
        return ()

    def input_shapes(self, frames: int) -> dict[str, tuple[int, ...]]:
        """The tensors that `forward` takes besides a signal of so many frames, without the batch axis."""
        return {}

    def written(self, chosen: Collection[str] = ()) -> Written:
        """The network from what a caller has to the waveform, for a file of another runtime.

        chosen: of `inputs` those that come from outside, where the network could make them itself.
        Raises ExportError for one that cannot, and where there is no such network.
        """
        raise ExportError(f"{type(self).__name__} cannot be exported")

    def _choose(self, chosen: Collection[str], *offered: str) -> None:
        """Raises ExportError for an input that is chosen and not offered."""
        if unknown := [name for name in chosen if name not in offered]:
            choices = f"expected some of {', '.join(offered)}" if offered else "there is none to choose"
            raise ExportError(f"inputs: {type(self).__name__} cannot take {unknown[0]!r} from outside; {choices}")

    def int8_stages(self) -> dict[str, Stage]:
        """What gains by computing in int8, by names of `layers`; `fastvoc.quantization` chooses among them."""
        return {}

    def int8_layers(self) -> dict[str, QuantizedInput]:
        """The layers of all `int8_stages` by name."""
        return {name: layer for stage in self.int8_stages().values() for name, layer in stage.layers.items()}

    def _parts_in_stages(self, network: Network, narrowest: int = 1) -> dict[str, Stage]:
        """The parts of a network whose inputs may be rounded, but for such of fewer channels than `narrowest`."""
        names = {module: name for name, module in self.named_modules()}
        found = {}
        for step in network.steps:
            part = step.does
            if isinstance(part, Part) and part.width() >= narrowest:
                inside = (module for owner in part.owners() for module in owner.modules())
                layers = {names[m]: m for m in inside if isinstance(m, QuantizedInput)}
                if layers:
                    found[step.name] = Stage(layers, float(part.saved_by_bytes() * network.rates[step.output]))
        return found

    def stream_inputs(self, x: Tensor, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
        """What comes with a chunk x [B, C, n] of its stream, checked. Raises ArgumentError for what it cannot take."""
        if inputs:
            raise ArgumentError(f"{min(inputs)}: no such input of a stream; it takes nothing but the chunk")
        return {}
