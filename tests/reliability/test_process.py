"""A process that forks, is interrupted, or lacks a capability stays usable."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fastvoc import errors
from helpers import need_native

MODEL = (
    "import os, sys, time, torch\n"
    "from fastvoc.models.hifigan import HifiGan, HifiGanConfig\n"
    "torch.manual_seed(1)\n"
    "torch.set_num_threads(2)\n"
    "model = HifiGan(HifiGanConfig(upsample_initial_channel=32)).requires_grad_(False)\n"
    "mel = torch.randn(1, 80, 100)\n"
)


def run(script: str, seconds: float = 240, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-c", MODEL + script],
        capture_output=True,
        text=True,
        timeout=seconds,
        env={**os.environ, **variables},
    )


@pytest.mark.parametrize("backend", ["torch", "cpp"])
def test_a_forked_child_computes_the_same(backend: str) -> None:
    if backend == "cpp":
        need_native()
    done = run(
        f"wav = model(mel, backend={backend!r})\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    start = time.perf_counter()\n"
        f"    same = torch.allclose(model(mel, backend={backend!r}), wav, atol=1e-6)\n"
        "    os._exit(0 if same and time.perf_counter() - start < 10 else 3)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
    )
    assert done.returncode == 0, done.stderr


def test_fork_before_the_first_call() -> None:
    done = run(
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    os._exit(0 if model(mel).isfinite().all() else 3)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
    )
    assert done.returncode == 0, done.stderr


def test_interrupted_work_leaves_a_usable_process() -> None:
    script = (
        "import signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job starts with it ignored\n"
        "wav = model(mel)\n"
        "print('ready', flush=True)\n"
        "try:\n"
        "    while True:\n"
        "        model(mel)\n"
        "except KeyboardInterrupt:\n"
        "    sys.exit(0 if torch.equal(model(mel), wav) else 3)\n"
    )
    with subprocess.Popen([sys.executable, "-P", "-c", MODEL + script], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(0.3)
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
        finally:
            process.kill()


def test_without_the_native_library_torch_does_the_work(tmp_path: Path) -> None:
    """A pure-Python copy of the package chooses torch, says why, and refuses a forced cpp."""
    package = Path(errors.__file__).parent
    shutil.copytree(package, tmp_path / "fastvoc", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    done = run(
        "from fastvoc.explanation import explain\n"
        "from fastvoc.errors import BackendError\n"
        "print(explain(model))\n"
        "try:\n"
        "    model(mel, backend='cpp')\n"
        "except BackendError as error:\n"
        "    print(error)\n"
        "assert model(mel).isfinite().all()\n",
        PYTHONPATH=str(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("the CPU library is not built (pure-Python install)") == 10 + 1


def test_first_call_after_prepare_costs_no_more_than_others() -> None:
    """Best of five models, because one call alone measures the machine's other work too."""
    need_native()
    done = run(
        "import copy\n"
        "def timed(m):\n"
        "    start = time.perf_counter(); m(mel); return time.perf_counter() - start\n"
        "model(mel)\n"
        "first, steady = [], []\n"
        "for _ in range(5):\n"
        "    fresh = copy.deepcopy(model)\n"
        "    fresh.prepare()\n"
        "    first.append(timed(fresh))\n"
        "    steady += [timed(fresh) for _ in range(5)]\n"
        "print(min(first) / sorted(steady)[len(steady) // 2])\n"
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1.5, done.stdout


def test_two_hundred_lengths_compile_nothing_and_leak_nothing() -> None:
    """New lengths cost what old ones cost: memory is bounded, and no length is slow the first time."""
    need_native()
    done = run(
        "import resource\n"
        "model.prepare()\n"
        "torch.manual_seed(3)\n"
        "lengths = torch.randint(1, 100, (200,)).tolist()\n"
        "for n in lengths[:20] + [100]: model(torch.randn(1, 80, n))\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for n in lengths: model(torch.randn(1, 80, n))\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)\n"
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 20, done.stdout
