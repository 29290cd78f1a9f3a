"""Decoders out of ONNX files: golden voices, torch's exports in every form, optimised files, and refusals."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoint_files import SMALL, VITS, VITS_1, random_state
from onnx_files import (
    NORMAL,
    ODD,
    Exporter,
    Norm,
    attribute,
    edit,
    export,
    generator,
    need_onnx,
    nodes,
    onnx_model,
    run_onnx,
    write_voice,
)

import fastvoc
from fastvoc.checkpoints import detect_and_load
from fastvoc.errors import ArgumentError, AssumptionWarning, LoadError
from fastvoc.models.hifigan import HifiGanConfig
from fastvoc.sound.mel import MelConfig
from helpers import assert_golden, golden, implementations

need_onnx()

SMALL_2 = replace(SMALL, resblock="2")
ALONE = replace(VITS, num_speakers=0)  # a decoder without the table of speakers around it
ONE_BLOCK = replace(SMALL, resblock_kernel_sizes=(3,), resblock_dilation_sizes=((1, 2),))


def write(
    folder: Path, config: HifiGanConfig, norm: Norm = "none", exporter: Exporter = "torchscript", **how: Any
) -> Path:
    inputs = [torch.randn(1, config.num_mels, 9)]
    inputs += [torch.randn(1, config.gin_channels, 1)] if config.gin_channels else []
    return export(
        folder / "m.onnx", generator(config, norm), tuple(inputs), ("mel", "g")[: len(inputs)], exporter, **how
    )


def check(path: Path, config: HifiGanConfig, *, folded: bool = False, bits: float = 2e-6) -> None:
    """Configuration and weights are those that were written, the sound is onnxruntime's."""
    checkpoint = detect_and_load(path)
    latent = config.latent or bool(config.gin_channels)
    assert checkpoint.config == replace(config, sample_rate=22050, latent=latent, mel=None)
    assert checkpoint.format == "onnx"
    for name, tensor in random_state(config).items():
        close = torch.allclose(checkpoint.state[name], tensor, rtol=1e-5, atol=1e-7)
        assert close if folded else torch.equal(checkpoint.state[name], tensor), name
    pytest.importorskip("onnxruntime", reason="the package onnxruntime is not installed")
    sounds_alike(path, config, bits)


def sounds_alike(path: Path, config: HifiGanConfig, bits: float = 2e-6) -> None:
    voc = fastvoc.load_vocoder(path)
    mel = torch.randn(1, config.num_mels, 17)
    vector = torch.randn(1, config.gin_channels, 1) if config.gin_channels else None
    theirs = run_onnx(path, mel=mel, **({} if vector is None else {"g": vector}))
    ours = (voc(mel) if vector is None else voc(mel, speaker=vector))[:, None]
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= bits * theirs.square().mean().sqrt()


@pytest.mark.golden
@pytest.mark.parametrize("impl", implementations("mrf"))
@pytest.mark.parametrize("name", ["en_XX-standin-medium", "en_XX-standin-medium_anonymous"])
def test_golden(name: str, impl: str) -> None:
    case = golden("vits_piper_onnx")
    voc = fastvoc.load_vocoder(case.dir / f"{name}.onnx", backend=impl)
    assert (voc.sample_rate, voc.hop, voc.n_mels, voc.mel_config) == (22050, 256, 16, None)
    assert voc.assumed == {}
    assert_golden(voc(case.outputs["latent"])[:, None], case, "wav_anonymous" if "anonymous" in name else "wav")


@pytest.mark.parametrize("config", [SMALL, SMALL_2, ALONE, ODD, NORMAL, ONE_BLOCK], ids=range(6))
@pytest.mark.filterwarnings("ignore::fastvoc.errors.AssumptionWarning")
def test_a_plain_export(config: HifiGanConfig, tmp_path: Path) -> None:
    check(write(tmp_path, config), config, folded=config.normalize_before)


@pytest.mark.parametrize("folding", [True, False])
@pytest.mark.parametrize("norm", ["old", "parametrized"])
def test_weight_norm_is_folded(norm: Norm, folding: bool, tmp_path: Path) -> None:
    check(write(tmp_path, SMALL, norm, folding=folding), SMALL, folded=True)
    ops = {node.op_type for node in onnx_model(tmp_path / "m.onnx").graph.node}
    assert ("ReduceL2" in ops) is not folding


