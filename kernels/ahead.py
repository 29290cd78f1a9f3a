"""Compiles recorded launches ahead of time, without a GPU, and reads what the machine code needs.

Shared memory comes from the compiler; registers and the stack from cuobjdump, spills and the instructions of the hot
loop from nvdisasm; Triton's package carries both tools.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from fastvoc.kernels.launch import Launch

TARGETS = (80, 90, 100, 120)
SHARED_MEMORY = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024, 120: 99 * 1024}
_TYPES = {
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.float64: "fp64",
    torch.int64: "i64",
    torch.int32: "i32",
}
_MATRIX = ("HMMA", "HGMMA", "QGMMA", "UTCHMMA", "UTCQMMA", "OMMA", "DMMA")


@dataclass(frozen=True)
class Specialization:
    """A kernel for arguments of certain types and certain compile-time values."""

    kernel: Any
    signature: tuple[tuple[str, str], ...]
    constants: tuple[tuple[str, Any], ...]
    divisible: tuple[str, ...]
    options: tuple[tuple[str, int], ...]

    @property
    def name(self) -> str:
        """The kernel's name."""
        return str(self.kernel.__name__)


def specialize(launch: Launch) -> Specialization:
    """What Triton would compile for a launch: None and 1 are constants, multiples of 16 are known as such.

    Not so where the kernel says that a parameter, or its alignment, is not to be told apart.
    """
    signature, constants, divisible = [], [], []
    for parameter in launch.kernel.params:
        name = parameter.name
        value = launch.arguments[name]
        constant = parameter.is_constexpr or value is None
        constant |= type(value) is int and value == 1 and not parameter.do_not_specialize
        if constant:
            signature.append((name, "constexpr"))
            constants.append((name, value))
            continue
        signature.append((name, _type(value)))
        place = value.data_ptr() if isinstance(value, torch.Tensor) else value
        apart = not (parameter.do_not_specialize or parameter.do_not_specialize_on_alignment)
        if apart and type(place) is int and place % 16 == 0:
            divisible.append(name)
    options = tuple(sorted(launch.options.items()))
    return Specialization(launch.kernel, tuple(signature), tuple(constants), tuple(divisible), options)


def _type(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return "*" + _TYPES[value.dtype]
    if isinstance(value, float):
        return "fp32"
    return "i32" if -(2**31) <= value < 2**31 else "i64"


@dataclass
class Resources:
    """What a block of a compiled kernel needs: bytes of shared memory, registers a thread, bytes of stack and spills.

    `loop` counts the instructions of the hot loop by their first word.
    """

    shared: int
    registers: int
    stack: int
    spills: int
    loop: Counter[str] = field(default_factory=Counter)

    @property
    def matrix_share(self) -> float:
        """Share of matrix instructions among those of the hot loop."""
        total = sum(self.loop.values())
        return sum(n for name, n in self.loop.items() if name in _MATRIX) / total if total else 0.0


def compile_ahead(spec: Specialization, capability: int) -> Resources:
    """Compiles for `sm_<capability>` and measures the machine code."""
    names = spec.kernel.arg_names
    source = ASTSource(
        spec.kernel,
        dict(spec.signature),
        dict(spec.constants),
        {(names.index(name),): [["tt.divisibility", 16]] for name in spec.divisible},
    )
    options = {**dict(spec.options), "enable_fp_fusion": True}
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = _run("cuobjdump", "-res-usage", file.name)
        text = _run("nvdisasm", "-c", file.name)
    registers, stack, local = (int(_only(rf"{key}:(\d+)", usage)) for key in ("REG", "STACK", "LOCAL"))
    spills = len(re.findall(r"\b(?:STL|LDL)\b", text))
    return Resources(compiled.metadata.shared, registers, stack + local, spills, hot_loop(text))


def _only(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    assert found is not None, text
    return found[1]


def hot_loop(text: str) -> Counter[str]:
    """Instructions by name of the innermost loop with the most matrix or multiply instructions; of all without one."""
    labels: dict[str, int] = {}
    rows: list[tuple[str, str]] = []
    for line in text.splitlines():
        if label := re.match(r"\s*\.?(\.?L_x_\d+):", line):
            labels[label[1].lstrip(".")] = len(rows)
        if found := re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9]*)(.*)", line):
            rows.append((found[1], found[2]))
    best: Counter[str] = Counter()
    for end, (name, rest) in enumerate(rows):
        target = re.search(r"L_x_\d+", rest) if name == "BRA" else None
        start = labels.get(target[0], end) if target else end
        if start < end:
            inside = Counter(word for word, _ in rows[start : end + 1])
            if _weight(inside) > _weight(best):
                best = inside
    return best or Counter(word for word, _ in rows)


def _weight(loop: Counter[str]) -> tuple[int, int]:
    return sum(loop[name] for name in _MATRIX), loop["FFMA"]


@cache
def _tool(name: str) -> str:
    return str(Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name)


def _run(tool: str, *arguments: str) -> str:
    return subprocess.run([_tool(tool), *arguments], capture_output=True, text=True, check=True).stdout
