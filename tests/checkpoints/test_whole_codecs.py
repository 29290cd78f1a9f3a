"""Checkpoints of DAC and SNAC: every shape of them, what is known and assumed, refusals."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
import torch
from whole_codec_files import DAC, write_dac, write_dac_transformers, write_snac
from whole_codecs import CONFIGS

from fastvoc.checkpoints import detect_and_load
from fastvoc.errors import LoadError
from fastvoc.models.dac import DacConfig
from fastvoc.nn.local_attention import frequencies


@pytest.mark.parametrize("config", [DAC, CONFIGS["dac-odd"]], ids=["even", "odd"])
def test_dac_is_read_off_its_tensors(config: DacConfig, tmp_path: Path) -> None:
    write_dac(tmp_path, config)
    checkpoint = detect_and_load(tmp_path)
    assert (checkpoint.config, checkpoint.origins, checkpoint.format) == (config, {}, "dac")
    write_dac(tmp_path, config, stated=False)
    unstated = detect_and_load(tmp_path)
    assert list(unstated.assumed) == ["sample_rate"]
    assert unstated.config.sample_rate == 44100
    (tmp_path / "weights.pth").unlink()
    for name, rate in (("weights_24khz.pth", 24000), ("weights_16khz.pth", 16000), ("weights_44khz_16kbps.pth", 44100)):
        write_dac(tmp_path, config, stated=False, name=name)
        known = detect_and_load(tmp_path / name)
        assert known.config.sample_rate == rate
        assert known.origins["sample_rate"].kind == "name"


def test_dac_of_transformers(tmp_path: Path) -> None:
    write_dac_transformers(tmp_path)
    assert detect_and_load(tmp_path).config == DAC
    fields = json.loads((tmp_path / "config.json").read_text())
    for change, named in (
        ({"model_type": "encodec"}, "model_type"),
        ({"downsampling_ratios": [2, 0]}, "encoder_rates"),
        ({"upsampling_ratios": [2, 2]}, "decoder_rates"),
        ({"codebook_dim": 7}, "shape"),
        ({"hidden_size": 5}, "shape"),
        ({"n_codebooks": 1 << 30}, "n_codebooks"),
        ({"encoder_hidden_size": 1 << 29}, "encoder_dim"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**fields, **change}))
        with pytest.raises(LoadError, match=named):
            detect_and_load(tmp_path)


@pytest.mark.parametrize("name", [name for name in CONFIGS if name.startswith("snac")])
def test_every_shape_of_snac(name: str, tmp_path: Path) -> None:
    write_snac(tmp_path, name)
    checkpoint = detect_and_load(tmp_path)
    assert (checkpoint.config, checkpoint.format) == (CONFIGS[name], "snac")


def test_rotary_frequencies_are_compared(tmp_path: Path) -> None:
    write_snac(tmp_path)
    state = torch.load(tmp_path / "pytorch_model.bin", weights_only=True)
    place = next(name for name in state if name.endswith("inv_freq"))
    for wrong, said in ((frequencies() * 1.01, "other rotary"), (torch.ones(31), "expected the rotary")):
        torch.save({**state, place: wrong}, tmp_path / "pytorch_model.bin")
        with pytest.raises(LoadError, match=said):
            detect_and_load(tmp_path)


def test_a_missing_and_a_strange_tensor_are_named(tmp_path: Path) -> None:
    write_dac(tmp_path)
    whole = torch.load(tmp_path / "weights.pth", weights_only=True)
    for name in ("decoder.model.1.block.2.block.1.weight", "encoder.block.3.alpha"):
        less = {n: t for n, t in whole["state_dict"].items() if n != name}
        torch.save({**whole, "state_dict": less}, tmp_path / "weights.pth")
        with pytest.raises(LoadError, match="missing"):
            detect_and_load(tmp_path)
    more = {**whole["state_dict"], "decoder.model.9.bias": torch.zeros(1)}
    torch.save({**whole, "state_dict": more}, tmp_path / "weights.pth")
    with pytest.raises(LoadError, match=r"decoder\.model\.9\.bias.*no place"):
        detect_and_load(tmp_path)
    for name in ("quantizer.quantizers.0.codebook.weight", "decoder.model.0.weight"):
        torch.save({**whole, "state_dict": {**whole["state_dict"], name: torch.zeros(4)}}, tmp_path / "weights.pth")
        with pytest.raises(LoadError, match="has not the shape of DAC's"):
            detect_and_load(tmp_path)
    whole["metadata"]["kwargs"]["sample_rate"] = "fast"
    torch.save(whole, tmp_path / "weights.pth")
    with pytest.raises(LoadError, match=r"metadata\.kwargs\.sample_rate"):
        detect_and_load(tmp_path)


def test_a_torch_package_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    with zipfile.ZipFile(path, "w") as archive:
        for name in (".data/extern_modules", ".data/version", "DAC/DAC.pth", "dac/model/dac.py"):
            archive.writestr(f"weights/{name}", b"raise SystemExit")
    with pytest.raises(LoadError, match=r"a torch\.package.*package=False"):
        detect_and_load(path)
