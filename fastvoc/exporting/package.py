"""The optional package onnx, and its names for types."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

import torch

from fastvoc.errors import FastvocError

_NAMES = {
    torch.float16: "FLOAT16",
    torch.float32: "FLOAT",
    torch.float64: "DOUBLE",
    torch.int64: "INT64",
    torch.bool: "BOOL",
}


def onnx(module: str = "onnx") -> ModuleType:
    """The package, or a module of it. Raises FastvocError where it is not installed."""
    try:
        return import_module(module)
    except ImportError as error:
        raise FastvocError("ONNX files need the package onnx: pip install onnx") from error


def number(dtype: torch.dtype) -> int:
    """ONNX's number of a type."""
    kind: int = getattr(onnx().TensorProto, _NAMES[dtype])
    return kind


def wide(dtype: torch.dtype) -> torch.dtype:
    """What a tensor of a type is computed in: float32 in place of float16 and bfloat16."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
