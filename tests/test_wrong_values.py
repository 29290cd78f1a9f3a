"""Values that no signal has are refused before anything is computed, and told by what and where they are."""

from __future__ import annotations

import pytest
import torch
from codec_models import MONO, lively
from stream_families import mel_of, vocoder

import fastvoc
from fastvoc.codec import Codec
from fastvoc.errors import ArgumentError
from fastvoc.runtime.values import LARGEST, are_wrong, wrong_values

CASES = {
    3e38: "3e\\+38 \\(no signal is beyond 1e\\+06\\)",
    -2e6: "-2e\\+06 \\(no signal",
    float("nan"): "NaN or inf",
    float("inf"): "NaN or",
}


@pytest.mark.parametrize("value", CASES)
def test_calls_refuse_them(value: float) -> None:
    """3e38 gave a waveform of NaN; a value of 1e6 overflows nowhere."""
    voc = vocoder("hifigan-1", "torch")
    mel = mel_of(voc, 20)
    mel[2, 7] = value
    with pytest.raises(ArgumentError, match=f"mel: holds {CASES[value]}"):
        voc(mel)
    with pytest.raises(ArgumentError, match=f"mel: holds {CASES[value]}.* in item 1"):
        voc(torch.stack([mel_of(voc, 20), mel]))
    voc(torch.stack([mel_of(voc, 20), mel]), lengths=[20, 7])  # beyond the length it does not count
    assert voc(mel, check=False).shape == (20 * voc.hop,)
    mel[2, 7] = LARGEST
    assert voc(mel).isfinite().all()


@pytest.mark.parametrize("value", CASES)
def test_streams_refuse_them_and_go_on(value: float) -> None:
    voc = vocoder("hifigan-1", "torch")
    mel = mel_of(voc, 30)
    bad = mel[:, 10:20].clone()
    bad[1, 4] = value
    stream, pool = voc.stream(), fastvoc.Streams(voc)
    parts = [stream.push(mel[:, :10])]
    pool.step({"a": mel[:, :10]})
    said = f"chunk: {CASES[value]}.* in frame 14 of the stream"
    with pytest.raises(ArgumentError, match=said):
        stream.push(bad)
    with pytest.raises(ArgumentError, match=f"stream 'a': {said}"):
        pool.step({"a": bad})
    parts += [stream.push(mel[:, 10:]), stream.flush()]
    assert torch.allclose(torch.cat(parts), voc(mel, exact=True), atol=1e-5)


def test_codecs_refuse_them() -> None:
    codec = Codec(lively(MONO), MONO, backend="torch")
    wav = torch.zeros(2000)
    wav[70] = 3e38
    with pytest.raises(ArgumentError, match=r"wav: holds 3e\+38"):
        codec.encode(wav)
    with pytest.raises(ArgumentError, match=r"chunk: 3e\+38.* in sample 70"):
        codec.encoding().stream().push(wav)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_every_value_is_looked_at(dtype: torch.dtype) -> None:
    x = torch.zeros(3, 5, 7, dtype=dtype)
    assert wrong_values(x) is None
    assert wrong_values(x[..., :0]) is None
    for at in range(0, x.numel(), 13):
        for value in (float("nan"), float("-inf"), *((1e7, -1e7) if dtype != torch.float16 else ())):
            y = x.clone()
            y.view(-1)[at] = value
            assert wrong_values(y)
            assert are_wrong(y).flatten().nonzero().tolist() == [[at]]
