"""Every public member of upstream's classes is there, or is excused with a reason (`members/excused.json`)."""

from __future__ import annotations

import json
from importlib import import_module
from typing import Any

import pytest
from compat_members import MODULE, OF, TABLES, upstream
from torch import nn

from fastvoc.compat import transformers as ours

EXCUSED = json.loads((TABLES / "excused.json").read_text())
VERSION = "5.24.0"


def table(package: str) -> dict[str, list[str]]:
    return json.loads((TABLES / f"{package}.json").read_text())


def excused(owner: str) -> set[str]:
    return {name for row in EXCUSED if owner in row.get("classes", [owner]) for name in row["members"]}


def missing(thing: Any, names: list[str]) -> set[str]:
    return {name for name in names if not (isinstance(thing, nn.Module) if name == MODULE else hasattr(thing, name))}


@pytest.mark.parametrize("package", OF)
def test_every_member_is_there_or_excused(package: str) -> None:
    things = OF[package](import_module(f"fastvoc.compat.{package}"))
    for owner, names in table(package).items():
        assert missing(things[owner], names) <= excused(owner), owner


def test_every_excuse_is_needed() -> None:
    lacking: dict[str, set[str]] = {}
    for package in OF:
        things = OF[package](import_module(f"fastvoc.compat.{package}"))
        for owner, names in table(package).items():
            lacking.setdefault(owner, set()).update(missing(things[owner], names))
    for row in EXCUSED:
        assert row["reason"]
        for name in row["members"]:
            assert any(name in lacking[owner] for owner in row.get("classes", lacking)), name


def test_the_table_is_transformers_own() -> None:
    transformers = pytest.importorskip("transformers")
    if transformers.__version__ != VERSION:
        pytest.skip(f"transformers {transformers.__version__}; the table is of {VERSION}")
    assert upstream("transformers") == table("transformers")


def test_counts_and_names() -> None:
    transformers = pytest.importorskip("transformers")
    values: dict[str, Any] = {"upsample_initial_channel": 32, "upsample_rates": [2], "upsample_kernel_sizes": [4]}
    mine, theirs = (p.SpeechT5HifiGan(p.SpeechT5HifiGanConfig(**values)) for p in (ours, transformers))
    assert mine.num_parameters() == theirs.num_parameters()
    mine.conv_pre.requires_grad_(False)
    theirs.conv_pre.requires_grad_(False)
    assert mine.num_parameters(only_trainable=True) == theirs.num_parameters(only_trainable=True)
    for buffers in (True, False):
        assert mine.get_memory_footprint(buffers) == theirs.get_memory_footprint(buffers)
    assert mine.get_parameter_or_buffer("mean") is mine.mean
    assert mine.get_parameter_or_buffer("conv_pre.weight") is mine.conv_pre.weight
    assert mine.base_model is mine
    assert theirs.base_model is theirs
    for name in ("supports_gradient_checkpointing", "is_activation_checkpointing"):
        assert getattr(mine, name) is getattr(theirs, name) is False
    assert mine.can_generate() is theirs.can_generate() is False