@pytest.mark.slow
@pytest.mark.parametrize("folding", [True, False])
@pytest.mark.parametrize(("config", "norm"), [(SMALL, "none"), (SMALL, "parametrized"), (ALONE, "old")], ids=range(3))
def test_exports_of_dynamo(config: HifiGanConfig, norm: Norm, folding: bool, tmp_path: Path) -> None:
    need_onnx("onnxscript")
    path = write(tmp_path, config, norm, "dynamo", folding=folding)
    if config.post_bias:
        check(path, config, folded=norm != "none")
    else:  # unoptimised, it has a bias of zeros
        sounds_alike(path, config)


@pytest.mark.parametrize("level", ["BASIC", "EXTENDED", "ALL"])
@pytest.mark.parametrize("config", [SMALL, ALONE], ids=["blocks-1", "blocks-2"])
def test_files_that_onnxruntime_optimised(config: HifiGanConfig, level: str, tmp_path: Path) -> None:
    need_onnx("onnxruntime")
    import onnxruntime

    plain = write(tmp_path, config)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(plain), options, providers=["CPUExecutionProvider"])
    fused = any(node.op_type == "FusedConv" for node in onnx_model(tmp_path / "optimised.onnx").graph.node)
    assert fused is (level != "BASIC")
    check(tmp_path / "optimised.onnx", config)


def anonymous(model: Any) -> None:
    names = {tensor.name: f"w{i}" for i, tensor in enumerate(model.graph.initializer)}
    for tensor in model.graph.initializer:
        tensor.name = names[tensor.name]
    for node in model.graph.node:
        node.name = ""
        for values in (node.input, node.output):
            renamed = [names.setdefault(name, f"x{len(names)}") if name and name != "mel" else name for name in values]
            del values[:]
            values.extend(renamed)
    for value in model.graph.output:
        value.name = names[value.name]
    model.graph.initializer.sort(key=lambda tensor: tensor.dims[0])


def swapped(model: Any) -> None:
    """Operands of every sum the other way round: of residuals and of sums over blocks."""
    for node in model.graph.node:
        if node.op_type == "Add":
            pair = list(node.input)[::-1]
            del node.input[:]
            node.input.extend(pair)


def mean_as_product(model: Any) -> None:
    for node in model.graph.node:
        if node.op_type == "Div":
            node.op_type = "Mul"
    constants(model, lambda value: 1 / value)


def constants(model: Any, change: Callable[[Any], Any]) -> None:
    from onnx import numpy_helper

    for node in model.graph.node:
        if node.op_type == "Constant":
            value = change(numpy_helper.to_array(node.attribute[0].t))
            node.attribute[0].t.CopyFrom(numpy_helper.from_array(np.asarray(value, dtype=np.float32)))


def through_identities(model: Any) -> None:
    from onnx import helper

    nodes = []
    for number, node in enumerate(model.graph.node):
        inputs = list(node.input)
        for at, name in enumerate(inputs):
            op = ("Identity", "Cast", "Dropout")[number % 3]
            made = f"{name}-{number}-{at}"
            nodes.append(helper.make_node(op, [name], [made], **({"to": 1} if op == "Cast" else {})))
            node.input[at] = made
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


@pytest.mark.parametrize("change", [anonymous, swapped, mean_as_product, through_identities])
@pytest.mark.parametrize("config", [SMALL, SMALL_2], ids=["blocks-1", "blocks-2"])
def test_names_and_order_mean_nothing(config: HifiGanConfig, change: Callable[[Any], None], tmp_path: Path) -> None:
    path = edit(write(tmp_path, config), change)
    if change is swapped:  # the sum's first block is the last one now, in all stages
        sounds_alike(path, config)
    else:
        check(path, config)


def test_half_precision(tmp_path: Path) -> None:
    from onnx import numpy_helper

    def halved(model: Any) -> None:
        for tensor in model.graph.initializer:
            half = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name)
            tensor.CopyFrom(half)
        constants(model, lambda value: value)
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.elem_type = 10
        for node in model.graph.node:
            if node.op_type == "Constant":
                third = numpy_helper.to_array(node.attribute[0].t).astype(np.float16)
                node.attribute[0].t.CopyFrom(numpy_helper.from_array(third))

    checkpoint = detect_and_load(edit(write(tmp_path, SMALL), halved))
    assert checkpoint.stored == torch.float16
    for name, tensor in random_state(SMALL).items():
        assert torch.equal(checkpoint.state[name], tensor.half().float()), name


