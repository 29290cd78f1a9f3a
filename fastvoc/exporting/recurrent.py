"""Layers with a memory, and lookups of codes."""

from __future__ import annotations

import torch
from torch import Tensor

from fastvoc.exporting.emitters import emits, emits_part
from fastvoc.exporting.wire import Wire
from fastvoc.nn.layer import OfCodes
from fastvoc.ops.lstm import LstmParams
from fastvoc.ops.rvq_decode import RvqParams


@emits(LstmParams)
def lstm(params: LstmParams, x: Wire) -> Wire:
    """Stacked layers over time."""
    graph, ways = x.graph, params.directions
    batch, _, steps = x.shape
    y = x.permute(2, 0, 1)
    for at in range(0, len(params.layers), ways):
        rows = params.layers[at : at + ways]
        weights = [torch.stack([_gates(row[i]) for row in rows]) for i in (0, 1)]
        biases = torch.stack([torch.cat([_gates(row[2]), _gates(row[3])]) for row in rows])
        y = graph.add(
            "LSTM",
            y,
            *(graph.weight(t, x.dtype) for t in (*weights, biases)),
            shape=(steps, ways, batch, params.hidden),
            hidden_size=params.hidden,
            direction="bidirectional" if params.bidirectional else "forward",
        )
        # [T, ways, B, H] -> [T, B, ways * H]
        y = y.permute(0, 2, 1, 3).reshape(0, 0, params.outputs, shape=(steps, batch, params.outputs))
    y = y.permute(1, 2, 0)
    return y + x if params.skip else y


def _gates(tensor: Tensor) -> Tensor:
    """From torch's order of the gates, input, forget, cell, output, to ONNX's: input, output, forget, cell."""
    i, f, c, o = tensor.chunk(4)
    return torch.cat([i, o, f, c])


@emits_part(OfCodes)
def codes_to_features(part: OfCodes, codes: Wire) -> Wire:
    """[B, K, T] -> [B, D, T]: the sum of the entries that the codes name; those outside name the nearest."""
    params = part.prepared.params()
    if not isinstance(params, RvqParams):
        raise codes.graph.refuse(f"{type(part).__name__} cannot be exported")
    graph, (books, entries, width) = codes.graph, params.codebooks.shape
    low, high = (graph.constant(n, torch.int64) for n in (0, entries - 1))
    inside = graph.add("Min", graph.add("Max", codes, low, shape=codes.shape), high, shape=codes.shape)
    starts = graph.weight(torch.arange(books, device="cpu")[:, None] * entries)
    inside = inside + starts.sliced(0, 0, codes.size(1))
    table = graph.weight(params.codebooks.flatten(0, 1))
    shape = (*codes.shape, width)
    rows = graph.add("Gather", table, inside, shape=shape, dtype=table.dtype, axis=0)
    axes = graph.constant([1], torch.int64)
    return graph.add("ReduceSum", rows, axes, shape=(codes.shape[0], codes.shape[2], width), keepdims=0).transpose(1, 2)
