"""The release workflow builds what setup.py knows, for every Python that the package supports."""

from __future__ import annotations

import re
import sys

import yaml

from helpers import ROOT

sys.path.append(str(ROOT / "csrc"))
from native_toolchain import ARCHS

WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())


def test_every_toolkit_and_python_has_a_wheel() -> None:
    matrix = WORKFLOW["jobs"]["wheel"]["strategy"]["matrix"]
    assert {build["label"] for build in matrix["build"]} == {"cpu", *(f"cu{a}{b}" for a, b in ARCHS)}
    for build in matrix["build"]:
        label = build["label"]
        assert label == "cpu" or build["image"].endswith(f"cuda{label[2:4]}.{label[4:]}")
        assert "manylinux" in build["image"]
    assert all(python.split("-")[0] == python.split("-")[1] for python in matrix["python"])
    stated = re.findall(r'"Programming Language :: Python :: 3\.(\d+)"', (ROOT / "pyproject.toml").read_text())
    assert [python.split("-")[0] for python in matrix["python"]] == [f"cp3{minor}" for minor in stated]
    assert f'requires-python = ">=3.{stated[0]}"' in (ROOT / "pyproject.toml").read_text()


def test_the_same_file_meets_every_torch() -> None:
    torches = WORKFLOW["jobs"]["torch"]["strategy"]["matrix"]["torch"]
    assert [version.rpartition(".")[0] for version in torches] == ["2.11", "2.12", "2.13", "2.14", "2.15"]
