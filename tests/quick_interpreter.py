"""Triton's interpreter without work that changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch


@cache
def quicken() -> None:
    """Takes away most of the interpreter's time, for the rest of the process."""
    from triton.runtime import interpreter

    _keep_types()

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
    interpreter.TensorHandle.__post_init__ = lambda handle: None  # looks whether NumPy's type fits the language's

    def patch_attr(obj: object, name: str, member: Callable[..., Any], builder: object, scope: Any) -> None:
        """It copies the arguments of every call."""
        semantic = interpreter.interpreter_semantic

        def call(*args: Any, **options: Any) -> Any:
            options["_semantic"] = semantic
            return member(*args, **options)

        scope.set_attr(obj, name, call)

    interpreter._patch_attr = patch_attr


def _keep_types() -> None:
    """The language makes a type, with its name and shape, for every value; here each type is made once."""
    from triton.language import core, semantic

    made: dict[tuple[Any, ...], tuple[Any, Any]] = {}
    make_block, same = core.block_type.__init__, core.dtype.__eq__

    def new_block(cls: Any, element_ty: Any, shape: Sequence[Any]) -> Any:
        sizes = tuple([size.value if isinstance(size, core.constexpr) else size for size in shape])
        kept = made.get(key := (id(element_ty), sizes))
        if kept is None:
            block = object.__new__(cls)
            make_block(block, element_ty, list(sizes))
            block.of_tensor = of_tensor(block.shape)
            kept = made[key] = element_ty, block  # as long as the element is held, its id is its own
        return kept[1]

    def of_tensor(shape: Any) -> tuple[Any, Any]:
        return core.constexpr(int(np.prod(list(shape)))), core.tuple([core.constexpr(size) for size in shape])

    scalar = of_tensor(())

    def init_tensor(tensor: Any, handle: Any, type: Any) -> None:
        tensor.handle, tensor.type, tensor.dtype = handle, type, type.scalar
        tensor.numel, tensor.shape = type.of_tensor if type.is_block() else scalar

    def equal(dtype: Any, other: Any) -> bool:
        return dtype is other or same(dtype, other)

    core.block_type.__new__, core.block_type.__init__ = new_block, lambda block, element_ty, shape: None
    core.tensor.__init__, core.dtype.__eq__ = init_tensor, equal

    rules, promoted, broadcast = semantic.TritonSemantic, {}, semantic.TritonSemantic.broadcast_impl_value
    computation_type = rules.computation_type_impl

    def promote(self: Any, a: Any, a_scalar: bool, b: Any, b_scalar: bool, division: bool) -> Any:
        key = a.name, a_scalar, b.name, b_scalar, division
        if key not in promoted:
            promoted[key] = computation_type(self, a, a_scalar, b, b_scalar, division)
        return promoted[key]

    def broadcast_unequal(self: Any, a: Any, b: Any) -> Any:
        alike = a.type.is_block() and b.type.is_block() and a.type.shape.values == b.type.shape.values
        return (a, b) if alike else broadcast(self, a, b)

    rules.computation_type_impl, rules.broadcast_impl_value = promote, broadcast_unequal
