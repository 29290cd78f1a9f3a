"""Codes to features: lookups in codebooks and their sums. Codes outside a codebook name the nearest entry."""

from __future__ import annotations

import torch
from torch import Tensor

from fastvoc.exporting.convolutions import conv1d, held
from fastvoc.exporting.emitters import emits_part
from fastvoc.exporting.wire import Wire
from fastvoc.nn.grouped import GroupedDecode
from fastvoc.nn.layer import OfCodes
from fastvoc.nn.split_rvq import ProjectedQuantizer, SplitDecode
from fastvoc.ops.rvq_decode import RvqParams


def _inside(codes: Wire, entries: int) -> Wire:
    low, high = (codes.graph.constant(n, torch.int64) for n in (0, entries - 1))
    return codes.graph.add("Min", codes.graph.add("Max", codes, low, shape=codes.shape), high, shape=codes.shape)


def _looked_up(table: Tensor, index: Wire) -> Wire:
    """[..., D] rows of a table [N, D]."""
    rows = index.graph.weight(table)
    shape = (*index.shape, table.shape[1])
    return index.graph.add("Gather", rows, index, shape=shape, dtype=rows.dtype, axis=0)


def decoded(params: RvqParams, codes: Wire) -> Wire:
    """[B, K, T] of the first K books -> [B, D, T]: the sum of the entries."""
    graph, (books, entries, width) = codes.graph, params.codebooks.shape
    starts = graph.weight(torch.arange(books, device="cpu")[:, None] * entries)
    rows = _looked_up(params.codebooks.flatten(0, 1), _inside(codes, entries) + starts.sliced(0, 0, codes.size(1)))
    axes = graph.constant([1], torch.int64)
    total = graph.add("ReduceSum", rows, axes, shape=(codes.shape[0], codes.shape[2], width), keepdims=0)
    return total.transpose(1, 2)


@emits_part(OfCodes)
def codes_to_features(part: OfCodes, codes: Wire) -> Wire:
    """Of all codebooks alike."""
    params = part.prepared.params()
    if not isinstance(params, RvqParams):
        raise codes.graph.refuse(f"{type(part).__name__} cannot be exported")
    return decoded(params, codes)


@emits_part(SplitDecode)
def split(part: SplitDecode, codes: Wire) -> Wire:
    """The first codebooks through one projection, the others through another."""
    quantizer = part.quantizer

    def one(of: ProjectedQuantizer, rows: Wire) -> Wire:
        features = decoded(of.rvq.params(), rows)
        return features if of.output_proj is None else conv1d(of.output_proj.params(), features)

    semantic = one(quantizer.semantic, codes.sliced(1, 0, quantizer.first))
    return semantic + one(quantizer.acoustic, codes.sliced(1, quantizer.first))


@emits_part(GroupedDecode)
def grouped(part: GroupedDecode, codes: Wire) -> Wire:
    """Every codebook's rows in order of time, each entry repeated over its steps."""
    quantizer, row = part.quantizer, 0
    total: Wire | None = None
    for book, stride, rate in zip(quantizer.books, quantizer.strides, quantizer.rates, strict=True):
        level = codes.sliced(1, row, row + rate).transpose(1, 2)
        level = level.reshape(0, -1, shape=(codes.shape[0], None))
        table = book.table()
        rows = _looked_up(table, _inside(level, len(table))).transpose(1, 2)
        rows = rows if stride == 1 else held(rows, stride)
        total, row = rows if total is None else total + rows, row + rate
    assert total is not None
    return total
