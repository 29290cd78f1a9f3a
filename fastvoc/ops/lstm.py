"""lstm: stacked long short-term memory layers along the time axis (Hochreiter & Schmidhuber 1997)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastvoc.errors import ArgumentError, BackendError, DeviceError, DtypeError, ShapeError
from fastvoc.ops._checks import by_item, check_activations
from fastvoc.ops._cpp import register_cpp
from fastvoc.ops._cuda import register_cuda
from fastvoc.ops._reference import full_float32, output
from fastvoc.ops._triton import refuse_triton
from fastvoc.runtime import packing
from fastvoc.runtime.lengths import on_device, planned
from fastvoc.runtime.native import Native
from fastvoc.runtime.registry import Spec, define

Layer = tuple[Tensor, Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class LstmParams:
    """Weights of L layers, each (w_ih [4H, inputs], w_hh [4H, H], b_ih [4H], b_hh [4H]).

    The gates lie in torch's order: input, forget, cell, output. With `bidirectional` every layer has two entries,
    forwards then backwards in time, and gives 2H channels, the forward ones first. `skip` adds the input to the output,
    which takes as many channels.
    """

    layers: tuple[Layer, ...]
    skip: bool = False
    bidirectional: bool = False

    def __post_init__(self) -> None:
        if not self.layers or len(self.layers) % self.directions:
            raise ArgumentError(f"lstm: layers: expected one or more for each direction, got {len(self.layers)}")
        hidden, inputs = self.hidden, self.inputs
        for i, layer in enumerate(self.layers):
            expected = [(4 * hidden, inputs), (4 * hidden, hidden), (4 * hidden,), (4 * hidden,)]
            shapes = [tuple(t.shape) for t in layer]
            if shapes != expected:
                raise ShapeError(f"lstm: layers: entry {i}: expected shapes {expected}, got {shapes}")
            if (i + 1) % self.directions == 0:
                inputs = self.outputs
        if self.skip and self.inputs != self.outputs:
            raise ShapeError(f"lstm: skip: {self.inputs} input channels cannot be added to {self.outputs}")

    @property
    def directions(self) -> int:
        """1, or 2 when bidirectional."""
        return 2 if self.bidirectional else 1

    @property
    def inputs(self) -> int:
        """Input channels."""
        return self.layers[0][0].shape[1]

    @property
    def hidden(self) -> int:
        """Channels of the state of a layer and direction."""
        return self.layers[0][1].shape[1]

    @property
    def outputs(self) -> int:
        """Output channels."""
        return self.hidden * self.directions

    def tensors(self) -> list[Tensor]:
        """The weights."""
        return [t for layer in self.layers for t in layer]

    def zero_state(self, batch: int) -> tuple[Tensor, Tensor]:
        """The state (h, c) at the beginning of a stream, each [L, batch, H], zeros in `state_dtype`."""
        like = self.layers[0][1].new_empty(0, dtype=self.state_dtype)
        shape = (len(self.layers), batch, self.hidden)
        return like.new_zeros(shape), like.new_zeros(shape)

    @property
    def state_dtype(self) -> torch.dtype:
        """float32, or float64 like the weights: a shorter state would drift."""
        return torch.float64 if self.layers[0][1].dtype is torch.float64 else torch.float32


def _check(
    x: Tensor, params: LstmParams, lengths: Tensor | None = None, h: Tensor | None = None, c: Tensor | None = None
) -> None:
    check_activations("lstm", x, params.inputs, params.layers[0][0], lengths)
    if h is None and c is None:
        return
    if params.bidirectional:
        raise ArgumentError("lstm: state: a bidirectional lstm cannot continue a stream")
    expected = (len(params.layers), x.shape[0], params.hidden)
    for name, part in (("h", h), ("c", c)):
        if part is None or part.shape != expected or not part.is_contiguous():
            got = None if part is None else f"{list(part.shape)} with strides {part.stride()}"
            raise ShapeError(f"lstm: state: {name}: expected a contiguous {list(expected)}, got {got}")
        if part.dtype != params.state_dtype:
            raise DtypeError(f"lstm: state: {name}: expected {params.state_dtype}, got {part.dtype}")
        if part.device != x.device:
            raise DeviceError(f"lstm: state: {name}: expected a tensor on {x.device} like x, got {part.device}")


def lstm_ref(
    x: Tensor, params: LstmParams, lengths: Tensor | None = None, h: Tensor | None = None, c: Tensor | None = None
) -> Tensor:
    """y = lstm(x), plus x with `skip`.

    float16 and bfloat16 compute in float32.

    Args:
        x: [B, C, T], dtype and device of the weights; time-major strides are the fast ones.
        params: weights.
        lengths: [B] int64 on the CPU, valid steps of each item; what lies beyond is never read, the output there is 0.
        h, c: each a contiguous [L, B, H] in `params.state_dtype`, where each item's layers begin; both are advanced in
            place to each item's last valid step, and autograd does not see them. Zeros when both are None. Not with
            `bidirectional`.

    Returns:
        [B, H, T], [B, 2H, T] when bidirectional.

    Raises:
        ShapeError, DtypeError, DeviceError, ArgumentError: a wrong argument.
    """
    if lengths is not None and planned() and h is None and not params.bidirectional:
        # In a graph, which reads no lengths on the host: no step depends on later ones, so that they may be anything.
        y = lstm_ref(x, params)
        beyond = torch.arange(x.shape[2], device=x.device) >= on_device(lengths, x)[:, None]
        return y.masked_fill(beyond[:, None], 0)
    if lengths is not None:

        def one(item: Tensor, i: int) -> Tensor:
            if h is None or c is None:
                return lstm_ref(item, params)
            state = h[:, i : i + 1].contiguous(), c[:, i : i + 1].contiguous()
            y = lstm_ref(item, params, None, *state)
            h[:, i : i + 1], c[:, i : i + 1] = state
            return y

        return by_item(x, lengths, x.shape[2], one)
    start = params.zero_state(x.shape[0]) if h is None or c is None else (h, c)
    count = len(params.layers) // params.directions
    wide, weights = x.to(params.state_dtype), [t.to(params.state_dtype) for t in params.tensors()]
    with full_float32(x):
        y, h_end, c_end = torch.lstm(
            wide.permute(2, 0, 1), start, weights, True, count, 0.0, False, params.bidirectional, False
        )
    if h is not None and c is not None:
        h.copy_(h_end.detach())
        c.copy_(c_end.detach())
    y = y.permute(1, 2, 0)
    return (wide + y if params.skip else y).to(x.dtype)


class _Packed(NamedTuple):
    weight: Tensor
    bias: Tensor
    layers: int
    inputs: int
    hidden: int
    directions: int
    skip: bool


def _pack(params: LstmParams) -> _Packed:
    weights = [packing.pack_lstm(w).flatten() for w_ih, w_hh, _, _ in params.layers for w in (w_ih, w_hh)]
    biases = [packing.pack_lstm((b_ih.float() + b_hh.float())[:, None]).flatten() for *_, b_ih, b_hh in params.layers]
    count = len(params.layers) // params.directions
    shape = count, params.inputs, params.hidden, params.directions, params.skip
    return _Packed(torch.cat(weights), torch.cat(biases), *shape)


def _pack_cuda(params: LstmParams) -> _Packed:
    """Input weights as a convolution's and recurrent ones [H, 4, H] by unit; the biases summed, [4, H] in float32."""
    weights, biases = [], []
    for w_ih, w_hh, b_ih, b_hh in params.layers:
        by_unit = w_hh.detach().reshape(4, params.hidden, params.hidden).transpose(0, 1)
        weights += [packing.pack_conv(w_ih[:, :, None]).flatten(), by_unit.flatten()]
        biases.append((b_ih.float() + b_hh.float()).detach())
    return _pack(params)._replace(weight=torch.cat(weights), bias=torch.cat(biases))


