"""Exported files: the same samples in onnxruntime as from the model, and what they consist of."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_files import KOKORO
from exported_files import Feeds, feeds_of, off_by, outputs, outputs_openvino, reference
from mimi_models import UNUSUAL
from mimi_models import lively as lively_mimi
from model_files import _MODELS
from stream_families import nsf, randomised
from torch import Tensor, nn
from whole_codecs import CONFIGS as WHOLE
from whole_codecs import lively_whole

import fastvoc
from fastvoc.codec import Codec
from fastvoc.errors import ArgumentError, DtypeError, ExportError, FastvocError
from fastvoc.exporting import emitters
from fastvoc.exporting.export import serialized
from fastvoc.loaded import LoadedModel
from fastvoc.models.dac import DacConfig
from fastvoc.models.hifigan import HifiGanConfig
from fastvoc.models.mimi_config import MimiConfig
from fastvoc.models.snac import SnacConfig
from fastvoc.models.vocos_config import VocosConfig
from fastvoc.nn.model import Model
from fastvoc.nn.network import Trace, Value
from fastvoc.ops.upsample import UpsampleParams
from fastvoc.styled import StyledVocoder
from fastvoc.vocoder import Vocoder
from helpers import ROOT, relative_l2

onnx = pytest.importorskip("onnx", reason="onnx is not installed")


def _whole(config: DacConfig | SnacConfig) -> Codec:
    return Codec(lively_whole(config), config)


def _kokoro() -> Vocoder:
    voc = randomised(KOKORO)
    for name, parameter in voc.model.named_parameters():
        if name.endswith((".norm.weight", ".alpha")):
            parameter.abs_().add_(0.5)
    return StyledVocoder(voc.model, KOKORO)


def _mimi(config: MimiConfig) -> Codec:
    return Codec(lively_mimi(config), config)


pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

MODELS: dict[str, Callable[[], Any]] = {
    **_MODELS,
    **{name: partial(_whole, config) for name, config in WHOLE.items()},
    **{f"mimi-{name}": partial(_mimi, config) for name, config in UNUSUAL.items()},
    "kokoro": _kokoro,
    "rvc": nsf,
    "rvc-overtones": partial(nsf, harmonics=4, num_speakers=0),
    "rvc-alone": partial(nsf, gin_channels=0, num_speakers=0),
}
REFUSED = {"int8"}  # which has no file by its convolutions
NAMES = sorted(MODELS.keys() - REFUSED)
SHAPES = ((2, 9), (1, 31))  # items and frames


def made(name: str) -> LoadedModel:
    torch.manual_seed(0)
    loaded: LoadedModel = MODELS[name]()
    loaded.backend = "torch"
    loaded.model.eval().requires_grad_(False).prepare(backend="torch")
    return loaded


@cache
def shared(name: str) -> LoadedModel:
    """The same, once, for tests that change nothing of it."""
    return made(name)


@cache
def expected(name: str, batch: int, frames: int) -> tuple[Feeds, Tensor]:
    """Random inputs and what the model makes of them, for every runtime."""
    feeds = feeds_of(shared(name), chosen(name), batch, frames)
    return feeds, reference(shared(name), feeds)


@cache
def file_of(name: str, inputs: tuple[str, ...] = ()) -> bytes:
    return serialized(shared(name), inputs=inputs)


def distance(name: str) -> Callable[[Tensor, Tensor], float]:
    """The greatest difference over the root mean square; its own root mean square where roundings are passed on."""
    return relative_l2 if name in WHOLE or name == "hifigan-rounds" else off_by


def chosen(name: str) -> tuple[str, ...]:
    """What decides all randomness of a model from outside, and the F0, to whose roundings the phases are sensitive."""
    if name.startswith("hift"):
        return ("f0", "phase", "noise")
    if name == "kokoro":  # at angles of pi rounding decides
        return ("har",)
    if name.startswith("rvc"):  # whose overtones begin anywhere
        return ("source",) if name == "rvc-overtones" else ("noise",)
    noisy = name.startswith("univnet") or (name.startswith("snac") and name != "snac-silent")
    return ("noise",) if noisy else ()


@pytest.mark.parametrize("name", NAMES)
def test_parity(name: str) -> None:
    run = outputs(file_of(name, chosen(name)))
    for batch, frames in ((1, shared(name).model.min_frames), *SHAPES):
        feeds, meant = expected(name, batch, frames)
        (wav,) = run(feeds).values()
        assert wav.shape == meant.shape
        assert distance(name)(wav, meant) <= 1e-5, (batch, frames)


def test_a_transform_is_stored_once() -> None:
    """Eight phase rounds and the head itself have two bases, so that the file is little more than the voice."""
    voc = fastvoc.load("vocos-22k")
    weights = sum(parameter.numel() for parameter in voc.model.parameters())
    bases = 2 * voc.config.n_fft * (voc.config.n_fft + 2)
    assert len(serialized(voc)) < 4.1 * (weights + bases)


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith(("hift", "rvc", "kokoro"))])
def test_a_source_from_outside(name: str) -> None:
    loaded = shared(name)
    feeds = feeds_of(loaded, ("source",), 2, 9)
    (wav,) = outputs(file_of(name, ("source",)))(feeds).values()
    assert off_by(wav, reference(loaded, feeds)) <= 1e-5


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith("hift")])
def test_f0_is_that_of_the_model(name: str) -> None:
    """Its roundings move the phases, so that the samples agree less than with an F0 from outside."""
    loaded = shared(name)
    feeds = feeds_of(loaded, ("phase", "noise"), 2, 9)
    (wav,) = outputs(file_of(name, ("phase", "noise")))(feeds).values()
    assert off_by(wav, reference(loaded, feeds)) <= 2e-3


@pytest.mark.parametrize("name", ["hift-sample", "hift-causal", "univnet", "snac", "rvc", "kokoro"])
def test_the_runtime_draws_noise(name: str) -> None:
    loaded = shared(name)
    feeds = feeds_of(loaded, (), 1, 40)

    def wav(seed: int) -> Tensor:
        return outputs(serialized(loaded, seed=seed))(feeds)["audio"]

    one, same, other = wav(1), wav(1), wav(2)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    ours = reference(loaded, feeds)
    assert 0.8 < float(one.square().mean().sqrt() / ours.square().mean().sqrt()) < 1.25


@pytest.mark.parametrize(
    ("name", "inputs", "message"),
    [
        ("kokoro", ("har", "noise"), "har, source and noise come in place of each other"),
        ("kokoro", ("phase",), "Kokoro cannot take 'phase' from outside; expected some of har, noise, source"),
        ("rvc", ("source", "noise"), "source comes in place of f0 and noise"),
        ("rvc-alone", ("speaker",), "NsfHifiGan cannot take 'speaker' from outside; expected some of noise, source"),
    ],
)
def test_inputs_that_cannot_be_chosen_are_named(name: str, inputs: tuple[str, ...], message: str) -> None:
    with pytest.raises(ExportError, match=f"^inputs: {message}"):
        serialized(made(name), inputs=inputs)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_has_what_every_runtime_knows(name: str) -> None:
    loaded = shared(name)
    model = onnx.load_model_from_string(file_of(name))
    kinds = {node.op_type for node in model.graph.node}
    assert {node.domain for node in model.graph.node} == {""}
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]
    assert kinds.isdisjoint({"STFT", "DFT", "If", "Loop", "Scan", "SequenceAt"})
    if name.startswith("vocos"):  # whose only transposed convolution would be an inverse transform
        assert "ConvTranspose" not in kinds
        assert "MatMul" in kinds
    stated = {prop.key: prop.value for prop in model.metadata_props}
    assert (stated["family"], stated["sample_rate"]) == (loaded.config.family, str(loaded.sample_rate))
    assert type(loaded.config).from_dict(json.loads(stated["config"])) == loaded.config
    signal = model.graph.input[0]
    axes = [axis.dim_param or axis.dim_value for axis in signal.type.tensor_type.shape.dim]
    assert (axes[0], axes[2]) == ("batch", "frames")


@pytest.mark.parametrize("name", ["hifigan-1", "univnet", "vocos-same", "codec-mono"])
def test_weights_keep_their_names_and_are_there_once(name: str) -> None:
    loaded = made(name)
    data = serialized(loaded)
    held = {w.name: tuple(w.dims) for w in onnx.load_model_from_string(data).graph.initializer}
    named = {n: tuple(p.shape) for n, p in loaded.model.named_parameters() if n in held}
    assert named == {n: held[n] for n in named}
    assert len(named) >= 3
    weights = sum(t.numel() for n, t in loaded.model.named_parameters() if not n.startswith(("encoder", "quantizer")))
    assert len(data) < 4 * weights + 120_000


def test_bfloat16_weights_are_computed_in_float32() -> None:
    loaded = made("hifigan-2")
    rounded = made("hifigan-2")
    loaded.model.to(torch.bfloat16)
    for name, parameter in rounded.model.named_parameters():
        parameter.copy_(loaded.model.get_parameter(name).float())
    for name, buffer in rounded.model.named_buffers():
        buffer.copy_(loaded.model.get_buffer(name).float())
    feeds = feeds_of(rounded, (), 2, 9)
    (wav,) = outputs(serialized(loaded))(feeds).values()
    assert wav.dtype is torch.float32
    assert off_by(wav, reference(rounded, feeds)) <= 1e-5


@pytest.mark.parametrize("name", ["hifigan-1", "vocos-same", "codec-mono"])
def test_sixteen_bits_are_stored_only(name: str) -> None:
    """The same as the weights rounded to float16, in a file of little more than half the size."""
    loaded, whole = made(name), serialized(made(name))
    half = serialized(loaded, dtype="fp16")
    assert len(half) < 0.75 * len(whole)
    feeds = feeds_of(loaded, (), 1, 9)
    (wav,) = outputs(half)(feeds).values()
    expected = reference(loaded, feeds)
    assert 1e-5 < off_by(wav, expected) < 0.05


def test_weights_beyond_float16_are_refused() -> None:
    loaded = made("hifigan-1")
    loaded.model.get_parameter("conv_pre.weight")[0, 0, 0] = 1e5
    with pytest.raises(ExportError, match=r"^conv_pre: conv_pre\.weight: a value is too large for float16"):
        serialized(loaded, dtype="fp16")


def test_a_file_replaces_another_at_once_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "voice.onnx"
    fastvoc.export(made("hifigan-1"), path)
    onnx.checker.check_model(str(path), full_check=True)
    before = path.read_bytes()
    with pytest.raises(ExportError):
        fastvoc.export(made("univnet"), path, inputs=("f0",))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["voice.onnx"]
    with pytest.raises(OSError, match="No such file"):
        fastvoc.export(made("hifigan-1"), tmp_path / "none" / "voice.onnx")


def test_equal_models_give_equal_bytes() -> None:
    assert serialized(made("hift-sample")) == serialized(made("hift-sample"))


def _hifigan() -> Vocoder:
    voc = made("hifigan-1")
    assert isinstance(voc, Vocoder)
    return voc


def test_what_cannot_be_exported_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "voice.onnx"

    def refused(loaded: Any, message: str, **options: Any) -> None:
        with pytest.raises(ExportError, match=message):
            fastvoc.export(loaded, path, **options)
        assert not path.exists()

    int8 = _MODELS["int8"]()
    fastvoc.save(int8, tmp_path / "int8.safetensors")
    refused(fastvoc.load(tmp_path / "int8.safetensors"), r"^[\w.]+: int8 layers cannot be exported")
    refused(made("hifigan-1"), "^inputs: HifiGan cannot take 'f0' from outside; there is none", inputs=("f0",))
    refused(made("univnet"), "UnivNet cannot take 'seed' from outside; expected some of noise", inputs=("seed",))
    refused(made("hift-sample"), "expected it alone", inputs=("f0", "source"))
    refused(made("vits"), "^inputs: sherpa-onnx gives a vocoder a log-mel", runtime="sherpa-onnx")
    refused(made("codec-mono"), "^inputs: sherpa-onnx gives a vocoder a log-mel", runtime="sherpa-onnx")
    refused(made("hifigan-1"), "^runtime: expected one of sherpa-onnx or None, got 'tflite'", runtime="tflite")
    with monkeypatch.context() as here:
        here.delitem(emitters.BY_PARAMS, UpsampleParams)
        refused(_hifigan(), r"^ups\.0: WideUpsample cannot be exported")
    with pytest.raises(ExportError, match=r"^Model cannot be exported"):  # where a family does not say how
        Model().written()
    voc = _hifigan()

    def softened(run: Trace, mel: Value) -> Value:
        return run.map(lambda x: nn.functional.softplus(x), mel)

    monkeypatch.setattr(voc.model, "network", softened)
    refused(voc, r"^step\.0: softplus cannot be exported")
    monkeypatch.setattr(voc.model, "network", lambda run, mel: run.map(lambda x: x.cumsum(2), mel))
    refused(voc, r"^step\.0: cumsum cannot be exported")


def test_wrong_arguments_are_named(tmp_path: Path) -> None:
    voc = made("hifigan-1")
    with pytest.raises(DtypeError, match="dtype: expected fp32 or fp16, got 'bf16'"):
        fastvoc.export(voc, tmp_path / "x.onnx", dtype="bf16")
    with pytest.raises(DtypeError, match="inputs: expected names, got the text 'noise'"):
        fastvoc.export(voc, tmp_path / "x.onnx", inputs="noise")
    with pytest.raises(DtypeError, match="loaded: expected a Vocoder or a Codec, got HifiGan"):
        fastvoc.export(voc.model, tmp_path / "x.onnx")  # type: ignore[arg-type]


def test_the_package_is_optional(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr("fastvoc.exporting.package.import_module", missing)
    with pytest.raises(FastvocError, match="ONNX files need the package onnx: pip install onnx"):
        fastvoc.export(made("hifigan-1"), tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_openvino(name: str) -> None:
    """Which computes float64 in float32."""
    pytest.importorskip("openvino", reason="openvino is not installed")
    run = outputs_openvino(file_of(name, chosen(name)))
    for batch, frames in SHAPES:
        feeds, meant = expected(name, batch, frames)
        assert distance(name)(run(feeds)["audio"], meant) <= 1e-5


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_kokoro_makes_its_source(runtime: str) -> None:
    """From F0 and noise: its Snakes pass roundings on, and an angle beside pi may turn, of which there is none here."""
    pytest.importorskip(runtime, reason=f"{runtime} is not installed")
    loaded = shared("kokoro")
    run = {"onnxruntime": outputs, "openvino": outputs_openvino}[runtime](file_of("kokoro", ("noise",)))
    for batch, frames in ((2, 5), (1, 12)):
        feeds = feeds_of(loaded, ("noise",), batch, frames)
        assert away_from_pi(loaded, feeds) > 1e-5
        assert relative_l2(run(feeds)["audio"], reference(loaded, feeds)) <= 1e-5


def away_from_pi(loaded: LoadedModel, feeds: Feeds) -> float:
    """The least distance of an angle from pi, but for those of the last bin and of the first frame, which are real."""
    model: Any = loaded.model
    source = model.make_source(torch.from_numpy(feeds["f0"]), noise=torch.from_numpy(feeds["noise"]), backend="torch")
    angles = model.stft(source, backend="torch")[:, loaded.config.n_fft // 2 + 2 : -1, 1:]
    return float((torch.pi - angles.abs()).abs().min())


def test_hop_and_window_of_any_ratio() -> None:
    """Frames that are no multiple of the hop."""
    config = VocosConfig(
        input_channels=6, dim=24, intermediate_dim=40, num_layers=1, n_fft=50, hop_length=20, padding="same"
    )
    voc = randomised(config)
    feeds = feeds_of(voc, (), 2, 11)
    (wav,) = outputs(serialized(voc))(feeds).values()
    assert off_by(wav, reference(voc, feeds)) <= 1e-5


@pytest.mark.parametrize("pad_mode", ["zeros", "reflect"])
def test_hifigan_of_any_shape(pad_mode: str) -> None:
    """Odd strides with output padding, no last bias, reflected borders."""
    config = HifiGanConfig(
        num_mels=6,
        upsample_initial_channel=16,
        upsample_rates=(5, 3),
        upsample_kernel_sizes=(10, 6),
        upsample_paddings=(3, 2),
        upsample_output_paddings=(1, 1),
        resblock_kernel_sizes=(3,),
        resblock_dilation_sizes=((1, 3),),
        post_bias=False,
        pad_mode=pad_mode,
    )
    voc = randomised(config)
    feeds = feeds_of(voc, (), 2, 11)
    (wav,) = outputs(serialized(voc))(feeds).values()
    assert off_by(wav, reference(voc, feeds)) <= 1e-5


def test_codes_outside_name_the_nearest() -> None:
    codec = made("codec-mono")
    assert isinstance(codec, Codec)
    run = outputs(serialized(codec))
    wild = torch.full((1, 2, 5), codec.config.bins + 7)
    wild[0, 1] = -3
    tame = wild.clamp(0, codec.config.bins - 1)
    assert torch.equal(run({"codes": wild.numpy()})["audio"], run({"codes": tame.numpy()})["audio"])


def test_the_embedded_voice_speaks() -> None:
    voc = fastvoc.load("hifigan", backend="torch")
    wav, rate = fastvoc.audio.read_audio(ROOT / "fastvoc" / "assets" / "demo.flac")
    mel = voc.mel(fastvoc.audio.resample(fastvoc.audio.mono(wav), rate, voc.sample_rate)[22050:66150])
    (made_,) = outputs(serialized(voc))({"mel": mel[None].numpy()}).values()
    assert relative_l2(made_[0, 0], voc(mel)) <= 1e-5


@pytest.mark.parametrize("name", ["hifigan-1", "hifigan-2", "hifigan-odd", "vits"])
def test_an_exported_hifigan_is_read_back(name: str, tmp_path: Path) -> None:
    """The same configuration, but for what no graph says, and the same weights bit for bit."""
    loaded = made(name)
    fastvoc.export(loaded, tmp_path / "voice.onnx")
    back = fastvoc.load_vocoder(tmp_path / "voice.onnx", backend="torch")
    assert replace(back.config, upsample_paddings=None, upsample_output_paddings=None) == loaded.config
    for key, tensor in loaded.model.state_dict().items():
        assert torch.equal(back.model.state_dict()[key], tensor), key
    feeds = feeds_of(loaded, (), 2, 9)
    assert off_by(reference(back, feeds), reference(loaded, feeds)) <= 1e-6


def _seeds(data: bytes) -> list[float]:
    nodes = onnx.load_model_from_string(data).graph.node
    return [value.f for node in nodes for value in node.attribute if value.name == "seed"]


@pytest.mark.parametrize("seed", [0, 5, 1 << 23])
def test_every_node_that_draws_has_its_own_seed(seed: int) -> None:
    seeds = _seeds(serialized(made("hift-sample"), seed=seed))
    assert len(seeds) > 1
    assert seeds == [seed + 1.0 + i for i in range(len(seeds))]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"seed": (1 << 23) + 1}, ArgumentError, r"seed: expected 0\.\.8388608, got 8388609"),
        ({"seed": -1}, ArgumentError, "seed: expected"),
        ({"seed": 10**5000}, ArgumentError, "seed: .* got an integer of 16610 bits"),
        ({"seed": "a"}, DtypeError, "seed: expected an integer, got str"),
        ({"seed": None}, DtypeError, "seed: expected an integer, got NoneType"),
        ({"seed": True}, DtypeError, "seed: expected an integer, got bool"),
        ({"inputs": None}, DtypeError, "inputs: expected names, got None"),
        ({"inputs": [1]}, DtypeError, r"inputs: expected names, got \[1\]"),
        ({"dtype": ["fp32"]}, DtypeError, r"dtype: expected fp32 or fp16, got \['fp32'\]"),
        ({"runtime": []}, ExportError, "runtime: expected one of"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], error: type[FastvocError], message: str) -> None:
    with pytest.raises(error, match=message):
        serialized(made("univnet"), **options)


def test_wrong_paths_are_named(tmp_path: Path) -> None:
    voc = made("univnet")
    for path in ("", " ", ".", tmp_path):
        with pytest.raises(ArgumentError, match="path: expected the name of a file, got"):
            fastvoc.export(voc, path)
    with pytest.raises(DtypeError, match="path: expected a text or a path, got int"):
        fastvoc.export(voc, 3)  # type: ignore[arg-type]