def test_weights_beside_the_file(tmp_path: Path) -> None:
    import onnx

    path = write(tmp_path, SMALL)
    model = onnx_model(path)
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert len(path.read_bytes()) < len((tmp_path / "weights.bin").read_bytes()) + 20_000
    assert torch.equal(detect_and_load(path).state["conv_pre.weight"], random_state(SMALL)["conv_pre.weight"])
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(LoadError, match=r"its data are in 'weights\.bin', expected a file beside this one"):
        detect_and_load(path)
    (tmp_path / "inside").mkdir()
    (tmp_path / "weights.bin").write_bytes(bytes(10))
    inside = tmp_path / "inside" / "m.onnx"
    inside.write_bytes(path.read_bytes().replace(b"weights.bin", b"../aghts.bi"))
    with pytest.raises(LoadError, match="expected a file beside this one"):
        detect_and_load(inside)
    with pytest.raises(LoadError, match=r"tensor '.*'"):
        detect_and_load(path)  # which is too short


def test_a_constant_speaker_is_part_of_the_bias(tmp_path: Path) -> None:
    class Fixed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dec = generator(ALONE)
            self.register_buffer("shift", self.dec.cond(torch.randn(1, 4, 1)))
            self.dec.add_module("cond", torch.nn.Identity())

        def forward(self, x: torch.Tensor) -> Any:
            return self.dec(x, self.shift)

    path = export(tmp_path / "m.onnx", Fixed().eval().requires_grad_(False), (torch.randn(1, 6, 9),), ["mel"])
    assert fastvoc.load_vocoder(path).config.gin_channels == 0
    need_onnx("onnxruntime")
    sounds_alike(path, replace(ALONE, gin_channels=0))


def test_the_table_of_speakers_of_a_whole_voice(tmp_path: Path) -> None:
    voc = fastvoc.load_vocoder(write_voice(tmp_path, VITS))
    assert voc.config == VITS
    for name, tensor in random_state(VITS, 1).items():
        if name != "emb_g.weight":
            assert torch.equal(voc.model.state_dict()[name], tensor), name
    latent = torch.randn(6, 7)
    assert torch.equal(voc(latent, speaker=2), voc(latent, speaker=voc.model.state_dict()["emb_g.weight"][2]))


def test_where_the_rate_is_from(tmp_path: Path) -> None:
    path = write(tmp_path, SMALL)
    with pytest.warns(AssumptionWarning, match=r"sample_rate 22050 is assumed: neither the file nor a JSON beside it"):
        assert fastvoc.load_vocoder(path).sample_rate == 22050
    assert fastvoc.load_vocoder(path, sample_rate=24000).sample_rate == 24000

    def told(model: Any) -> None:
        entry = model.metadata_props.add()
        entry.key, entry.value = "sample_rate", "16000"

    edit(path, told)
    voc = fastvoc.load_vocoder(path)
    assert (voc.sample_rate, voc.assumed) == (16000, {})
    (tmp_path / "m.onnx.json").write_text(json.dumps({"audio": {"sample_rate": 44100}}))
    assert fastvoc.load_vocoder(path).sample_rate == 44100
    with pytest.raises(ArgumentError, match="sample_rate: got 16000"):
        fastvoc.load_vocoder(path, sample_rate=16000)
    (tmp_path / "m.onnx.json").write_text(json.dumps({"audio": {"sample_rate": -3}}))
    with pytest.raises(LoadError, match=r"m\.onnx\.json: field 'audio\.sample_rate'"):
        fastvoc.load_vocoder(path)


def test_a_front_end_can_be_said(tmp_path: Path) -> None:
    path = write(tmp_path, SMALL)
    front = MelConfig(sample_rate=16000, n_fft=64, hop_length=8, win_length=64, n_mels=6)
    voc = fastvoc.load_vocoder(path, mel=front)
    assert (voc.sample_rate, voc.mel_config) == (16000, front)
    assert voc.mel(torch.randn(800)).shape[0] == 6


def test_a_folder_and_a_file_of_another_name(tmp_path: Path) -> None:
    path = write(tmp_path, SMALL)
    state = detect_and_load(tmp_path).state
    path.rename(tmp_path / "voice.bin")
    assert torch.equal(detect_and_load(tmp_path / "voice.bin").state["conv_post.weight"], state["conv_post.weight"])


