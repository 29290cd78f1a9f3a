"""The bit packer and arithmetic coder behind .ecdc files: compiled (`csrc/coder`), or in Python where it is not built.

Both give the same bytes; `fastvoc info` says which one runs.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

_MODULE = "_C_coder"


@cache
def problem() -> str | None:
    """None when the compiled coder is loaded, otherwise why it is not. Loads it at the first call."""
    built = sorted(path.name for path in Path(__file__).parents[1].glob(f"{_MODULE}*.so"))
    if not built:
        return "the coder is not built (pure-Python install)"
    try:
        import_module(f"fastvoc.{_MODULE}")
    except ModuleNotFoundError:
        return f"the coder is built for another Python ({', '.join(built)})"
    except ImportError as error:
        return f"the coder cannot be loaded: {error}"
    return None


def implementation(name: str | None = None) -> ModuleType:
    """The module with `pack`, `unpack`, `ArithmeticEncoder` and `ArithmeticDecoder` (documented in `coder_python`).

    `name` is "cpp" or "python"; None takes the compiled one if it is there. The compiled one has `IntegerLm`, too.
    """
    name = name or ("python" if problem() else "cpp")
    return import_module("fastvoc.ecdc.coder_python" if name == "python" else f"fastvoc.{_MODULE}")
