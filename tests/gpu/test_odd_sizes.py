"""Every kernel on a device at odd sizes against float64: what compute-sanitizer runs too."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from codec_models import MONO, lively
from layer_calls import LayerCall, computes_in, placed, record, takes
from stream_families import MAKERS, vocoder

from fastvoc.nn.prepared import Prepared
from helpers import need, relative_l2

pytestmark = pytest.mark.gpu

SIZES = (7, 13, 29, 31, 57)
ROUNDING = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 2e-2}
FAMILIES = [*sorted(MAKERS), "encodec"]


@cache
def calls(family: str, frames: int) -> tuple[Any, list[LayerCall]]:
    """A small model in float32, and what its layers are called with for so many frames."""
    torch.manual_seed(frames)
    if family == "encodec":
        model: Any = lively(MONO)
        codes = torch.randint(0, MONO.bins, (2, 4, frames))
        return model, record(model, lambda: model.decode_segment(codes, backend="torch"))
    voc = vocoder(family)
    mel = torch.randn(2, voc.n_mels, frames)
    return voc.model, record(voc.model, lambda: voc.model(mel, backend="torch"))


def moved(model: Any, dtype: torch.dtype) -> Any:
    import copy

    return copy.deepcopy(model).to("cuda", dtype)


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize("impl", ["cuda", "triton"])
@pytest.mark.parametrize("family", FAMILIES)
def test_kernels_equal_the_meaning(family: str, impl: str, dtype: torch.dtype) -> None:
    ran = 0
    for frames in SIZES:
        model, recorded = calls(family, frames)
        there, wide = moved(model, dtype).layers(), moved(model, torch.float64).layers()
        for call in recorded:
            layer: Prepared = there[call.layer]
            if not takes(layer, call.op, impl, dtype):
                continue
            narrow = computes_in(layer, dtype)
            x, args = placed(call.x, "cuda", narrow), [placed(a, "cuda", narrow) for a in call.args]
            x64, args64 = placed(x, "cuda", torch.float64), [placed(a, "cuda", torch.float64) for a in args]
            with torch.inference_mode():
                y = layer(x, *args, backend=impl)
                reference = wide[call.layer](x64, *args64, backend="torch")
            assert y.isfinite().all(), call.layer
            assert relative_l2(y, reference.cpu()) < ROUNDING[dtype], (call.layer, call.op, frames)
            ran += 1
    need("cuda", None if ran else f"{impl} has no kernel for these layers in {dtype}")
