"""The values of Triton's kernels: 3xTF32 as a choice, plain TF32 never, and the search for the fastest ones."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from op_cases import CONV1D, cast
from triton_cases import CASES

from fastvoc.ops import _triton
from fastvoc.ops.conv1d import conv1d, conv1d_ref
from fastvoc.ops.nsf_source import NsfSourceParams, begin, nsf_source
from helpers import ROOT, need_triton, relative_l2


@pytest.fixture(autouse=True)
def _interpreter() -> Iterator[None]:
    need_triton()
    with torch.inference_mode():
        yield


def test_no_product_takes_plain_tf32() -> None:
    for path in (ROOT / "kernels").glob("*.py"):
        calls = re.findall(r"tl\.dot\(.*\)", path.read_text())
        assert all(re.search(r'input_precision=(PRECISION|"ieee")\)', call) for call in calls), (path.name, calls)
    for path in (ROOT / "kernels" / "tuned").glob("*.json"):
        assert '"tf32"' not in path.read_text(), path.name


def _split(x: Any) -> tuple[Any, Any]:
    """x rounded to the 10 bits of TF32, and the rest, rounded alike."""

    def rounded(v: Any) -> Any:
        return ((v.view(np.uint32) + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)

    high = rounded(np.ascontiguousarray(x, np.float32))
    return high, rounded(x - high)


@pytest.mark.parametrize("name", ["conv1d-wide", "mrf-odd-channels", "lvc-published", "seanet_block-causal"])
def test_three_products_of_tf32_are_as_exact_as_float32(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    from fastvoc.kernels import tuned

    plain, asked = InterpreterBuilder.create_dot, []

    def emulated(self: Any, a: Any, b: Any, d: Any, precision: Any, *rest: Any) -> Any:
        if "TF32x3" not in str(precision):
            return plain(self, a, b, d, precision, *rest)
        asked.append(precision)
        (a1, a2), (b1, b2) = _split(a.data), _split(b.data)
        return TensorHandle(a1 @ b1 + (a1 @ b2 + a2 @ b1) + d.data, d.dtype.scalar)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", emulated)
    case = CASES[name]()
    steps = case.lengths[-1]
    x, extra = case.draw(2, steps), case.extra(2, steps)
    with tuned.override(**{kernel: {"PRECISION": "tf32x3"} for kernel in ("conv1d", "mrf", "lvc", "seanet_block")}):
        y = case.op(x, case.params, **extra, backend="triton")
    wide = torch.float64
    expected = case.ref(cast(x, wide), cast(case.params, wide), **cast(extra, wide))
    assert asked
    assert relative_l2(y, expected) < 2e-6


class Timer:
    """Takes the place of the clock: the smallest tile in time is the fastest, those of 8 warps do not run."""

    def __init__(self) -> None:
        self.tried: list[dict[str, Any]] = []

    def __call__(self, call: Any, device: torch.device) -> float:
        from triton.runtime.errors import OutOfResources

        from fastvoc.kernels import tuned

        trial = tuned._trial.get()
        assert trial is not None
        self.tried.append(trial[1])
        if trial[1]["num_warps"] == 8:
            raise OutOfResources(1, 0, "shared memory")
        call()
        return float(trial[1]["BT"])


@pytest.fixture
def timer(monkeypatch: pytest.MonkeyPatch) -> Timer:
    from fastvoc.kernels import tuned
    from fastvoc.kernels.tuned import search

    made = Timer()
    monkeypatch.setattr(_triton, "_autotuning", lambda: True)
    monkeypatch.setattr(tuned, "measured", {})
    monkeypatch.setattr(search, "seconds", made)
    monkeypatch.setattr(search, "_read", set())
    return made


def test_the_fastest_values_are_kept(timer: Timer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastvoc.kernels import tuned

    path = tmp_path / "found.json"
    monkeypatch.setenv("FASTVOC_AUTOTUNE", str(path))
    params = CONV1D["kernel-1"]()
    x = torch.randn(2, params.weight.shape[1], 21)
    y = conv1d(x, params, backend="triton")
    assert relative_l2(y, conv1d_ref(cast(x, torch.float64), cast(params, torch.float64))) < 2e-6
    assert len(timer.tried) > 3
    assert any(values.get("PRECISION") == "tf32x3" for values in timer.tried)
    ((key, values),) = tuned.measured.items()
    assert (key.kernel, key.itemsize) == ("conv1d", 4)
    assert values["num_warps"] == 4
    assert values["BT"] == min(tried["BT"] for tried in timer.tried)
    count = len(timer.tried)
    assert torch.equal(conv1d(x, params, backend="triton"), y)
    assert len(timer.tried) == count, "values are looked for once"

    table = json.loads(path.read_text())
    assert table["kernels"]["conv1d"] == [{"for": {"bytes": 4, **dict(key.widths)}, "values": values}]
    tuned.measured.clear()
    assert torch.equal(conv1d(x, params, backend="triton"), y)
    assert len(timer.tried) == count, "the file was not read"
    assert tuned.measured == {key: values}


def test_trials_do_not_advance_a_state(timer: Timer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTVOC_AUTOTUNE", "1")
    params = NsfSourceParams(torch.randn(3), torch.randn(1), 24000, 12)
    f0 = 80 + 400 * torch.rand(1, 1, 5)
    states = [begin(params, 1) for _ in range(2)]
    y = nsf_source(f0, params, state=states[0], backend="triton")
    assert timer.tried
    assert relative_l2(y, nsf_source(f0, params, state=states[1], backend="torch")) < 1e-5
    assert torch.equal(states[0], states[1])


def test_without_being_asked_nothing_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastvoc.kernels.tuned import search

    monkeypatch.delenv("FASTVOC_AUTOTUNE", raising=False)
    _triton._autotuning.cache_clear()
    monkeypatch.setattr(search, "run", None)
    params = CONV1D["kernel-1"]()
    conv1d(torch.randn(1, params.weight.shape[1], 9), params, backend="triton")


def test_a_launch_that_a_device_would_refuse_is_refused_here() -> None:
    from fastvoc.kernels import tuned

    params = CONV1D["kernel-1"]()
    with tuned.override(conv1d={"FUSE": 1}), pytest.raises(TypeError, match=r"conv1d_kernel: .* FUSE"):
        conv1d(torch.randn(1, params.weight.shape[1], 9), params, backend="triton")
