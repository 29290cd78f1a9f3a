"""Layers with a memory."""

from __future__ import annotations

import torch
from torch import Tensor

from fastvoc.exporting.emitters import emits
from fastvoc.exporting.wire import Wire
from fastvoc.ops.lstm import LstmParams


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
