"""What the README shows is true."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from fastvoc import env
from helpers import ROOT

README = (ROOT / "README.md").read_text()


def test_every_environment_variable_is_in_the_readme() -> None:
    assert set(re.findall(r"FASTVOC_[A-Z]+", README)) == {variable.name for variable in env.VARIABLES}


def test_every_variable_the_package_reads_is_in_env() -> None:
    known = {variable.name for variable in env.VARIABLES}
    for path in [*(ROOT / "fastvoc").rglob("*.py"), ROOT / "setup.py"]:
        assert set(re.findall(r"FASTVOC_[A-Z]+", path.read_text())) <= known, path


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target


@pytest.mark.parametrize("command", sorted(set(re.findall(r"^fastvoc (\w+)", README, re.MULTILINE))))
def test_every_command_shown_exists_and_shows_an_example(command: str) -> None:
    done = subprocess.run([sys.executable, "-P", "-m", "fastvoc", command, "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"Example: fastvoc {command}" in " ".join(done.stdout.split())


def test_the_python_example_runs() -> None:
    block = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0]
    script = f"import torch; wav = torch.randn(22050) * 0.1\n{block}\nassert wav.shape == (86 * 256,), wav.shape\n"
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
