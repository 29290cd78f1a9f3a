"""What devices met in values that no call looked at, until `check` is called."""

from __future__ import annotations

import pytest
import torch
from codec_models import MONO, lively
from stream_families import vocoder

from fastvoc.codec import Codec
from fastvoc.errors import ArgumentError
from fastvoc.ops import rvq_decode
from fastvoc.ops.rvq_decode import RvqParams
from fastvoc.runtime import flags
from helpers import need_triton

CPU = torch.device("cpu")


def test_a_mel_is_looked_at_later() -> None:
    voc = vocoder("hifigan")
    mel = torch.randn(2, voc.n_mels, 9)
    voc(mel, check="later")
    voc.check()
    mel[1, 3, 8] = torch.nan
    voc(mel, [9, 8], check="later")  # beyond the length
    voc.check()
    voc(mel, check="later")
    voc(torch.randn(1, voc.n_mels, 9), check="later")  # what was met is remembered
    with pytest.raises(ArgumentError, match=r"mel: .* NaN or infinity"):
        voc.check()
    voc.check()
    voc(mel, check=False)
    voc.check()


def test_a_codec_tells_of_codes() -> None:
    codec = Codec(lively(MONO), MONO)
    codec.check()
    flags.note(flags.CODES, torch.tensor([False, True]))
    with pytest.raises(ArgumentError, match=r"codes: .* outside the codebooks"):
        codec.check()
    codec.check()


def test_codes_are_noted_inside_the_lengths() -> None:
    codes = torch.zeros(2, 3, 4, dtype=torch.int64)
    codes[1, 2, 3] = 5
    rvq_decode._note(codes, 5, torch.tensor([4, 3]))
    assert not flags.take(CPU, flags.CODES)
    rvq_decode._note(codes, 6)
    assert not flags.take(CPU, flags.CODES)
    rvq_decode._note(codes, 5)
    assert flags.take(CPU, flags.CODES)
    codes[1, 2, 3] = -1
    rvq_decode._note(codes, 5, torch.tensor([1, 4]))
    assert flags.take(CPU, flags.CODES)
    assert not flags.take(CPU, flags.CODES)


def test_tritons_kernel_sets_the_flag_and_takes_the_nearest_code() -> None:
    need_triton()
    from fastvoc.kernels import rvq_decode as kernel

    books = torch.randn(3, 5, 7)
    codes = torch.randint(0, 5, (2, 3, 4))
    wrong, near = codes.clone(), codes.clone()
    wrong[1, 2, 3], near[1, 2, 3] = 5, 4
    wrong[0, 0, 0], near[0, 0, 0] = -3, 0
    with torch.inference_mode():
        packed = kernel.pack(RvqParams(books))
        expected = kernel.run(near, packed)
        assert not flags.take(CPU, flags.CODES)
        assert torch.equal(kernel.run(wrong, packed), expected)
        assert flags.take(CPU, flags.CODES)
        wrong[0, 0, 0] = 0
        kernel.run(wrong, packed, torch.tensor([4, 3]))
        assert not flags.take(CPU, flags.CODES)
