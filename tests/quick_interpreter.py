"""Triton's interpreter without work that changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch


@cache
def quicken() -> None:
    """Halves the interpreter's time, for the rest of the process."""
    from triton.runtime import interpreter

    patch, dtype_of = interpreter._patch_lang, cache(interpreter._get_np_dtype)

    @cache
    def patch_once(function: Callable[..., Any]) -> SimpleNamespace:
        """It patches the whole language at every call of every function, and takes it back after each launch."""
        patch(function)
        return SimpleNamespace(restore=lambda: None)

    def np_dtype(dtype: Any) -> np.dtype[Any]:
        """It builds the table of types for each look into it."""
        return np.dtype(np.uint64) if dtype.scalar.is_ptr() else dtype_of(dtype.scalar)

    def erf(x: np.ndarray[Any, Any]) -> Any:
        """It asks Python's function for one value after the other."""
        return torch.special.erf(torch.from_numpy(np.ascontiguousarray(x, np.float64))).float().numpy()

    interpreter._patch_lang, interpreter._get_np_dtype, interpreter.np_erf_fp32 = patch_once, np_dtype, erf
    # It computes whether whole numbers overflow and, unless it debugs, does not look at the result.
    builder = interpreter.interpreter_builder
    builder.options = replace(builder.options, sanitize_overflow=builder.options.debug)
