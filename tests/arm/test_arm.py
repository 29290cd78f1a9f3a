"""The portable kernels built for Arm and run under qemu: convolutions with every activation, against the reference."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastvoc.ops import conv1d, upsample
from fastvoc.ops.activation import IDENTITY, TANH, Activation, elu, leaky_relu, snake
from helpers import ROOT, need, relative_l2

COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tests/arm/run_op.cpp with the portable engine, linked statically."""
    missing = [name for name in (COMPILER, EMULATOR) if shutil.which(name) is None]
    need("arm", f"{' and '.join(missing)} not installed" if missing else None)
    target = tmp_path_factory.mktemp("arm") / "run_op"
    sources = [ROOT / "tests" / "arm" / "run_op.cpp", ROOT / "csrc" / "cpu" / "isa_portable.cpp"]
    flags = [
        "-O2",
        "-std=c++20",
        "-ffp-contract=fast",
        "-static",
        "-I",
        str(ROOT / "csrc"),
        "-I",
        str(ROOT / "csrc/cpu"),
    ]
    command = [COMPILER, *flags, *map(str, sources), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return target


def _run(driver: Path, shape: list[int], packed: Any, x: torch.Tensor, tmp_path: Path) -> np.ndarray:
    curves = torch.zeros(0) if packed.acts.curves is None else packed.acts.curves
    floats = [torch.tensor(packed.acts.slopes), curves, packed.weight, packed.bias, x[0].T.contiguous()]
    arrays = [np.asarray(shape, np.int64), *(t.detach().flatten().numpy().astype(np.float32) for t in floats)]
    given, made = tmp_path / "in", tmp_path / "out"
    given.write_bytes(b"".join(np.int64(a.size).tobytes() + a.tobytes() for a in arrays))
    done = subprocess.run([EMULATOR, driver, given, made], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.returncode}: {done.stderr}"
    return np.fromfile(made, np.float32).reshape(shape[1], shape[2]).T


ACTS = {
    "identity": lambda c: IDENTITY,
    "leaky": lambda c: leaky_relu(0.1),
    "elu": lambda c: elu(),
    "tanh": lambda c: TANH,
    "gelu": lambda c: Activation("gelu"),
    "snake": lambda c: snake(torch.rand(c) + 0.5, torch.rand(c) + 0.5),
}


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate"])
def test_conv1d(driver: Path, act: str, mode: str, tmp_path: Path) -> None:
    cin, cout, kernel, steps = 19, 37, 7, 101
    pre, post = ACTS[act](cin), ACTS[act](cout)
    weight, bias = torch.randn(cout, cin, kernel) / 10, torch.randn(cout)
    params = conv1d.Conv1dParams(weight, bias, 2, 3, (8, 5), mode, pre, post)
    x = torch.randn(1, cin, steps)
    packed = conv1d._pack(params)
    shape = [0, params.output_length(steps), *packed.shape, *packed.acts.kinds]
    found = _run(driver, shape, packed, x, tmp_path)
    assert relative_l2(torch.from_numpy(found.copy())[None], conv1d.conv1d_ref(x, params)) < 2e-6


@pytest.mark.parametrize(("kernel", "stride"), [(16, 8), (11, 5), (4, 2), (7, 3)])
def test_upsample(driver: Path, kernel: int, stride: int, tmp_path: Path) -> None:
    cin, cout, steps = 21, 18, 53
    params = upsample.UpsampleParams(
        torch.randn(cin, cout, kernel) / 10, torch.randn(cout), stride, (stride // 2, stride // 2), leaky_relu(0.1)
    )
    x = torch.randn(1, cin, steps)
    expected = upsample.upsample_ref(x, params)
    packed = upsample._pack(params)
    shape = [1, expected.shape[2], *packed.shape, *packed.acts.kinds]
    found = _run(driver, shape, packed, x, tmp_path)
    assert relative_l2(torch.from_numpy(found.copy())[None], expected) < 2e-6
