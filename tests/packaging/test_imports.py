"""Imports run only downward, without circles; importing the package is quick, silent and lazy."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from helpers import ROOT

# The house, from the ground floor up; a folder stands for all that it holds and that has no floor of its own.
FLOORS = (
    ("errors", "ecdc", "hub", "runtime", "sound", "graphs"),
    ("runtime.registry", "runtime.native", "runtime.library", "kernels"),
    ("ops", "sound.resampling", "sound.mel_doctor"),
    ("nn",),
    ("models", "streams", "graphs.steps"),
    ("loaded",),
    ("graphs.requests",),
    (
        "checkpoints",
        "vocoder",
        "styled",
        "codec",
        "streams.codec",
        "streams.mel",
        "streams.pieces",
        "training",
        "explanation",
    ),
    (
        *("loading", "compression", "dac_compression", "compat", "bench", "quantization"),
        *("piper", "exporting", "patching", "metrics", "ray"),
    ),
    ("cli", "__init__", "__main__"),
)
FLOOR_OF = {name: floor for floor, names in enumerate(FLOORS) for name in names}


def _modules() -> dict[str, Path]:
    """Every module by its full name."""
    folders = ((ROOT / "fastvoc", "fastvoc"), (ROOT / "kernels", "fastvoc.kernels"))
    return {
        ".".join([top, *path.relative_to(folder).with_suffix("").parts]).removesuffix(".__init__"): path
        for folder, top in folders
        for path in folder.rglob("*.py")
    }


MODULES = _modules()


def _floor(module: str) -> int:
    _, *parts = module.split(".")
    names = [".".join(parts[:2]), parts[0]] if parts else ["__init__"]
    name = next((name for name in names if name in FLOOR_OF), None)
    assert name is not None, f"{module} has no floor yet: give it one in FLOORS"
    return FLOOR_OF[name]


def _imports(module: str) -> set[str]:
    """The project's modules that a module imports, wherever in its text."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import in line {node.lineno}"
            whole = [f"{node.module}.{name}" for name in names]
            names = [name if name in MODULES else str(node.module) for name in whole]
        found.update(name for name in names if name.split(".")[0] == "fastvoc")
    return found - {module}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_run_downward(module: str) -> None:
    above = [name for name in _imports(module) if _floor(name) > _floor(module)]
    assert not above, f"{module} imports {above} from a higher floor"


def test_imports_make_no_circle() -> None:
    order = list(TopologicalSorter({module: _imports(module) for module in MODULES}).static_order())
    assert len(order) >= len(MODULES)


def test_the_layout_in_contributing_is_that_of_the_house() -> None:
    """Its table has every name of FLOORS on its floor, top first, and no other."""
    text = (ROOT / "CONTRIBUTING.md").read_text().partition("## Layout")[2]
    rows = re.findall(r"^\| (`.+?) \| .+ \|$", text, re.MULTILINE)
    told = [{_name(path) for path in re.findall(r"`(.+?)`", row)} for row in rows]
    assert told == [set(names) for names in reversed(FLOORS)]


@pytest.mark.parametrize("name", sorted(FLOOR_OF.keys() - {"__init__"}))
def test_every_name_of_a_floor_exists(name: str) -> None:
    assert f"fastvoc.{name}" in MODULES


def _name(path: str) -> str:
    """As FLOORS has it: `streams/codec.py` is `streams.codec`."""
    return path.removesuffix("/").removesuffix(".py").replace("/", ".")


def _python(code: str) -> str:
    """What a fresh interpreter prints; a warning is an error there."""
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT.parent)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout.strip()


def test_import_is_quick() -> None:
    code = """
import os, time, torch, warnings
for _ in range(3):
    warnings.simplefilter("ignore")  # of threads beside a fork
    child = os.fork()
    warnings.simplefilter("error")
    if child == 0:
        start = time.process_time()
        import fastvoc
        print(time.process_time() - start, flush=True)
        os._exit(0)
    os.wait()
"""
    seconds = [float(word) for word in _python(code).split()]
    assert len(seconds) == 3
    assert min(seconds) < 0.3


def test_import_is_lazy_starts_no_cuda_and_loads_no_library() -> None:
    unwanted = {"typer", "rich", "soundfile", "soxr", "triton", "matplotlib", "huggingface_hub", "yaml", "onnx"}
    code = "import sys, torch; before = set(sys.modules); import fastvoc; print(*set(sys.modules) - before)"
    loaded = "print(torch.cuda.is_initialized(), torch.ops.loaded_libraries)"
    modules, last = _python(f"{code}; {loaded}").splitlines()
    assert unwanted.isdisjoint(modules.split())
    assert last == "False set()"


def test_loading_and_calling_import_no_compiler() -> None:
    code = "import sys, torch, fastvoc; voc = fastvoc.load('hifigan'); voc(torch.zeros(80, 9) - 5, check=False)"
    assert _python(f"{code}; print('torch._dynamo' in sys.modules, 'sympy' in sys.modules)") == "False False"


def test_kernels_is_no_top_level_package() -> None:
    with pytest.raises(subprocess.CalledProcessError) as failure:
        subprocess.run([sys.executable, "-c", "import kernels"], cwd=ROOT, env={}, check=True, capture_output=True)
    assert b"ImportError: this folder is fastvoc.kernels" in failure.value.stderr
    assert _python("import fastvoc.kernels; print(fastvoc.kernels.__name__)") == "fastvoc.kernels"