def test_without_the_package_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, SMALL)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(LoadError, match=r"reading ONNX needs the package onnx .*: pip install onnx"):
        fastvoc.load_vocoder(path)


def test_a_quantised_file_is_refused(tmp_path: Path) -> None:
    need_onnx("onnxruntime")
    from onnxruntime import quantization

    quantization.quantize_dynamic(write(tmp_path, SMALL), tmp_path / "q.onnx", op_types_to_quantize=["Conv"])
    with pytest.raises(LoadError, match=r"the graph is quantised \(.* ConvInteger, .* DynamicQuantizeLinear\)"):
        fastvoc.load_vocoder(tmp_path / "q.onnx")


def retyped(op: str, to: str, at: int = -1) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        nodes(model, op)[at].op_type = to

    return change


def attributed(op: str, name: str, value: Any, at: int = 1) -> Callable[[Any], None]:
    return lambda model: attribute(nodes(model, op)[at], name, value)


def twice(model: Any) -> None:
    from onnx import helper

    model.graph.node.append(helper.make_node("Tanh", [nodes(model, "Tanh")[0].input[0]], ["again"]))


def circle(model: Any) -> None:
    first = nodes(model, "Conv")[0]
    first.input[0] = model.graph.output[0].name


def made_twice(model: Any) -> None:
    conv = nodes(model, "Conv")
    conv[1].output[0] = conv[0].output[0]


def other_skip(model: Any) -> None:
    """The second residual of the last block adds what the first one began with."""
    adds = [node for node in nodes(model, "Add") if "Conv" in "".join(node.input)]
    adds[-1].input[1] = nodes(model, "ConvTranspose")[-1].output[0]


def wide_shift(model: Any) -> None:
    for tensor in model.graph.initializer:
        if tensor.name == "conv_pre.bias":
            tensor.dims[0] = 4
            tensor.raw_data = tensor.raw_data[:16]


