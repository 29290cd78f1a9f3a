"""The portable engine and the coder built for Arm and run under qemu, against what they compute here."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import mimi_models
import native_calls as calls
import numpy as np
import pytest
import torch
from checkpoint_files import KOKORO
from codec_models import UNUSUAL, lively, noise
from kept import kept
from op_cases import CONV1D, INT8_MRF, MRF, UPSAMPLE, cast, channels, with_ranges
from stream_families import FAMILIES, MAKERS, mel_of, randomised
from torch import Tensor
from whole_codecs import whole_codec

from fastvoc.codec import Codec
from fastvoc.models.encodec_lm import EncodecLmConfig
from fastvoc.models.hift_config import HIFTNET
from fastvoc.models.hiftnet import HiftNet
from fastvoc.models.integer_lm import IntegerLm
from fastvoc.runtime.registry import OPS
from fastvoc.sound.resampling import Converter
from fastvoc.styled import StyledVocoder
from helpers import ROOT, need, relative_l2

COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
HERE, CPU, CODER = ROOT / "tests" / "arm", ROOT / "csrc" / "cpu", ROOT / "csrc" / "coder"
FLAGS = ("-O2", "-std=c++20", "-ffp-contract=fast")

pytestmark = pytest.mark.native


def build(name: str, units: list[list[Path]], includes: list[Path]) -> Path:
    """A static program for Arm, of units of one source or more; skips where there is no compiler or emulator for it."""
    missing = [name for name in (COMPILER, EMULATOR) if shutil.which(name) is None]
    need("arm", f"{' and '.join(missing)} not installed" if missing else None)

    def compile_all(partial: Path) -> None:
        def compiled(unit: list[Path]) -> str:
            *before, source = unit
            made = partial.with_name(f"{source.stem}.o")
            first = [word for path in before for word in ("-include", path)]
            run(COMPILER, *FLAGS, *(f"-I{path}" for path in includes), *first, "-c", source, "-o", made)
            return str(made)

        with ThreadPoolExecutor(2) as pool:
            objects = list(pool.map(compiled, units))
        run(COMPILER, "-static", *objects, "-o", partial)
        for made in objects:
            Path(made).unlink()

    version = subprocess.run([COMPILER, "--version"], capture_output=True, text=True, check=True).stdout
    folders = [folder for folder in includes if folder != ROOT / "csrc"] + [CPU, CODER, ROOT / "csrc/common"]
    return kept(name, [version, *FLAGS, *(path for unit in units for path in unit), *folders], compile_all)


def run(*command: Any) -> None:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.returncode}: {done.stderr[-3000:]}"


def convolutions() -> None:
    """The ops with many shapes, in every type."""
    for op, table in (("conv1d", CONV1D), ("upsample", UPSAMPLE), ("mrf", {n: MRF[n] for n in MRF if n in INT8_MRF})):
        for make in table.values():
            params = make()
            x = torch.randn(2, channels(params), 51)
            lengths = torch.tensor([51, 37])
            for p, signal in ((params, x), (cast(params, torch.bfloat16), x.bfloat16()), (with_ranges(params, x), x)):
                OPS[op](signal, p, *([None] if op == "conv1d" else []), lengths, backend="cpp")


def vocoders() -> None:
    """Every family whole and as a stream, and whole in bfloat16."""
    for family in FAMILIES:
        voc = MAKERS[family]()
        voc.backend = "cpp"
        voc.model.prepare(backend="cpp")
        mel = mel_of(voc, 9)
        voc(mel, check=False)
        with voc.stream(exact=False) as stream:
            for chunk in mel.split(5, 1):
                stream.push(chunk)
            stream.flush()
        inputs = {"f0": torch.full((9,), 160.0)} if "f0" in getattr(voc.model, "inputs", ()) else {}
        voc.to(torch.bfloat16)(mel, check=False, **inputs)
    for dtype in (torch.float32, torch.bfloat16):
        kokoro = StyledVocoder(randomised(KOKORO).model, KOKORO, backend="cpp").to(dtype)
        style = torch.randn(2, KOKORO.style_dim)
        kokoro(torch.randn(2, KOKORO.num_mels, 7).to(dtype), [7, 5], check=False, f0=150.0, n=0.5, style=style)
    net = HiftNet(replace(HIFTNET, base_channels=24, f0_channels=20)).eval()
    net.predict_f0(torch.randn(1, 80, 12), backend="cpp")


def codecs() -> None:
    """Both halves of EnCodec in its forms, of SNAC and of Mimi, in float32 and bfloat16."""
    for dtype in (torch.float32, torch.bfloat16):
        for codec in (whole_codec("snac"), Codec(mimi_models.lively(mimi_models.SMALL), mimi_models.SMALL)):
            codec.backend = "cpp"
            codec.to(dtype)(torch.randn(codec.channels, 3 * codec.hop), codec.bandwidths[0])
    for config in UNUSUAL.values():
        for dtype in (torch.float32, torch.bfloat16):
            codec = Codec(lively(config), config, backend="cpp").to(dtype)
            codec.decode(codec.encode(noise(config, 2 * config.hop + 30), config.bandwidths[-1]))


def rates() -> None:
    """Another rate, up and down, in either type."""
    for to_rate in (8000, 48000):
        for s16 in (False, True):
            Converter(22050, to_rate).whole(torch.randn(2, 3000), s16=s16)


def native_ops() -> set[str]:
    """The names under which csrc/cpu registers what computes."""
    names = {name for source in CPU.glob("*.cpp") for name in re.findall(r'm\.impl\("(\w+)"', source.read_text())}
    return names - set(calls.WITHOUT_TENSORS)


def allowed(result: Tensor, call: calls.Call) -> float:
    if not result.is_floating_point():
        return 0.0
    halves = any(isinstance(a, Tensor) and a.dtype is torch.bfloat16 for a in call.args)
    whole = any(isinstance(a, Tensor) and a.dtype is torch.int8 for a in call.args)
    return 8e-3 if halves else 4e-3 if whole else 3e-6


def test_every_op(tmp_path: Path, nan_poison: None) -> None:
    """Two threads run them, so that what they share is shared on Arm as well; NaN is what nobody wrote."""
    kernels = [[source] for source in sorted(CPU.glob("isa_portable*.cpp"))]
    ops = [source for source in sorted(CPU.glob("*.cpp")) if not source.stem.startswith("isa_")]
    # The ops as one unit: their headers take longer than they.
    target = build("run_calls", [[*ops, HERE / "run_calls.cpp"], *kernels], [HERE / "include", ROOT / "csrc"])
    with torch.inference_mode(), calls.Recorder() as recorder:
        convolutions()
        vocoders()
        codecs()
        rates()
    assert {call.name for call in recorder.calls} == native_ops()
    given, made = tmp_path / "given", tmp_path / "made"
    calls.write(recorder.calls, given)
    run(EMULATOR, target, given, made)
    wrong = defaultdict(list)
    for call, results in zip(recorder.calls, calls.read(recorder.calls, made), strict=True):
        for ours, meant in zip(results, call.results, strict=True):
            written = ~meant.isnan()
            ours, meant = ours[written], meant[written]
            error = relative_l2(ours, meant) if meant.any() else float(ours.any())
            if not error <= allowed(meant, call):
                wrong[call.name].append(error)
    assert not wrong


def _numbers(*values: int) -> bytes:
    return b"".join(np.array([1, value], np.int64).tobytes() for value in values)


def _list(values: Any) -> bytes:
    return np.int64(values.size).tobytes() + np.ascontiguousarray(values).tobytes()


def _part(part: Any) -> bytes:
    """A matrix, or a norm, as run_coder reads it."""
    arrays = part.parts()
    if len(arrays) == 2:
        return b"".join(map(_list, arrays))
    weights, multiplier, bias, exponent = arrays
    return _numbers(*weights.shape) + _list(weights) + _list(multiplier) + _list(bias) + _numbers(exponent)


def test_the_coder(tmp_path: Path) -> None:
    """Packed codes, the integer model's probabilities and the arithmetic code are the same bytes."""
    target = build("run_coder", [[HERE / "run_coder.cpp"], [CODER / "integer_lm.cpp"]], [CODER])
    random = np.random.default_rng(3)
    config = EncodecLmConfig(codebooks=3, dim=24, layers=2, heads=3, hidden=40, past=5)
    state = {name: torch.randn(shape) / 3 + ("norm" in name) for name, shape in config.tensors()}
    lm = IntegerLm(config, state, compiled=False)
    codes = random.integers(0, 1024, (20, 3)).astype(np.uint16)
    tables = lm.tables()
    layers = b"".join(_part(part) for layer in lm.layers for part in vars(layer).values())
    model = [
        _numbers(config.heads, config.past),
        _part(lm.norm_in),
        _numbers(len(lm.layers)),
        layers,
        _numbers(config.codebooks),
        *map(_part, (*lm.embeddings, *lm.outputs)),
        *map(_list, tables),
    ]
    given, made = tmp_path / "given", tmp_path / "made"
    given.write_bytes(b"".join([_numbers(10), _list(codes), *model, _list(codes)]))
    run(EMULATOR, target, given, made)

    from fastvoc.ecdc import coder_python

    steps, encoder = lm.start(3), coder_python.ArithmeticEncoder()
    cdf = []
    for t, column in enumerate(codes):
        cdf.append(steps.step(codes[t - 1] if t else None))
        encoder.push(column, cdf[-1])
    expected = [coder_python.pack(codes.ravel(), 10), np.stack(cdf).astype(np.uint32).tobytes()]
    assert made.read_bytes() == b"".join([*expected, encoder.take() + encoder.finish()])
