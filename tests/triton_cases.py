"""What the tests of the Triton kernels run: an op, its meaning, parameters, and inputs of any length."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from op_cases import CONV1D, MRF, UPSAMPLE, channels
from torch import Tensor

from fastvoc.ops.conv1d import conv1d, conv1d_ref
from fastvoc.ops.mrf import mrf, mrf_ref
from fastvoc.ops.upsample import upsample, upsample_ref


def _nothing(batch: int, steps: int) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Case:
    """`lengths`: steps to try, shortest first. `extra(batch, steps)` draws the op's further arguments by name."""

    op: Callable[..., Tensor]
    ref: Callable[..., Tensor]
    params: Any
    lengths: tuple[int, int]
    draw: Callable[[int, int], Tensor]
    extra: Callable[[int, int], dict[str, Any]] = _nothing
    half: bool = True


def _signal(count: int) -> Callable[[int, int], Tensor]:
    return lambda batch, steps: torch.randn(batch, count, steps)


def _conv(make: Callable[[], Any], shortest: int = 1, residual: bool = False) -> Callable[[], Case]:
    def case() -> Case:
        params = make()

        def extra(batch: int, steps: int) -> dict[str, Any]:
            made = params.output_length(steps)
            return {"residual": torch.randn(batch, params.weight.shape[0], made)} if residual else {}

        return Case(conv1d, conv1d_ref, params, (shortest, 51), _signal(channels(params)), extra)

    return case


def _plain(
    op: Callable[..., Tensor], ref: Callable[..., Tensor], make: Callable[[], Any], *lengths: int
) -> Callable[[], Case]:
    def case() -> Case:
        params = make()
        return Case(op, ref, params, (lengths[0], lengths[1]), _signal(channels(params)))

    return case


_SHORTEST = {
    "stride-3": 4,
    "reflect": 7,
    "reflect-stride": 4,
    "reflect-past-the-kernel": 14,
    "source-k30-s15": 16,
    "codec-k16-s8": 9,
    "wide": 4,
}

CASES: dict[str, Callable[[], Case]] = {
    **{
        f"conv1d-{name}": _conv(make, _SHORTEST.get(name, 1), residual=name in ("dilated", "stride-3", "elu"))
        for name, make in CONV1D.items()
    },
    **{f"upsample-{name}": _plain(upsample, upsample_ref, make, 1, 43) for name, make in UPSAMPLE.items()},
    **{
        f"mrf-{name}": _plain(mrf, mrf_ref, make, 10 if name == "reflect" else 2, 35)
        for name, make in MRF.items()
        if name not in ("causal", "v2-narrow", "v1", "snake")  # as snake-causal and odd-channels, but larger
    },
    "mrf-ragged": lambda: replace(
        _plain(mrf, mrf_ref, MRF["v3"], 2, 35)(),
        params=replace(p := MRF["v3"](), blocks=(p.blocks[0], p.blocks[1][:1], p.blocks[2], p.blocks[2][:1])),
    ),
}


@contextmanager
def small_tiles() -> Iterator[None]:
    """Tiles so small that short signals fill several, and none exactly."""
    from fastvoc.kernels import tuned

    with ExitStack() as stack:
        stack.enter_context(tuned.override(**_SMALL))
        yield


_SMALL: dict[str, dict[str, int]] = {"conv1d": {"BT": 32, "BN": 32, "BK": 64}}
