"""Large outputs and weights lie in large pages where the system offers them: few faults, whatever the values."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fastvoc.runtime.pages import in_large_pages
from helpers import ROOT

pytestmark = pytest.mark.native

_OFFER = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_COUNT = """
import resource, torch
from fastvoc.ops.conv1d import Conv1dParams, conv1d
x = torch.randn(1, 1, 2_000_000)
params = Conv1dParams(torch.randn(16, 1, 1), None)
conv1d(x[:, :, :1000], params, backend="cpp")
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
y = conv1d(x, params, backend="cpp")
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, y.nbytes)
"""


def test_a_large_output_takes_few_faults() -> None:
    if not _OFFER.exists() or "[never]" in _OFFER.read_text():
        pytest.skip("this system offers no large pages")
    done = subprocess.run([sys.executable, "-c", _COUNT], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    faults, size = map(int, done.stdout.split())
    assert size == 128_000_000
    assert faults < size / 4096 / 2


def test_large_weights_lie_in_large_pages() -> None:
    weight = torch.randn(1024, 1100)
    held = in_large_pages(weight)
    assert torch.equal(held, weight)
    assert held.data_ptr() != weight.data_ptr()
    assert in_large_pages(small := torch.randn(1000)) is small
    maps = Path("/proc/self/smaps")
    if not maps.exists() or not _OFFER.exists():
        pytest.skip("this system says nothing of its pages")
    flags, inside = "", False
    for line in maps.read_text().splitlines():
        first, _, rest = line.partition(" ")
        if "-" in first and ":" not in first:
            low, high = (int(part, 16) for part in first.split("-"))
            inside = low <= held.data_ptr() < high
        elif inside and first == "VmFlags:":
            flags = rest
    assert "hg" in flags.split()
