"""A GPU that is asked for its kind only, so that Triton binds and compiles without one. Import before Triton comes in.

Tensors lie on the CPU; where fastvoc's ops are registered, Triton says that it interprets, so that they take part.
"""

from __future__ import annotations

import importlib
import os
import pkgutil

os.environ["TRITON_INTERPRET"] = "1"  # lets fastvoc launch on the CPU
import torch

import fastvoc.ops

for _module in pkgutil.iter_modules(fastvoc.ops.__path__, "fastvoc.ops."):
    importlib.import_module(_module.name)
del os.environ["TRITON_INTERPRET"]  # before Triton comes in
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.runtime import driver  # noqa: E402


class Driver:
    """Of a device of this compute capability, times ten."""

    def __init__(self, capability: int = 90) -> None:
        self._target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int = 0) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")


def stand_in(capability: int = 90) -> None:
    """Has Triton take it for the device."""
    driver.set_active(Driver(capability))  # type: ignore[arg-type]