REFUSED: dict[str, tuple[Callable[[Any], None], str]] = {
    "no tanh": (
        retyped("Tanh", "Sigmoid"),
        r"no Tanh after a convolution to one channel \(it has 0 Tanh, 18 Conv, 2 ConvT",
    ),
    "two decoders": (twice, "2 decoders, that make"),
    "another activation": (retyped("LeakyRelu", "Elu", 3), "expected a LeakyRelu before .*, found Elu"),
    "another slope": (attributed("LeakyRelu", "alpha", 0.3), r"LeakyRelus of slopes \[0\.1, 0\.3\]"),
    "groups": (attributed("Conv", "group", 2), r"group \(2,\), expected \(1,\), in Conv"),
    "strides": (attributed("Conv", "strides", [2]), r"strides \(2,\)"),
    "pads": (attributed("Conv", "pads", [0, 2]), r"pads \[0, 2\], which change the length"),
    "no pads": (attributed("Conv", "auto_pad", "VALID"), "auto_pad 'VALID' in Conv"),
    "uneven pads": (attributed("ConvTranspose", "pads", [1, 2]), r"pads \[1, 2\], expected two, the second less"),
    "many pads": (attributed("ConvTranspose", "pads", [1, 1, 2, 2]), "expected two, the second less by 0 to 1"),
    "given lengths": (attributed("ConvTranspose", "output_shape", [99]), r"output_shape \(99,\)"),
    "dilated upsampling": (attributed("ConvTranspose", "dilations", [3]), r"dilations \(3,\)"),
    "wrong mean": (lambda model: constants(model, lambda _: 3), "a sum of 2 blocks that is divided by 3"),
    "another skip": (other_skip, "a residual that does not add|expected the sum"),
    "bias": (wide_shift, r"expected a constant bias \[8\] in Conv"),
    "a circle": (circle, "reads .*, which nothing before it makes"),
    "made twice": (made_twice, "is made twice"),
    "no stages": (retyped("ConvTranspose", "Upsample", 0), "expected a ConvTranspose before .*, found Upsample"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_hifigan_is_refused_in_words(name: str, tmp_path: Path) -> None:
    change, message = REFUSED[name]
    with pytest.raises(LoadError, match=message):
        detect_and_load(edit(write(tmp_path, SMALL), change))


def before(*steps: tuple[str, Any]) -> Callable[[Any], None]:
    """Puts nodes before the decoder: operation and constant, `(operation, (constant,))` for one on the left."""

    def change(model: Any) -> None:
        from onnx import helper, numpy_helper

        name = "mel"
        made = []
        for number, (op, value) in enumerate(steps):
            inputs = [name]
            if value is not None:
                left = isinstance(value, tuple)
                constant = numpy_helper.from_array(np.asarray(value[0] if left else value, np.float32), f"c{number}")
                model.graph.initializer.append(constant)
                inputs = [constant.name, name] if left else [name, constant.name]
            name = f"before{number}"
            made.append(helper.make_node(op, inputs, [name]))
        nodes(model, "Conv")[0].input[0] = name
        for node in reversed(made):
            model.graph.node.insert(0, node)

    return change


BANDS = np.linspace(0.5, 2, 6)[:, None]


@pytest.mark.parametrize(
    "steps",
    [
        [("Mul", (2.0,))],
        [("Sub", (3.0,))],
        [("Add", (BANDS,)), ("Mul", (BANDS,)), ("Sub", BANDS), ("Div", 3.0)],
        [("Neg", None), ("Sub", (BANDS,))],
    ],
    ids=range(4),
)
@pytest.mark.filterwarnings("ignore::fastvoc.errors.AssumptionWarning")
def test_constants_before_the_decoder_stay_on_either_side(steps: list[tuple[str, Any]], tmp_path: Path) -> None:
    need_onnx("onnxruntime")
    path = edit(write(tmp_path, SMALL), before(*steps))
    config = fastvoc.load_vocoder(path).config
    assert (config.normalize_before, config.latent) == (True, False)
    sounds_alike(path, SMALL)


@pytest.mark.parametrize(
    ("steps", "found"),
    [
        ([("Clip", 0.0)], "Clip that makes 'before0' changes"),
        ([("Exp", None), ("Mul", 2.0)], "Exp that makes 'before0' changes"),
        ([("Div", (2.0,))], "Div that makes 'before0' changes"),
        ([("Mul", np.linspace(1, 2, 9))], "Mul that makes 'before0' changes"),
        ([("Mul", 0.0)], "constants before the decoder that leave nothing"),
    ],
)
def test_what_else_stands_before_the_decoder_is_refused(
    steps: list[tuple[str, Any]], found: str, tmp_path: Path
) -> None:
    with pytest.raises(LoadError, match=found):
        detect_and_load(edit(write(tmp_path, SMALL), before(*steps)))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "there is no graph in it"),
        (b"\x08\x08\x12\x07pytorch", "there is no graph in it"),
        (b"\x08\x08\x12\x7fpytorch", "not a readable ONNX file"),
        (b"\x20\x00\x00\x00ORTM" + bytes(50), "onnxruntime's own format"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
    ],
)
def test_what_is_no_onnx_is_refused(data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(data)
    with pytest.raises(LoadError, match=message):
        detect_and_load(tmp_path / "m.onnx")


def test_a_small_file_makes_no_huge_constant(tmp_path: Path) -> None:
    """A weight that a graph blows up: by products of vectors, by Expand."""
    from onnx import helper, numpy_helper

    def blown(op: str) -> Callable[[Any], None]:
        def change(model: Any) -> None:
            size = 1 << 20
            column = numpy_helper.from_array(np.ones((size, 1, 1), np.float32), "column")
            other = np.array([size, size, 7]) if op == "Expand" else np.ones((1, size, 1), np.float32)
            model.graph.initializer.extend([column, numpy_helper.from_array(other, "other")])
            conv = nodes(model, "Conv")[-1]
            conv.input[1] = "huge"
            model.graph.node.insert(0, helper.make_node(op, ["column", "other"], ["huge"]))

        return change

    for op in ("Mul", "Expand"):
        with pytest.raises(LoadError, match=f"cannot fold {op} that makes 'huge'"):
            detect_and_load(edit(write(tmp_path, SMALL), blown(op)))


def test_every_shape_of_vits_loads(tmp_path: Path) -> None:
    voc = fastvoc.load_vocoder(write_voice(tmp_path, replace(VITS_1, gin_channels=0, num_speakers=0)))
    assert voc.config == replace(VITS_1, gin_channels=0, num_speakers=0)
    fastvoc.save(voc, tmp_path / "own.safetensors")
    latent = torch.randn(6, 9)
    assert torch.equal(fastvoc.load_vocoder(tmp_path / "own.safetensors")(latent), voc(latent))
