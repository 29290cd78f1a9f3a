"""attention_block: a layer of a transformer along time that sees so many steps of the past (arXiv 1706.03762)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fastvoc.errors import ArgumentError, DeviceError, DtypeError, ShapeError
from fastvoc.ops._checks import by_item, check_activations
from fastvoc.ops._cpp import floats, register_cpp
from fastvoc.ops._cuda import fits_conv_tile, register_cuda
from fastvoc.ops._reference import output
from fastvoc.ops._triton import register_triton
from fastvoc.ops.layer_norm import LayerNormParams
from fastvoc.runtime import library as _library
from fastvoc.runtime import packing
from fastvoc.runtime.native import Native, like_rows
from fastvoc.runtime.registry import Spec, define

# Steps whose scores the reference holds at once.
_BLOCK = 512

# Channels of a head, at most, in csrc/cuda/attend.cuh.
_CUDA_HEAD = 256


@dataclass(frozen=True)
class AttentionBlockParams:
    """Weights of a layer: attention and a network of two linear layers, each behind a norm and added to its input.

    query [heads * D, C], key and value [kv_heads * D, C], head by head; out [C, heads * D]; expand [F, C]; project
    [C, F]; scale1 and scale2 [C] or None: what the two are multiplied with before they are added (LayerScale,
    arXiv 2103.17239). A step attends to itself and to the `window` - 1 before it.
    Queries and keys are turned by their step's place in the signal: channel i of the first half of a head together with
    channel i of the second, by place * `theta` ** (-2 i / D) (RoPE, arXiv 2104.09864).
    ranges: [4, 2] float32, the least and the greatest input of the products by query, key and value, by out, by expand
    and by project, where they are of whole numbers: bytes times int8 weights, a step for each output channel.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    out: Tensor
    expand: Tensor
    project: Tensor
    norm1: LayerNormParams
    norm2: LayerNormParams
    scale1: Tensor | None
    scale2: Tensor | None
    heads: int
    kv_heads: int
    window: int
    theta: float = 10000.0
    ranges: Tensor | None = None

    def __post_init__(self) -> None:
        name = "attention_block"
        for field in ("heads", "kv_heads", "window"):
            if getattr(self, field) < 1:
                raise ArgumentError(f"{name}: {field}: expected 1 or more, got {getattr(self, field)}")
        if self.heads % self.kv_heads:
            raise ArgumentError(f"{name}: kv_heads: expected a divisor of {self.heads} heads, got {self.kv_heads}")
        if not self.theta > 0:
            raise ArgumentError(f"{name}: theta: expected a positive number, got {self.theta}")
        rows, channels = self.query.shape if self.query.dim() == 2 else (0, 0)
        size = rows // self.heads
        if size * self.heads != rows or size % 2 or not size:
            raise ShapeError(
                f"{name}: query: expected [{self.heads} * D, C] with an even D, got {list(self.query.shape)}"
            )
        hidden = self.expand.shape[0]
        expected = {
            "key": (self.kv_heads * size, channels),
            "value": (self.kv_heads * size, channels),
            "out": (channels, self.heads * size),
            "expand": (hidden, channels),
            "project": (channels, hidden),
            "scale1": (channels,),
            "scale2": (channels,),
        }
        for field, shape in expected.items():
            tensor: Tensor | None = getattr(self, field)
            if tensor is not None and tensor.shape != shape:
                raise ShapeError(f"{name}: {field}: expected {list(shape)}, got {list(tensor.shape)}")
        for field, norm in (("norm1", self.norm1), ("norm2", self.norm2)):
            if norm.weight.shape != (channels,):
                raise ShapeError(f"{name}: {field}: weight: expected [{channels}], got {list(norm.weight.shape)}")
        if self.ranges is not None and self.ranges.shape != (4, 2):
            raise ShapeError(f"{name}: ranges: expected [4, 2], got {list(self.ranges.shape)}")
        if self.ranges is not None and self.ranges.dtype is not torch.float32:
            raise DtypeError(f"{name}: ranges: expected {torch.float32}, got {self.ranges.dtype}")
        if self.ranges is not None and self.ranges.device != self.query.device:
            raise DeviceError(f"{name}: ranges: expected a tensor on {self.query.device}, got {self.ranges.device}")

    @property
    def int8(self) -> bool:
        """Whether it multiplies whole numbers."""
        return self.ranges is not None

    @property
    def widest(self) -> int:
        """Inputs of the product that takes most."""
        return max(t.shape[1] for t in (self.query, self.out, self.expand, self.project))

    @property
    def channels(self) -> int:
        """C."""
        return self.query.shape[1]

    @property
    def head_dim(self) -> int:
        """D."""
        return self.query.shape[0] // self.heads

    @property
    def kept(self) -> int:
        """Channels of the keys, and of the values."""
        return self.kv_heads * self.head_dim

    def frequencies(self) -> Tensor:
        """[D / 2] float32: how far a step turns each pair of channels, in radians."""
        even = torch.arange(0, self.head_dim, 2, dtype=torch.float32, device=self.query.device)
        return 1.0 / self.theta ** (even / self.head_dim)

    def tensors(self) -> list[Tensor]:
        """The weights, and the ranges where there are any."""
        scales = [t for t in (self.scale1, self.scale2) if t is not None]
        own = [self.query, self.key, self.value, self.out, self.expand, self.project]
        ranges = [] if self.ranges is None else [self.ranges]
        return [*own, *self.norm1.tensors(), *self.norm2.tensors(), *scales, *ranges]

    def zero_state(self, batch: int, places: int) -> tuple[Tensor, Tensor, Tensor]:
        """The state (keys, values, place) at the beginning of a stream, with rings of at least so many places."""
        size = -(-max(places, self.window) // packing.PANEL) * packing.PANEL
        keys = self.query.new_zeros((batch, self.kept, size))
        return keys, self.query.new_zeros((batch, size, self.kept)), keys.new_zeros(batch, dtype=torch.int64)


def _check(
    x: Tensor,
    params: AttentionBlockParams,
    lengths: Tensor | None = None,
    keys: Tensor | None = None,
    values: Tensor | None = None,
    place: Tensor | None = None,
) -> None:
    check_activations("attention_block", x, params.channels, params.query, lengths)
    if keys is None and values is None and place is None:
        return
    size = 0 if values is None or values.dim() != 3 else values.shape[1]
    if size < params.window or size % packing.PANEL:
        wanted = f"rings of {params.window} places or more, a multiple of {packing.PANEL}"
        raise ShapeError(f"attention_block: state: expected {wanted}, got {size}")
    batch, kept = x.shape[0], params.kept
    expected = {"keys": (batch, kept, size), "values": (batch, size, kept), "place": (batch,)}
    for (name, shape), part in zip(expected.items(), (keys, values, place), strict=True):
        if part is None or part.shape != shape or not part.is_contiguous():
            got = None if part is None else f"{list(part.shape)} with strides {part.stride()}"
            raise ShapeError(f"attention_block: state: {name}: expected a contiguous {list(shape)}, got {got}")
        dtype = torch.int64 if name == "place" else x.dtype
        if part.dtype != dtype:
            raise DtypeError(f"attention_block: state: {name}: expected {dtype}, got {part.dtype}")
        if part.device != x.device:
            raise DeviceError(f"attention_block: state: {name}: expected a tensor on {x.device}, got {part.device}")


def attention_block_ref(
    x: Tensor,
    params: AttentionBlockParams,
    lengths: Tensor | None = None,
    keys: Tensor | None = None,
    values: Tensor | None = None,
    place: Tensor | None = None,
) -> Tensor:
    """h = x + scale1 * out(attend(norm1(x))); y = h + scale2 * project(gelu(expand(norm2(h)))).

    The exact GELU; scores are products over sqrt(D), and their softmax is float32 at least. Keys and values are rounded
    to the dtype of x. float16 and bfloat16 compute in float32. With `params.ranges` the weights and their inputs are
    whole numbers; norms, scores, what scores weigh and the residual stay in floating point.

    Args:
        x: [B, C, T], dtype and device of the weights; time-major strides are the fast ones.
        params: the weights.
        lengths: [B] int64 on the CPU, valid steps of each item; what lies beyond is never read, the output there is 0.
        keys, values, place: [B, kv_heads * D, R], [B, R, kv_heads * D], [B] int64, as `params.zero_state` makes them:
            rings of R >= window places, in which the step at place p of the signal has entry p % R. x begins at
            each item's `place`. Keys and values of its steps replace the oldest ones in place; `place` stays. The
            signals begin at x when None.

    Returns:
        [B, C, T].

    Raises:
        ShapeError, DtypeError, DeviceError, ArgumentError: a wrong argument.
    """
    if lengths is not None:

        def one(item: Tensor, i: int) -> Tensor:
            state = (None if t is None else t[i : i + 1] for t in (keys, values, place))
            return attention_block_ref(item, params, None, *state)

        return by_item(x, lengths, x.shape[2], one)
    wide = torch.float64 if x.dtype is torch.float64 else torch.float32
    rows, reach = x.transpose(1, 2).to(wide), params.window - 1
    begin = x.new_zeros(len(x), dtype=torch.int64) if place is None else place
    past = [rows.new_empty((len(x), 0, params.kept))] * 2
    if keys is not None and values is not None:
        where = _entries(begin, reach, values.shape[1])
        past = [_taken(ring, where).to(wide) for ring in (keys.transpose(1, 2), values)]
    parts = []
    for part in rows.split(_BLOCK, 1):
        y, past = _layer(part, params, past, begin, x.dtype)
        begin = begin + part.shape[1]
        parts.append(y)
    if keys is not None and values is not None:
        count = past[0].shape[1]
        where, known = _entries(begin, count, values.shape[1]), _places(begin, count) >= 0
        for ring, new in zip((keys.transpose(1, 2), values), past, strict=True):
            index = where[:, :, None].expand(-1, -1, params.kept)
            kept = torch.where(known[:, :, None], new.detach().to(ring.dtype), _taken(ring, where))
            ring.scatter_(1, index, kept)
    return torch.cat(parts, 1).transpose(1, 2).to(x.dtype)


def _places(end: Tensor, count: int) -> Tensor:
    """The `count` places before each item's `end`: [B, count]."""
    return end[:, None] + torch.arange(-count, 0, device=end.device)


def _entries(end: Tensor, count: int, size: int) -> Tensor:
    """Where a ring of this size has them."""
    return _places(end, count) % size


def _taken(ring: Tensor, where: Tensor) -> Tensor:
    """Entries [B, n] of a ring [B, R, C]."""
    return ring.gather(1, where[:, :, None].expand(-1, -1, ring.shape[2]))


def _layer(
    rows: Tensor, params: AttentionBlockParams, past: list[Tensor], begin: Tensor, dtype: torch.dtype
) -> tuple[Tensor, list[Tensor]]:
    """The layer on rows [B, T, C] behind the past keys and values, and what the next rows will need of those.

    `dtype` is that of keys and values.
    """
    p, count = params, rows.shape[1]
    turn = _places(begin + count, count)[:, :, None].double() * p.frequencies().double()
    normal = _norm(rows, p.norm1)
    q, k, v = (_product(normal, weight, p.ranges, 0) for weight in (p.query, p.key, p.value))
    q, k = (_turned(t.unflatten(2, (-1, p.head_dim)), turn) for t in (q, k))
    k = torch.cat([past[0], k.flatten(2).to(dtype).to(rows.dtype)], 1)
    v = torch.cat([past[1], v.to(dtype).to(rows.dtype)], 1)
    broken = ~v.isfinite().all(2)  # times a weight of 0 they would be NaN, also where they are not seen
    whole = v.masked_fill(broken[:, :, None], 0.0)
    heads = [t.unflatten(2, (p.kv_heads, -1)).repeat_interleave(p.heads // p.kv_heads, 2) for t in (k, whole)]
    own, places = _places(begin + count, count), _places(begin + count, k.shape[1])
    back = own[:, :, None] - places[:, None]
    seen = (back >= 0) & (back < p.window) & (places >= 0)[:, None]
    scores = torch.einsum("bqhd,bkhd->bhqk", q, heads[0]) * p.head_dim**-0.5
    weight = scores.masked_fill(~seen[:, None], -torch.inf).softmax(3)
    mixed = torch.einsum("bhqk,bkhd->bqhd", weight, heads[1]).flatten(2)
    mixed = mixed.masked_fill((seen & broken[:, None]).any(2)[:, :, None], torch.nan)
    rows = rows + _scaled(_product(mixed, p.out, p.ranges, 1), p.scale1)
    hidden = F.gelu(_product(_norm(rows, p.norm2), p.expand, p.ranges, 2))
    rows = rows + _scaled(_product(hidden, p.project, p.ranges, 3), p.scale2)
    first = max(k.shape[1] - (p.window - 1), 0)
    return rows, [k[:, first:], v[:, first:]]


def _product(rows: Tensor, weight: Tensor, ranges: Tensor | None, which: int) -> Tensor:
    """Rows times a weight; of whole numbers where there are ranges, whose sums float64 holds exactly."""
    if ranges is None:
        return F.linear(rows, weight.to(rows.dtype))
    grid = packing.ByteGrid.over(ranges[which])
    whole, step = packing.quantise_weight(weight)
    sums = F.linear(grid.centred(rows).double(), whole.double())
    return sums.to(rows.dtype) * (grid.step * step).to(rows.dtype)


def _norm(rows: Tensor, norm: LayerNormParams) -> Tensor:
    return F.layer_norm(rows, rows.shape[2:], norm.weight.to(rows.dtype), norm.bias.to(rows.dtype), norm.eps)


def _turned(x: Tensor, turn: Tensor) -> Tensor:
    """[B, T, heads, D] with every pair of channels turned by its angle [B, T, D / 2]."""
    first, second = x.chunk(2, 3)
    cos, sin = (t[:, :, None].to(x.dtype) for t in (turn.cos(), turn.sin()))
    return torch.cat([first * cos - second * sin, second * cos + first * sin], 3)


def _scaled(x: Tensor, scale: Tensor | None) -> Tensor:
    return x if scale is None else x * scale.to(x.dtype)


class _Packed(NamedTuple):
    weight: Tensor
    norms: Tensor
    frequencies: Tensor
    channels: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    window: int
    eps1: float
    eps2: float
    integers: Tensor | None  # of whole numbers: `pack_integer_bias` of each product, without a bias
    grids: list[float]  # and how its inputs become bytes: four times `steps`, then four zeros


def _pack(params: AttentionBlockParams, pack: Callable[[Tensor], Tensor] = packing.pack_pairs) -> _Packed:
    """The weights in the order of their use, what is added scaled; the norms' scales and shifts in float32."""
    p = params
    scaled = [
        w.detach() if s is None else (w.detach().double() * s.detach().double()[:, None]).to(w.dtype)
        for w, s in ((p.out, p.scale1), (p.project, p.scale2))
    ]
    mixed = torch.cat([p.query, p.key, p.value]).detach()
    products = [mixed, scaled[0], p.expand.detach(), scaled[1]]
    small = [packing.pad_bias(t, p.channels, t).float() for norm in (p.norm1, p.norm2) for t in norm.tensors()]
    return _Packed(
        torch.cat([pack(w).flatten() for w in products]),
        torch.cat(small),
        p.frequencies(),
        *(p.channels, p.heads, p.kv_heads, p.head_dim, p.expand.shape[0], p.window),
        *(p.norm1.eps, p.norm2.eps),
        None,
        [],
    )


def _pack_cpp(params: AttentionBlockParams) -> _Packed:
    """For the CPU, where the weights may be whole numbers; the scales of what is added then go into the steps."""
    p = params
    if p.ranges is None:
        return _pack(p)
    grids = [packing.ByteGrid.over(span) for span in p.ranges]
    weights, integers = [], []
    products = (torch.cat([p.query, p.key, p.value]), None), (p.out, p.scale1), (p.expand, None), (p.project, p.scale2)
    for (weight, scale), grid in zip(products, grids, strict=True):
        whole, step = packing.quantise_weight(weight)
        step = step if scale is None else step * scale.detach()
        weights.append(packing.pack_conv_groups(whole.to(torch.int8)[:, :, None]).flatten())
        integers.append(packing.pack_integer_bias(None, whole[None, :, :, None], step, grid))
    shape = [*(grid.steps for grid in grids), *(float(grid.zero) for grid in grids)]
    return _pack(p)._replace(weight=torch.cat(weights), integers=torch.cat(integers), grids=shape)


def _supports_cpp(spec: Spec) -> str | None:
    if spec.params.int8:
        return _library.cpu_integer_refusal(spec.dtype, spec.params.widest)
    return floats(spec)


def _supports_triton(spec: Spec) -> str | None:
    return "does not multiply whole numbers" if spec.params.int8 else None


def _pack_product(weight: Tensor) -> Tensor:
    """As conv1d's CUDA kernels take it."""
    tiles = fits_conv_tile(weight.dtype, weight.shape[1], weight.shape[0], packing.TILE_STEPS)
    return (packing.pack_conv_tiles if tiles else packing.pack_conv)(weight[:, :, None])


def _pack_cuda(params: AttentionBlockParams) -> _Packed:
    return _pack(params, _pack_product)


def _supports_cuda(spec: Spec) -> str | None:
    size = spec.params.head_dim
    if spec.params.int8:
        return "does not multiply whole numbers"
    return None if size <= _CUDA_HEAD else f"takes heads of {_CUDA_HEAD} channels at most, not {size}"


NATIVE = Native("attention_block", _Packed, like_rows, attention_block_ref, mutates=("keys", "values"))


class AttentionStream:
    """attention_block between two chunks, by `run(x, keys, values, place)`, which writes into the rings.

    The rings have more places than the window, so that the steps of a chunk replace none that the state before still
    reads: a snapshot of it stays whole. What others may hold is copied before it is written to.
    """

    # Steps that the rings take beyond the window.
    SPARE = 32

    def __init__(self, params: AttentionBlockParams, run: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> None:
        self._params, self._run = params, run
        self._state: tuple[Tensor, Tensor, Tensor] | None = None
        self._own = False

    @property
    def counters(self) -> tuple[int, ...]:
        """Every item knows its own place."""
        return (int(self._state is not None),)

    def tensors(self) -> dict[str, Tensor]:
        """The rings and the places, batch first."""
        if self._state is None:
            return {}
        self._own = False
        return dict(zip(("keys", "values", "place"), self._state, strict=True))

    def restore(self, tensors: dict[str, Tensor], counters: tuple[int, ...]) -> None:
        """Continues from another one's `tensors`."""
        self._state = (tensors["keys"], tensors["values"], tensors["place"]) if tensors else None
        self._own = False

    def fits(self, batch: int) -> bool:
        """Whether the rings and places, if any, are those of so many signals."""
        if self._state is None:
            return True
        zeros = self._params.zero_state(batch, self._params.window - 1 + self.SPARE)
        same = all(a.shape == b.shape and a.dtype is b.dtype for a, b in zip(self._state, zeros, strict=True))
        return same and bool(((self._state[2] >= 0) & (self._state[2] < 1 << 62)).all())

    def step(self, x: Tensor, final: bool) -> Tensor:
        """[B, C, n] -> [B, C, n]."""
        if x.shape[2] == 0:
            return x.new_empty((x.shape[0], self._params.channels, 0))
        if self._state is None:
            places = self._params.window - 1 + self.SPARE
            keys, values, place = self._params.zero_state(x.shape[0], places)
        else:
            keys, values, place = self._state
            if not self._own or x.shape[2] > keys.shape[2] - (self._params.window - 1):
                keys, values = (t.clone(memory_format=torch.contiguous_format) for t in (keys, values))
        y = self._run(x, keys, values, place)
        self._state, self._own = (keys, values, place + x.shape[2]), True
        return y

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """Those of this layer alone."""
        return first - (self._params.window - 1), last


def _stream_ref(params: AttentionBlockParams, _: Any) -> AttentionStream:
    return AttentionStream(params, lambda x, *state: attention_block_ref(x, params, None, *state))


def _stream_native(params: AttentionBlockParams, packed: _Packed) -> AttentionStream:
    native = NATIVE.bound(packed)
    return AttentionStream(params, lambda x, *state: native(x, None, *state))


def _stream_device(params: AttentionBlockParams, run: Callable[..., Tensor], packed: Any, _: object) -> AttentionStream:
    return AttentionStream(params, lambda x, *state: run(x, packed, None, *state))


def _work(x: Tensor, params: AttentionBlockParams, *_: Tensor | None) -> tuple[int, Tensor]:
    """Scores and sums over the window, as far as the signal goes, and the six linear layers."""
    batch, steps, window = x.shape[0], x.shape[2], params.window
    seen = sum(min(t + 1, window) for t in range(steps))
    weights = params.query, params.key, params.value, params.out, params.expand, params.project
    scores = 2 * seen * params.heads * params.head_dim
    return batch * (steps * sum(t.numel() for t in weights) + scores), output(x, *x.shape)


OP = attention_block = define("attention_block", _check, attention_block_ref, _work, _stream_ref)
register_cpp(OP, NATIVE, _pack_cpp, _supports_cpp, stream=_stream_native)
register_cuda(OP, NATIVE.run, _pack_cuda, _supports_cuda, stream=_stream_device)
register_triton(OP, _supports_triton, stream=_stream_device)
