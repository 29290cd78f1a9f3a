"""Properties of the C++ CPU engine that no single op shows."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from op_cases import MRF, channels
from torch.utils._python_dispatch import TorchDispatchMode

from fastvoc import use_exact
from fastvoc.models.hifigan import HifiGan, HifiGanConfig
from fastvoc.ops.mrf import mrf
from fastvoc.runtime import library as _library
from helpers import run_under

pytestmark = pytest.mark.native

SMALL = HifiGanConfig(upsample_initial_channel=32)
# `to` gives its argument back where the dtype is the same; a copy would be a `_to_copy`.
VIEWS_AND_MEMORY = {"aten::empty", "aten::transpose", "aten::as_strided", "aten::to"}


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.names.add(func.name().split(".")[0])
        return func(*args, **(kwargs or {}))


@pytest.mark.filterwarnings("ignore:.*Profiler clears events")  # of torch 2.11
def test_calls_no_torch_compute_op() -> None:
    model = HifiGan(SMALL).requires_grad_(False)
    model.prepare("cpp")
    mel = torch.randn(2, 80, 9)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        model(mel, backend="cpp")
    inside = {event.name for event in profile.events() if event.name.startswith(("aten::", "_fastvoc::"))}
    with _Recorder() as recorder:
        model(mel, backend="cpp")
    called = {name for name in inside | recorder.names if not name.startswith("_fastvoc::")}
    assert {"_fastvoc::conv1d", "_fastvoc::upsample", "_fastvoc::mrf"} <= inside | recorder.names
    assert called <= VIEWS_AND_MEMORY, called - VIEWS_AND_MEMORY


@pytest.mark.parametrize("isa", _library.ISAS)
def test_every_instruction_set_agrees(isa: str) -> None:
    """FASTVOC_ISA forces a lower instruction set in a fresh process, which says so and gives the same sound."""
    script = (
        "import torch\n"
        "from fastvoc.models.hifigan import HifiGan, HifiGanConfig\n"
        "torch.manual_seed(5)\n"
        "model = HifiGan(HifiGanConfig(upsample_initial_channel=32)).requires_grad_(False)\n"
        "mel = torch.randn(1, 80, 21)\n"
        "wav, meant = model(mel, backend='cpp'), model(mel, backend='torch')\n"
        "error = (wav - meant).norm() / meant.norm()\n"
        "print(error.item())\n"
    )
    assert float(run_under(isa, script)) < 1e-5


def test_what_the_machine_lacks_is_never_used() -> None:
    """FASTVOC_ISA is the highest that may be used, not one that must be there."""
    script = "from fastvoc.runtime import library as _library; print(_library.cpu_isa())"
    env = {**os.environ, "FASTVOC_ISA": _library.ISAS[-1]}
    done = subprocess.run([sys.executable, "-P", "-c", script], env=env, capture_output=True, text=True, check=True)
    here = _library.cpu_isa()
    assert done.stdout.strip() == here or "FASTVOC_ISA" in os.environ


def test_unknown_instruction_set_is_an_error() -> None:
    script = "from fastvoc.runtime import library as _library; print(_library.cpu_problem())"
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], env={**os.environ, "FASTVOC_ISA": "mmx"}, capture_output=True, text=True
    )
    assert "FASTVOC_ISA='mmx' is unknown" in done.stdout


def test_nan_stays_in_its_receptive_field() -> None:
    params = MRF["v1"]()
    x = torch.randn(2, channels(params), 900)
    with use_exact():  # a tile of Toom-Cook would spread it
        clean = mrf(x, params, backend="cpp")
        x[0, 3, 450] = torch.nan
        y = mrf(x, params, backend="cpp")
    reach = sum(conv.padding // 2 for layer in params.blocks[-1] for conv in layer)
    touched = y[0].isnan().any(0).nonzero().flatten()
    assert touched.min() == 450 - reach
    assert touched.max() == 450 + reach
    keep = torch.ones(900, dtype=torch.bool)
    keep[touched] = False
    assert torch.equal(y[0][:, keep], clean[0][:, keep])
    assert torch.equal(y[1], clean[1])


def test_denormals_are_not_slow() -> None:
    """Digital silence decays through denormals; the kernels must not crawl there."""
    params = MRF["v1"]()
    normal = torch.randn(1, channels(params), 4000)
    denormal = normal * 1e-41

    def seconds(x: torch.Tensor) -> float:
        start = time.perf_counter()
        mrf(x, params, backend="cpp")
        return time.perf_counter() - start

    rounds = [(seconds(normal), seconds(denormal)) for _ in range(15)]
    assert min(slow for _, slow in rounds) < 1.5 * min(fast for fast, _ in rounds)


def test_the_gil_is_free_while_a_kernel_runs() -> None:
    params = MRF["v1"]()
    x = torch.randn(4, channels(params), 30000)
    ticks = 0
    done = threading.Event()

    def tick() -> None:
        nonlocal ticks
        while not done.is_set():
            time.sleep(0.001)
            ticks += 1

    thread = threading.Thread(target=tick)
    thread.start()
    start = time.perf_counter()
    while time.perf_counter() - start < 0.5:
        mrf(x, params, backend="cpp")
    seconds = time.perf_counter() - start
    done.set()
    thread.join()
    assert ticks > 100 * seconds


def test_threads_share_one_model_without_a_lock() -> None:
    model = HifiGan(SMALL).requires_grad_(False)
    mels = [torch.randn(1, 80, n) for n in (5, 17, 9, 30)]
    expected = [model(mel, backend="cpp") for mel in mels]
    fresh = HifiGan(SMALL).requires_grad_(False)
    fresh.load_state_dict(model.state_dict())
    wrong: list[int] = []

    def work(i: int) -> None:
        wrong.extend(i for _ in range(10) if not torch.equal(fresh(mels[i], backend="cpp"), expected[i]))

    threads = [threading.Thread(target=work, args=(i % 4,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def running_threads() -> int:
    """Threads of this process that run or could run."""
    states = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # ended meanwhile
            states.append((task / "stat").read_text().rsplit(")", 1)[1].split()[0])
    return states.count("R")


def test_models_at_once_share_the_threads() -> None:
    """Calls on threads of their own divide torch's threads among them instead of taking them all each."""
    model = HifiGan(SMALL).requires_grad_(False)
    mel = torch.randn(1, 80, 300)
    before, counts = torch.get_num_threads(), []
    torch.set_num_threads(8)
    try:
        model(mel, backend="cpp")
        done = threading.Event()

        def work() -> None:
            torch.set_num_threads(8)  # OpenMP's setting belongs to a thread
            while not done.is_set():
                model(mel, backend="cpp")

        callers = [threading.Thread(target=work) for _ in range(8)]
        for caller in callers:
            caller.start()
        time.sleep(0.1)
        for _ in range(40):
            counts.append(running_threads())
            time.sleep(0.005)
        done.set()
        for caller in callers:
            caller.join()
    finally:
        torch.set_num_threads(before)
    assert statistics.median(counts) <= 12  # the callers, this thread, and whoever just wakes
