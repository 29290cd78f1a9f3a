"""fastvoc.compat.transformers: every name is there, lazily, and transformers is not needed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fastvoc.compat import transformers


def test_every_name_is_there() -> None:
    assert transformers.__all__ == sorted(name for names in transformers._HOMES.values() for name in names)
    for name in transformers.__all__:
        assert getattr(transformers, name).__name__ == name
        assert name in dir(transformers)
    with pytest.raises(AttributeError, match="LlamaModel"):
        _ = transformers.LlamaModel


def test_import_is_lazy() -> None:
    code = (
        "import sys, fastvoc.compat.transformers as c; before = set(sys.modules)\n"
        "print(*[n for n in before if n.startswith(('fastvoc.models', 'fastvoc.ops', 'transformers'))])\n"
        "c.UnivNetModel; print('transformers' in sys.modules, 'fastvoc.models.univnet' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["", "False True"]
