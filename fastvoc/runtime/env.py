"""Every environment variable that fastvoc reads, in one place."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

_RAW: dict[bytes, bytes] = os.environ._data  # type: ignore[attr-defined]  # asked in every call, where os.environ itself is slow


@dataclass(frozen=True)
class Variable:
    """One environment variable: its name, what it does, and the value when it is unset."""

    name: str
    purpose: str
    default: str = ""
    key: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", self.name.encode())

    def get(self) -> str:
        """The current value, or the default when the variable is unset or empty."""
        value = _RAW.get(self.key)
        return os.fsdecode(value) if value else self.default


BACKEND = Variable("FASTVOC_BACKEND", "implementation to force, for all ops (`cpp`) or by op (`mrf=cpp,*=torch`)")
ISA = Variable("FASTVOC_ISA", "highest CPU instruction set to use: portable, avx2, avx512 or avx512_bf16")
DEBUG = Variable("FASTVOC_DEBUG", "1 shows the traceback of an error on the command line")
BUILD = Variable("FASTVOC_BUILD", "what a source install builds: auto, python, cpu or cuda", "auto")
TARGET = Variable("FASTVOC_TARGET", "highest CPU instruction set to build for, or `here`: this machine's best")
LABEL = Variable("FASTVOC_LABEL", "1 puts what was asked for into a wheel's version: +cpu, or +cu130 for the toolkit")
AUTOTUNE = Variable(
    "FASTVOC_AUTOTUNE", "1 times Triton's tuned values on the GPU, once a layer; a path `*.json` keeps what was found"
)
INTERPRET = Variable("TRITON_INTERPRET", "1 runs Triton's kernels in its interpreter, for tests without a GPU")
GOLDEN = Variable("FASTVOC_GOLDEN", "folder of the golden test data", "../shared/golden")
REQUIRE = Variable(
    "FASTVOC_REQUIRE", "capabilities that a test must not skip for want of: golden,native,triton,arm,ray"
)

VARIABLES = (BACKEND, ISA, DEBUG, BUILD, TARGET, LABEL, AUTOTUNE, INTERPRET, GOLDEN, REQUIRE)
