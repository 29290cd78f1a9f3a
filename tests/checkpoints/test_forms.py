"""Every dialect in every form: weight norm, precision, names of wrapped modules, shards, an absent last bias."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from checkpoint_dialects import DIALECTS, DTYPES, FORMS, change, in_form, plain, shard, weights_file, written
from torch import Tensor

import fastvoc.checkpoints as readers
from fastvoc.checkpoints import Checkpoint, detect_and_load
from fastvoc.checkpoints.constants import off_by
from fastvoc.checkpoints.source import open_source
from fastvoc.errors import LoadError
from fastvoc.loading import loaded
from fastvoc.models.hifigan import HifiGanConfig


def test_the_table_has_every_reader(tmp_path: Path) -> None:
    used = set()
    for number, dialect in enumerate(DIALECTS):
        source = open_source(written(dialect, tmp_path / str(number)))
        used.add(next(module for module in readers._FORMATS if module.detect(source)))
    assert used == set(readers._FORMATS) - {
        readers.native,
        readers.onnx_file,
        readers.mimi,
    }  # which have tests of their own


def close(ours: Checkpoint, theirs: Checkpoint, dtype: torch.dtype, form: str) -> None:
    """Equal but for the rounding of the stored tensors."""
    assert ours.config == theirs.config
    assert list(ours.state) == list(theirs.state)
    eps = max(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps)
    for name, tensor in ours.state.items():
        assert tensor.dtype == torch.float32
        expected = theirs.state[name]
        if form == "folded":
            torch.testing.assert_close(tensor, expected, rtol=eps, atol=1e-7, msg=name)
        else:
            size = float(expected.abs().max())
            torch.testing.assert_close(tensor, expected, rtol=2 * eps, atol=2 * eps * size + 1e-7, msg=name)


@pytest.mark.parametrize(
    ("form", "dtype"),
    [(form, dtype) for form in FORMS for dtype in DTYPES if dtype != torch.float64 or form == "folded"],
    ids=lambda value: str(value).removeprefix("torch."),
)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_in_every_form(dialect: str, form: str, dtype: torch.dtype, tmp_path: Path) -> None:
    theirs = plain(dialect)
    change(written(dialect, tmp_path), in_form(form, dtype))
    ours = detect_and_load(tmp_path)
    assert ours.format == theirs.format
    close(ours, theirs, dtype, form)


def wrapped(tensors: dict[str, Tensor], where: str) -> dict[str, Tensor]:
    """The names as wrappers of modules leave them."""

    def name(old: str) -> str:
        first, _, rest = old.partition(".")
        inner, _, last = old.rpartition(".")
        return {
            "data parallel": f"module.{old}",
            "compiled": f"_orig_mod.{old}",
            "both": f"module._orig_mod.{old}",
            "the other way": f"_orig_mod.module.{old}",
            "part": f"{first}._orig_mod.{rest}" if rest else old,
            "layers": f"{inner}._orig_mod.{last}" if inner else old,
            "all over": f"module.{first}.module.{rest}" if rest else f"module.{old}",
        }[where]

    return {name(old): tensor for old, tensor in tensors.items()}


@pytest.mark.parametrize("where", ["data parallel", "compiled", "both", "the other way", "part", "layers", "all over"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_names_of_wrapped_modules(dialect: str, where: str, tmp_path: Path) -> None:
    theirs = plain(dialect)
    change(written(dialect, tmp_path), lambda tensors: wrapped(tensors, where))
    ours = detect_and_load(tmp_path)
    assert (ours.format, ours.config) == (theirs.format, theirs.config)
    assert list(ours.state) == list(theirs.state)
    assert all(torch.equal(tensor, theirs.state[name]) for name, tensor in ours.state.items())


def test_a_name_that_is_there_twice_once_unwrapped(tmp_path: Path) -> None:
    written("jik876", tmp_path)
    change(tmp_path, lambda tensors: {**tensors, "module.conv_pre.bias": tensors["conv_pre.bias"]})
    with pytest.raises(LoadError, match=r"'generator.conv_pre.bias' and 'generator.module.conv_pre.bias' are both"):
        detect_and_load(tmp_path)


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
@pytest.mark.parametrize(
    "dialect", [name for name in DIALECTS if name not in ("nemo", "dac", "rvc", "gpt-sovits")]
)  # one file
def test_shards(dialect: str, kind: str, tmp_path: Path) -> None:
    theirs = plain(dialect)
    index = shard(written(dialect, tmp_path), kind)
    for given in (tmp_path, index):
        ours = detect_and_load(given)
        assert (ours.format, ours.config, ours.origins) == (theirs.format, theirs.config, theirs.origins)
        assert all(torch.equal(tensor, theirs.state[name]) for name, tensor in ours.state.items())
    lost = tmp_path / index.name.replace(f".{kind}.index.json", f"-00002-of-00003.{kind}")
    lost.unlink()
    with pytest.raises(LoadError, match=f"{lost.name}.*missing") as caught:
        detect_and_load(tmp_path)
    assert str(index) in str(caught.value)


@pytest.mark.parametrize(
    ("places", "named"),
    [
        ({}, "weight_map"),
        ({"a": 3}, "weight_map"),
        ({"a": "../model.safetensors"}, "weight_map"),
        ({"a": "/etc/passwd"}, "weight_map"),
        ({"a": "model.safetensors.index.json"}, "weight_map"),
        ({"a": ""}, "weight_map"),
        ({"a": ".."}, "weight_map"),
    ],
)
def test_indices_that_point_elsewhere(places: dict, named: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    with pytest.raises(LoadError, match=named):
        detect_and_load(tmp_path)


def test_an_index_that_lies(tmp_path: Path) -> None:
    index = shard(written("jik876", tmp_path), "safetensors")
    places = json.loads(index.read_text())["weight_map"]
    first = next(iter(places))
    index.write_text(json.dumps({"weight_map": {**places, "other": places[first]}}))
    with pytest.raises(LoadError, match="'other' is not in"):
        detect_and_load(tmp_path)
    index.write_text(json.dumps({"weight_map": {k: v for k, v in places.items() if k != first}}))
    with pytest.raises(LoadError, match=f"{first}.*the index has it in None"):
        detect_and_load(tmp_path)


HIFIGANS = (
    "jik876", "speecht5", "conformer", "conformer with its acoustic model", "parallel_wavegan",
    "parallel_wavegan_plain", "espnet", "coqui", "speechbrain", "nemo",
    "vits", "vits transformers", "vits coqui", "vits piper", "xtts", "gpt-sovits",
)  # fmt: skip


def test_the_hifigans_are_all_of_them() -> None:
    found = {name for name in DIALECTS if isinstance(plain(name).config, HifiGanConfig)}
    less = {"speecht5 without a rate", "vits piper without its configuration", "xtts without its configuration"}
    assert found == {*HIFIGANS, *less, "rvc"}


def _says_nothing_of_it(folder: Path) -> None:
    """Takes away what a configuration says of the last bias."""
    for path in folder.iterdir():
        if path.suffix in (".json", ".yaml"):
            text = path.read_text().replace('"conv_post_bias": false', '"x": false').replace("conv_post_bias: True", "")
            path.write_text(text)


@pytest.mark.parametrize("dialect", HIFIGANS)
def test_a_last_convolution_without_a_bias(dialect: str, tmp_path: Path) -> None:
    written(dialect, tmp_path)
    _says_nothing_of_it(tmp_path)
    last = ("conv_post.bias", "conv_post.conv.bias", "output_conv.1.bias")
    change(tmp_path, lambda tensors: {n: t for n, t in tensors.items() if not n.endswith(last)})
    ours = detect_and_load(tmp_path)
    assert not ours.config.post_bias
    assert "conv_post.bias" not in ours.state
    wav = loaded(ours, backend="torch")(torch.randn(ours.config.num_mels, 8), check=False)
    assert torch.isfinite(wav).all()


@pytest.mark.parametrize("dialect", ["coqui", "speechbrain"])
def test_a_last_bias_that_the_configuration_calls_for(dialect: str, tmp_path: Path) -> None:
    written(dialect, tmp_path)
    for path in tmp_path.iterdir():
        if path.suffix in (".json", ".yaml"):
            path.write_text(path.read_text().replace('"conv_post_bias": false', '"conv_post_bias": true'))
    last = ("conv_post.bias", "conv_post.conv.bias")
    change(tmp_path, lambda tensors: {n: t for n, t in tensors.items() if not n.endswith(last)})
    with pytest.raises(LoadError, match=r"conv_post\.bias.*missing"):
        detect_and_load(tmp_path)


CONSTANTS = {
    "bigvgan": (".filter", "not the published filter"),
    "vocos": ("head.istft.window", "Hann window"),
    "vocos draft": ("decoder.window", "Hann window"),
    "hiftnet model draft": ("stft_window", "Hann window"),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
@pytest.mark.parametrize("dialect", CONSTANTS)
def test_constants_are_compared_in_the_files_precision(dialect: str, dtype: torch.dtype, tmp_path: Path) -> None:
    end, named = CONSTANTS[dialect]

    def edit(factor: float) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
        def changed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            if dialect == "hiftnet model draft":
                tensors["hiftnet.stft_window"] = torch.hann_window(16)
            scaled = {n: t * factor if n.endswith(end) else t for n, t in tensors.items()}
            return {n: t.to(dtype) if t.is_floating_point() else t for n, t in scaled.items()}

        return changed

    written(dialect, tmp_path)
    change(tmp_path, edit(1.0))
    detect_and_load(tmp_path)
    change(tmp_path, lambda tensors: {n: t.float() if t.is_floating_point() else t for n, t in tensors.items()})
    detect_and_load(tmp_path)  # once rounded, then stored wide again
    change(tmp_path, edit(1.03))
    with pytest.raises(LoadError, match=named):
        detect_and_load(tmp_path)


def test_the_slack_is_that_of_rounding() -> None:
    exact = torch.linspace(-1, 1, 999, dtype=torch.float64).sin().float()
    for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        stored = exact.to(dtype)
        assert off_by(stored, exact, 0.0) is None
        assert off_by(stored.double(), exact, 0.0) is None
        step = torch.finfo(dtype).eps if dtype != torch.float64 else torch.finfo(torch.float32).eps
        moved = (exact.double() * (1 + 2 * step)).to(torch.float64).to(dtype)
        assert off_by(moved, exact, 0.0) is not None
    assert off_by(torch.full((3,), torch.nan), torch.zeros(3), 1.0) is not None
    assert off_by(torch.full((3,), torch.inf), torch.zeros(3), 1.0) is not None


def commented(text: str) -> str:
    return (
        text.replace("{", '{ // AUDIO "PARAMETERS" {\n// https://x.y "\n', 1).replace(",\n", ", // a\n", 2) + "// end"
    )


def test_coquis_comments(tmp_path: Path) -> None:
    theirs = detect_and_load(written("coqui", tmp_path))
    config = tmp_path / "config.json"
    plain = json.loads(config.read_text())
    text = json.dumps({"url": 'https://a//b\\"// no comment', **plain}, indent=1)
    for given in (commented(text), commented(text).replace("\n", "\r\n"), text.replace("1,", "1\\\n,")):
        config.write_bytes(given.encode())
        ours = detect_and_load(tmp_path)
        assert ours.config == theirs.config
        assert ours.assumed == theirs.assumed
    for bad in (text[:-2] + ",}", commented(text).replace("//", "#"), "/* a */" + text, '"' + "\\" * 9, '"\\"' * 99):
        config.write_text(bad)
        with pytest.raises(LoadError, match=r"config\.json: not valid JSON"):
            detect_and_load(tmp_path)
    config.write_bytes(b"// \xff\n" + text.encode())
    with pytest.raises(LoadError, match=r"config\.json: not valid JSON"):
        detect_and_load(tmp_path)


def test_weights_file_is_found(tmp_path: Path) -> None:
    for number, dialect in enumerate(DIALECTS):
        folder = written(dialect, tmp_path / str(number))
        assert open_source(folder).path == weights_file(folder)
