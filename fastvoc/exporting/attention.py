"""Attention along time, over all steps at once."""

from __future__ import annotations

import math

import torch

from fastvoc.exporting.convolutions import normalised
from fastvoc.exporting.emitters import emits, emits_part
from fastvoc.exporting.wire import Wire, concat
from fastvoc.nn.local_attention import HEAD, Windows, frequencies
from fastvoc.ops.attention_block import AttentionBlockParams

_UNSEEN = -1e30  # a score whose weight is 0


def _turned(x: Wire, cosine: Wire, sine: Wire) -> Wire:
    """[..., T, D] with channel i and i + D / 2 turned by an angle of the step, [T, D / 2]."""
    first, second = x.chunk(2, len(x.shape) - 1)
    return concat([first * cosine - second * sine, second * cosine + first * sine], len(x.shape) - 1)


def _softmax(x: Wire) -> Wire:
    return x.graph.add("Softmax", x, shape=x.shape, axis=-1)


@emits(AttentionBlockParams)
def attention_block(params: AttentionBlockParams, x: Wire) -> Wire:
    """Attention to a window of the past and two linear layers, each behind a norm and added to its input."""
    p, graph, batch, steps = params, x.graph, x.shape[0], x.shape[2]
    size, rows = p.head_dim, x.transpose(1, 2)
    normal = normalised(rows, p.norm1, None)

    def heads(weight: torch.Tensor, count: int) -> Wire:
        made = (normal @ weight.t()).reshape(0, 0, count, size, shape=(batch, steps, count, size))
        return made.permute(0, 2, 1, 3)

    count = x.size(2).reshape(shape=())
    zero, one = (graph.constant(n, torch.int64) for n in (0, 1))
    places = graph.add("Range", zero, count, one, shape=(steps,), dtype=torch.int64)
    turn = places.to(torch.float32).unsqueeze(1) * p.frequencies()
    cosine, sine = (turn.unary(kind).to(x.dtype) for kind in ("Cos", "Sin"))
    queries = _turned(heads(p.query, p.heads), cosine, sine)
    keys, values = _turned(heads(p.key, p.kv_heads), cosine, sine), heads(p.value, p.kv_heads)
    if p.kv_heads < p.heads:
        keys, values = (_shared(part, p.heads // p.kv_heads) for part in (keys, values))
    back = places.unsqueeze(1) - places.unsqueeze(0)
    seen = graph.add(
        "And",
        back.compare("GreaterOrEqual", 0),
        back.compare("Less", p.window),
        shape=(steps, steps),
        dtype=torch.bool,
    )
    scores = queries @ keys.transpose(2, 3) * size**-0.5
    mixed = _softmax(seen.where(scores, scores.like(_UNSEEN))) @ values
    mixed = mixed.permute(0, 2, 1, 3).reshape(0, 0, p.heads * size, shape=(batch, steps, p.heads * size))
    rows = rows + _scaled(mixed @ p.out.t(), p.scale1)
    hidden = (normalised(rows, p.norm2, None) @ p.expand.t()).gelu()
    return (rows + _scaled(hidden @ p.project.t(), p.scale2)).transpose(1, 2)


def _scaled(x: Wire, scale: torch.Tensor | None) -> Wire:
    return x if scale is None else x * scale


def _shared(x: Wire, times: int) -> Wire:
    """[B, H, T, D] -> [B, H * times, T, D], each head `times` times."""
    (batch, count, steps, _), size = x.shape, x.known(3)
    wide = x.unsqueeze(2).expand(1, 1, times, 1, 1, shape=(batch, count, times, steps, size))
    return wide.reshape(0, x.known(1) * times, -1, size, shape=(batch, x.known(1) * times, steps, size))


@emits_part(Windows)
def windows(part: Windows, x: Wire) -> Wire:
    """Each step sees those of its window: queries, keys and values [B, 3C, n * window] -> [B, C, n * window]."""
    channels, window = part.width(), part.tiles()[0]
    heads, batch = channels // HEAD, x.shape[0]
    rows = x.transpose(1, 2).reshape(0, -1, window, 3 * channels, shape=(batch, None, window, 3 * channels))
    angles = torch.arange(window, device="cpu").float()[:, None] * frequencies()
    cosine, sine = x.like(angles.cos()), x.like(angles.sin())

    def split(part: Wire) -> Wire:
        made = part.reshape(0, 0, window, heads, HEAD, shape=(batch, None, window, heads, HEAD))
        return made.permute(0, 1, 3, 2, 4)

    queries, keys, values = (split(third) for third in rows.chunk(3, 3))
    queries, keys = (_turned(one, cosine, sine) for one in (queries, keys))
    mixed = _softmax(queries @ keys.transpose(3, 4) * (1.0 / math.sqrt(HEAD))) @ values
    mixed = mixed.permute(0, 1, 3, 2, 4).reshape(0, -1, channels, shape=(batch, None, channels))
    return mixed.transpose(1, 2)
