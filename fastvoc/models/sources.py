"""The source signal of models with an `m_source`, whose `_source(run, f0, phase, seed, noise)` runs it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fastvoc.models.checks import check_floats, item_seeds
from fastvoc.nn.model import Stated
from fastvoc.nn.source import NsfSource


def make_source(
    model: Stated,
    f0: Tensor,
    lengths: Tensor | None,
    *,
    seed: int | Sequence[int] | Tensor | None,
    phase: Tensor | None = None,
    noise: Tensor | None,
    backend: str | None,
) -> Tensor:
    """The source [B, 1, T * hop] of an F0 [B, T], the hop being the layer's; each argument as the models' own have it.

    Raises DtypeError, DeviceError or ShapeError naming the argument that does not fit, before any computation.
    """
    layer = model.m_source
    assert isinstance(layer, NsfSource)
    rows, device = layer.weight.numel(), layer.weight.device
    check_floats("f0", f0, None, device)
    batch, steps = f0.shape
    for name, value, shape in (("phase", phase, (batch, rows)), ("noise", noise, (batch, rows, steps * layer.hop))):
        if value is not None:
            check_floats(name, value, shape, device)
    phase, noise = (None if t is None else t.to(layer.weight.dtype) for t in (phase, noise))
    seeds = None if seed is None else item_seeds(seed, batch, device)
    network = model.reading("_source", (1, 0, 0, 0))
    return network(f0[:, None], phase, seeds, noise, lengths=lengths, backend=backend)


def one_row(x: Tensor) -> Tensor:
    """[B, T] as a signal of one channel, [B, 1, T]."""
    return x[:, None]
