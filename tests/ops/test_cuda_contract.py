"""The CUDA kernels of every op, compiled as plain C++, against its meaning in float64, in ragged batches of any layout.

No device is needed. What this cannot show is the speed on one, and that the launches of csrc/cuda/*.cu work there.
"""

from __future__ import annotations

import pytest
import torch
from cuda_emulation import DTYPES, emulated, set_device
from op_cases import cast
from op_contract import CASES, Case, layouts
from torch import Tensor

from helpers import relative_l2

ROUNDING = {torch.float32: 3e-6, torch.float16: 1.5e-3, torch.bfloat16: 1.2e-2}
LARGE = ("lstm-encodec", "attention_block-mimi", "seanet_block-normed-wide", "rvq_decode-32-1024-128")
REFUSED = ("upsample-appended", "mrf-depthwise-causal", "mrf-depthwise-reflect")
FLOAT32 = ("rvq_encode",)
NAMES = [  # in one of the half precisions each
    pytest.param(name, dtype, id=f"{name}-{dtype}")
    for i, (name, case) in enumerate(CASES.items())
    for dtype in (torch.float32, DTYPES[1 + i % 2])
    if name not in (*LARGE, *REFUSED) and (dtype is torch.float32 or case.op.name not in FLOAT32)
]


@pytest.fixture(autouse=True)
def device() -> None:
    set_device()


def _more(name: str, case: Case, x: Tensor) -> int:
    """Steps, or frames, of the longest item beside the shortest; all threads meet at every step of an LSTM."""
    if case.op.name == "lvc":
        return 4
    return 9 if x[0].numel() > 500 or (case.op.name == "lstm" and name != "lstm-odd") else 61


@pytest.mark.parametrize(("name", "dtype"), NAMES)
def test_ragged_batch_in_any_layout_equals_the_meaning(name: str, dtype: torch.dtype) -> None:
    case = CASES[name]
    params = cast(case.make(), dtype)
    least = case.least(cast(params, torch.float32))
    more = _more(name, case, case.inputs(params, 1, least)[0])
    items = [cast(case.inputs(params, 1, least + n), dtype) for n in (more // 2, 0, more)]
    batch, lengths = cast(case.batch(params, items, least + more), dtype), [item[0].shape[2] for item in items]
    short = cast(case.batch(params, items[:2], least + more // 2), dtype)
    with emulated():
        y = case(params, batch, "cuda", torch.tensor(lengths))
        for i, t in enumerate(short):
            for view in layouts(t)[1:] if isinstance(t, Tensor) else ():
                again = case(params, (*short[:i], view, *short[i + 1 :]), "cuda", torch.tensor(lengths[:2]))
                assert torch.equal(again, y[:2, :, : again.shape[2]])
        alone = [case(params, item, "cuda")[0] for item in items]
    for ours, item, own in zip(y, items, alone, strict=True):
        assert torch.equal(ours[:, : own.shape[1]], own)
        assert not ours[:, own.shape[1] :].any()
        meant = case.meaning(params, item)[0]
        factor = 10 if name == "snake_aa-fast" else 2 if case.drawn else 1  # the latter's meaning is rounded, too
        close = max(ROUNDING[dtype], case.close) * factor
        assert own.dtype == meant.dtype or own.is_floating_point()
        assert relative_l2(own, meant) < close or torch.equal(own, meant)
