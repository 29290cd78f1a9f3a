"""Files for sherpa-onnx, run by the package itself behind an acoustic model that gives one fixed mel."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exported_files import off_by, outputs
from stream_families import _hift, randomised

import fastvoc
from fastvoc.exporting.export import serialized
from fastvoc.models.bigvgan import BigVganConfig
from fastvoc.models.hifigan import HifiGanConfig
from fastvoc.models.vocos_config import VocosConfig

onnx = pytest.importorskip("onnx", reason="onnx is not installed")

_VOCOS: dict[str, Any] = {"input_channels": 80, "dim": 24, "intermediate_dim": 40, "num_layers": 2}
MODELS = {
    "hifigan": lambda: randomised(HifiGanConfig(num_mels=80, upsample_initial_channel=32)),
    "bigvgan": lambda: randomised(
        BigVganConfig(num_mels=80, upsample_initial_channel=16, upsample_rates=(4, 2), upsample_kernel_sizes=(8, 4))
    ),
    "vocos-center": lambda: randomised(VocosConfig(**_VOCOS, padding="center", n_fft=1024, hop_length=256)),
    "vocos-same": lambda: randomised(VocosConfig(**_VOCOS, padding="same", n_fft=1024, hop_length=256)),
}
# Leaves the process by itself where it does not like a file, so it gets one of its own.
_SCRIPT = """
import sys
import numpy as np
import sherpa_onnx
folder = sys.argv[1]
matcha = sherpa_onnx.OfflineTtsMatchaModelConfig(
    acoustic_model=f"{folder}/acoustic.onnx", vocoder=f"{folder}/vocoder.onnx",
    lexicon=f"{folder}/lexicon.txt", tokens=f"{folder}/tokens.txt",
)
config = sherpa_onnx.OfflineTtsConfig(model=sherpa_onnx.OfflineTtsModelConfig(matcha=matcha, num_threads=1))
assert config.validate()
sound = sherpa_onnx.OfflineTts(config).generate("ab ab")
np.save(f"{folder}/sound.npy", np.asarray(sound.samples, np.float32))
print(sound.sample_rate)
"""


def _acoustic(path: Path, mel: np.ndarray[Any, Any], metadata: Mapping[str, str]) -> None:
    """A model of Matcha's kind that says the same whatever the text is."""
    helper, types = onnx.helper, onnx.TensorProto
    scale = [("noise_scale", types.FLOAT, [1]), ("length_scale", types.FLOAT, [1])]
    given = [("x", types.INT64, ["n", "t"]), ("x_length", types.INT64, ["n"]), *scale]
    inputs = [helper.make_tensor_value_info(*one) for one in given]
    result = helper.make_tensor_value_info("mel", types.FLOAT, list(mel.shape))
    nodes = [helper.make_node("Identity", ["fixed"], ["mel"])]
    graph = helper.make_graph(nodes, "acoustic", inputs, [result], [onnx.numpy_helper.from_array(mel, "fixed")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, dict(metadata))
    onnx.save(model, str(path))


@pytest.mark.parametrize("name", MODELS)
def test_sherpa_runs_it(name: str, tmp_path: Path) -> None:
    if find_spec("sherpa_onnx") is None:
        pytest.skip("sherpa_onnx is not installed")
    voc = MODELS[name]()
    fastvoc.export(voc, tmp_path / "vocoder.onnx", runtime="sherpa-onnx")
    mel = torch.randn(80, 40, generator=torch.Generator().manual_seed(0))
    facts = {"sample_rate": voc.sample_rate, "n_speakers": 1, "use_eos_bos": 0, "pad_id": 0, "version": 1}
    _acoustic(tmp_path / "acoustic.onnx", mel[None].numpy(), {key: str(value) for key, value in facts.items()})
    (tmp_path / "tokens.txt").write_text("_ 0\na 1\nb 2\n")
    (tmp_path / "lexicon.txt").write_text("ab a b\n")
    command = [sys.executable, "-P", "-c", _SCRIPT, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == voc.sample_rate
    sound = torch.from_numpy(np.load(tmp_path / "sound.npy"))
    expected = voc(mel)
    assert sound.shape == expected.shape
    assert off_by(sound, expected) <= 1e-5


def test_vocos_gives_its_spectrum() -> None:
    """[1, n_fft / 2 + 1, T] each: magnitudes, and the cosines and sines of the phases."""
    voc = MODELS["vocos-center"]()
    data = serialized(voc, runtime="sherpa-onnx")
    found = outputs(data)({"mel": torch.randn(1, 80, 9).numpy()})
    assert {key: list(t.shape) for key, t in found.items()} == {key: [1, 513, 9] for key in ("mag", "x", "y")}
    assert torch.allclose(found["x"].square() + found["y"].square(), torch.ones(()), atol=1e-5)
    assert (found["mag"] > 0).all()
    stated = {prop.key: prop.value for prop in onnx.load_model_from_string(data).metadata_props}
    wanted = {
        "model_type": "vocos",
        "sample_rate": "24000",
        "n_fft": "1024",
        "hop_length": "256",
        "win_length": "1024",
        "center": "1",
        "normalized": "0",
        "window_type": "hann",
        "pad_mode": "reflect",
    }
    assert {key: stated.get(key) for key in wanted} == wanted


@pytest.mark.parametrize("kind", ["hifigan", "vocos-same", "hift"])
def test_every_other_model_gives_samples(kind: str) -> None:
    voc = _hift() if kind == "hift" else MODELS[kind]()
    data = serialized(voc, runtime="sherpa-onnx")
    stated = {prop.key: prop.value for prop in onnx.load_model_from_string(data).metadata_props}
    assert stated["model_type"] == "hifigan"
    (sound,) = outputs(data)({"mel": torch.randn(1, voc.n_mels, 9).numpy()}).values()
    assert sound.shape == (1, 1, voc.config.samples(9))
