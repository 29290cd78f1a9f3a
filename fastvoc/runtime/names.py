"""Packages whose names are imported when they are first used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any


def lazy(
    module: dict[str, Any],
    homes: Mapping[str, Iterable[str]],
    modules: Mapping[str, str] | None = None,
    also: Iterable[str] = (),
) -> tuple[list[str], Callable[[str], object], Callable[[], list[str]]]:
    """`__all__`, `__getattr__` and `__dir__` of a module with these globals.

    homes: names by the module that has them, modules: other modules by a name for them that is not in `__all__`, both
    beside this module or in it; also: further names for `__all__`.
    """
    name, package = str(module["__name__"]), str(module["__package__"])
    home_of = {one: home for home, names in homes.items() for one in names}
    public = sorted([*home_of, *also])

    def find(wanted: str) -> object:
        if modules is not None and wanted in modules:
            return import_module(f"{package}.{modules[wanted]}")
        if wanted not in home_of:
            raise AttributeError(f"module {name!r} has no attribute {wanted!r}")
        value: object = getattr(import_module(f"{package}.{home_of[wanted]}"), wanted)
        module[wanted] = value  # also over the submodule of the same name, which the import has just put there
        return value

    return public, find, lambda: sorted({*module, *public})