def _fake(p: _Packed, x: Tensor, *_: Tensor | None) -> Tensor:
    return x.new_empty((x.shape[0], x.shape[2], p.hidden * p.directions)).transpose(1, 2)


NATIVE = Native("lstm", _Packed, _fake, lstm_ref, mutates=("h", "c"))


class LstmStream:
    """lstm between two chunks, by `run(x, h, c)`, which advances the state in place."""

    def __init__(self, params: LstmParams, run: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        if params.bidirectional:
            raise BackendError("lstm: a bidirectional one has no streaming form")
        self._params, self._run = params, run
        self._state: tuple[Tensor, Tensor] | None = None  # each [B, L, H]

    @property
    def counters(self) -> tuple[int, ...]:
        """Every step is like the others."""
        return ()

    def tensors(self) -> dict[str, Tensor]:
        """The state of every layer, batch first."""
        return {} if self._state is None else {"h": self._state[0], "c": self._state[1]}

    def restore(self, tensors: dict[str, Tensor], counters: tuple[int, ...]) -> None:
        """Continues from another one's `tensors`."""
        self._state = (tensors["h"], tensors["c"]) if tensors else None

    def fits(self, batch: int) -> bool:
        """Whether the state, if any, is one of so many signals."""
        wanted = batch, len(self._params.layers), self._params.hidden
        return self._state is None or all(
            t.shape == wanted and t.dtype is self._params.state_dtype for t in self._state
        )

    def step(self, x: Tensor, final: bool) -> Tensor:
        """[B, C, n] -> [B, H, n]."""
        if x.shape[2] == 0:
            return x.new_empty((x.shape[0], self._params.outputs, 0))
        if self._state is None:
            h, c = self._params.zero_state(x.shape[0])
        else:
            h, c = (t.transpose(0, 1).clone(memory_format=torch.contiguous_format) for t in self._state)
        y = self._run(x, h, c)
        self._state = h.transpose(0, 1), c.transpose(0, 1)
        return y

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """An output depends on all inputs up to its own; as a window, on that one."""
        return first, last


def _stream_ref(params: LstmParams, _: Any) -> LstmStream:
    return LstmStream(params, lambda x, h, c: lstm_ref(x, params, None, h, c))


def _stream_native(params: LstmParams, packed: _Packed) -> LstmStream:
    native = NATIVE.bound(packed)
    return LstmStream(params, lambda x, h, c: native(x, None, h, c))


def _stream_device(params: LstmParams, _: Callable[..., Tensor], packed: _Packed, __: object) -> LstmStream:
    return _stream_native(params, packed)


def _work(x: Tensor, params: LstmParams, *_: Tensor | None) -> tuple[int, Tensor]:
    weights = sum(w_ih.numel() + w_hh.numel() for w_ih, w_hh, *_ in params.layers)
    return x.shape[0] * x.shape[2] * weights, output(x, x.shape[0], params.outputs, x.shape[2])


_GROUP = 8  # items of a group of blocks, kLstmItems in csrc/cuda/lstm.cuh


def _fits_cuda(spec: Spec) -> str | None:
    """Whether the recurrent weights of a layer fit into the shared memory of all multiprocessors, as lstm.cuh asks."""
    if not torch.cuda.is_available():
        return None
    device = torch.cuda.get_device_properties(torch.cuda.current_device())
    room = getattr(device, "shared_memory_per_block_optin", device.shared_memory_per_block)
    hidden, places = spec.params.hidden, device.multi_processor_count
    units = -(-hidden // places)  # of a block, the fewest with which one a multiprocessor suffices
    weights = -(-units * 4 * hidden * spec.dtype.itemsize // 16) * 16
    if weights + _GROUP * (hidden + units * 4) * 4 <= room:
        return None
    return f"{hidden} units are too many for the shared memory of {places} multiprocessors"


OP = lstm = define("lstm", _check, lstm_ref, _work, _stream_ref)
register_cpp(OP, NATIVE, _pack, stream=_stream_native)
# Before torch's, which reads lengths on the host, so that no CUDA graph can have it.
register_cuda(OP, NATIVE.run, _pack_cuda, _fits_cuda, priority=4, stream=_stream_device)
refuse_triton(
    OP,
    "a step must wait for all of the one before it, which Triton's blocks cannot; cuDNN's, which torch runs, and the"
    " one of cuda keep their weights on the chip",
)
