""".dac files: what the original writes and reads, chunks without padding, damage, loudness."""

from __future__ import annotations

import io
import math
import pickle
import struct
from contextlib import suppress

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from whole_codecs import lively_whole, random_codes, sound, whole_codec

from fastvoc.codec import Codec
from fastvoc.dac_compression import compress_dac, decompress_dac
from fastvoc.errors import ArgumentError, DecodeError, DtypeError, ShapeError
from fastvoc.models.dac import Dac, DacConfig
from fastvoc.sound.dac_file import DacFile, read_dac, write_dac
from fastvoc.sound.loudness import loudness
from helpers import relative_l2


def made(codes: np.ndarray, **facts: object) -> DacFile:
    values = {
        "chunk_length": codes.shape[2],
        "original_length": 100,
        "input_db": (-20.25,),
        "channels": len(codes),
        "sample_rate": 24000,
        "padding": True,
    }
    return DacFile(codes, **{**values, **facts})  # type: ignore[arg-type]


def drawn(items: int = 2, books: int = 3, frames: int = 7) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 1024, (items, books, frames)).astype(np.uint16)


def written(file: DacFile) -> bytes:
    stream = io.BytesIO()
    write_dac(stream, file)
    return stream.getvalue()


def test_what_is_written_is_read() -> None:
    file = made(drawn(), sample_rate=44100, padding=False, chunk_length=3)
    back = read_dac(io.BytesIO(written(file)))
    assert np.array_equal(back.codes, file.codes)
    for name in ("chunk_length", "original_length", "input_db", "channels", "sample_rate", "padding"):
        assert getattr(back, name) == getattr(file, name)


def test_numpy_reads_it_as_the_original_does() -> None:
    values = np.load(io.BytesIO(written(made(drawn()))), allow_pickle=True)[()]
    assert values["codes"].dtype == np.uint16
    assert set(values["metadata"]) == {
        "input_db",
        "original_length",
        "sample_rate",
        "chunk_length",
        "channels",
        "padding",
        "dac_version",
    }
    assert values["metadata"]["input_db"].dtype == np.float32
    assert values["metadata"]["dac_version"] == "1.0.0"


def _npy(value: object, protocol: int) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|O", "fortran_order": False, "shape": ()})
    pickle.dump(np.array(value, dtype=object), stream, protocol=protocol)
    return stream.getvalue()


@pytest.mark.parametrize("protocol", [3, 4])
def test_every_protocol_of_numpy_is_read(protocol: int) -> None:
    values = np.load(io.BytesIO(written(made(drawn()))), allow_pickle=True)[()]
    values["metadata"]["input_db"] = np.float32(-20.25)  # a number, not an array
    back = read_dac(io.BytesIO(_npy(values, protocol)))
    assert np.array_equal(back.codes, drawn())
    assert back.input_db == (-20.25,)


class _Evil:
    ran = False

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return setattr, (_Evil, "ran", True)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_nothing_in_a_file_is_executed(protocol: int) -> None:
    with pytest.raises(DecodeError, match=r"\.dac: damaged"):
        read_dac(io.BytesIO(_npy({"codes": _Evil(), "metadata": {}}, protocol)))
    assert not _Evil.ran
    assert pickle.loads(pickle.dumps(_Evil(), protocol)) is None
    assert _Evil.ran  # so it would have been seen
    _Evil.ran = False


def test_damage_is_told() -> None:
    whole = written(made(drawn()))
    for size in (0, 5, 60, 128, len(whole) // 2, len(whole) - 1):
        with pytest.raises(DecodeError, match=r"\.dac"):
            read_dac(io.BytesIO(whole[:size]))
    rng = np.random.default_rng(1)
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= int(rng.integers(1, 256))
        with suppress(DecodeError):  # and no other error; some bytes matter to nobody
            read_dac(io.BytesIO(bytes(damaged)))
    for wrong in ({"codes": drawn()}, [1], {"codes": drawn(), "metadata": {"dac_version": "0.9"}}):
        with pytest.raises(DecodeError, match=r"\.dac"):
            read_dac(io.BytesIO(_npy(wrong, 4)))
    huge = struct.pack("<I", 1 << 30)
    with pytest.raises(DecodeError):
        read_dac(io.BytesIO(whole[:130] + b"X" + huge + whole[135:]))


def test_wrong_facts_are_named() -> None:
    for name, value in (("chunk_length", 0), ("channels", 3), ("padding", 1), ("input_db", ()), ("sample_rate", True)):
        with pytest.raises(ArgumentError, match=name):
            made(drawn(), **{name: value})
    with pytest.raises(ArgumentError, match="codes"):
        made(drawn().astype(np.int64))


@pytest.mark.parametrize("name", ["dac", "dac-odd"])
def test_sound_goes_through_a_file(name: str) -> None:
    codec = whole_codec(name)
    rate = codec.sample_rate
    wav = sound(rate, 2)[:, 0]
    file = compress_dac(codec, wav, 2)
    assert file.codes.shape == (2, 2, -(-rate // codec.hop))
    assert file.input_db[0] == pytest.approx(loudness(wav, rate))
    back, again = decompress_dac(read_dac(io.BytesIO(written(file))), codec)
    assert (back.shape, again) == ((2, rate), rate)
    for row in back:  # each channel is brought to the level of all, as upstream does
        assert loudness(row[None], rate) == pytest.approx(file.input_db[0], abs=0.3)  # of a little more sound
    other, half = decompress_dac(compress_dac(codec, wav[0], sample_rate=rate // 2, length=rate // 2), codec)
    assert (other.shape, half) == ((1, rate // 2), rate // 2)
    with pytest.raises(ArgumentError, match="codebooks"):
        decompress_dac(made(drawn(1, 9)), codec)
    with pytest.raises(ArgumentError, match=r"\.dac files are of DAC"):
        compress_dac(whole_codec("snac"), wav[0])


def unpadded_by_torch(model: Dac, z: Tensor) -> Tensor:
    """The decoder by plain modules without padding, as upstream decodes chunks."""

    def act(x: Tensor, snake: torch.nn.Module) -> Tensor:
        alpha = snake.alpha[:, None]
        return x + torch.sin(alpha * x).square() / (alpha + 1e-9)

    decoder = model.decoder
    x = F.conv1d(z, decoder.conv1.weight, decoder.conv1.bias)
    for stage, rate in zip(decoder.block, model.config.decoder_rates, strict=True):
        x = F.conv_transpose1d(act(x, stage.snake1), stage.conv_t1.weight, stage.conv_t1.bias, rate)
        for i, dilation in enumerate((1, 3, 9), 1):
            unit = getattr(stage, f"res_unit{i}")
            y = F.conv1d(act(x, unit.snake1), unit.conv1.weight, unit.conv1.bias, dilation=dilation)
            y = F.conv1d(act(y, unit.snake2), unit.conv2.weight, unit.conv2.bias)
            lost = (x.shape[2] - y.shape[2]) // 2
            x = x[:, :, lost : x.shape[2] - lost] + y
    return torch.tanh(F.conv1d(act(x, decoder.snake1), decoder.conv2.weight, decoder.conv2.bias))


@pytest.mark.parametrize("backend", ["torch", pytest.param("cpp", marks=pytest.mark.native)])
def test_chunks_are_decoded_without_padding(backend: str) -> None:
    config = DacConfig(24000, 4, (2, 3, 4), None, 16, (4, 3, 2), 3, 32, 6)
    model = lively_whole(config)
    assert isinstance(model, Dac)
    codec = Codec(model, config, backend=backend)
    codes = random_codes(codec, 127, 2)
    chunks = [
        unpadded_by_torch(model, model.quantizer.decoding(part, backend="torch")) for part in codes.split(40, 2)[:-1]
    ]
    ours = model.decode_unpadded(codes[:, :, :40], backend)
    assert relative_l2(ours, chunks[0]) < 1e-5
    length = sum(chunk.shape[2] for chunk in chunks)
    file = made(
        codes[:, :, :120].numpy().astype(np.uint16), chunk_length=40, padding=False, original_length=length, channels=2
    )
    back, _ = decompress_dac(file, codec)
    expected = torch.cat(chunks, 2)[:, 0]
    levels = [10 ** ((-20.25 - loudness(row[None], 24000)) / 20) for row in expected]
    assert relative_l2(back, expected * torch.tensor(levels)[:, None]) < 1e-5
    with pytest.raises(DecodeError, match="leave no sound"):
        decompress_dac(made(drawn(1, 3, 2) % 32, chunk_length=1, padding=False), codec)
    with pytest.raises(DecodeError, match="samples stated"):
        decompress_dac(made(drawn(1, 3, 2) % 32, original_length=10**6), codec)


def test_loudness_of_the_standards_sine() -> None:
    for rate in (16000, 24000, 44100, 48000):
        t = torch.arange(5 * rate, dtype=torch.float64) / rate
        sine = torch.sin(2 * math.pi * 997.0 * t)
        assert loudness(sine[None], rate) == pytest.approx(-3.01, abs=0.1)
        assert loudness(sine[None] * 0.1, rate) == pytest.approx(-23.01, abs=0.1)
        both = torch.stack([sine, sine])
        assert loudness(both, rate) == pytest.approx(0.0, abs=0.1)
        gated = torch.cat([sine, torch.zeros(5 * rate, dtype=torch.float64)])
        assert loudness(gated[None], rate) == pytest.approx(-3.01, abs=0.3)
    assert loudness(torch.zeros(1, 1000), 24000) == -70.0
    assert loudness(torch.full((1, 3), 0.5), 24000) < -10
    with pytest.raises(ShapeError, match="wav"):
        loudness(torch.zeros(5), 24000)


def test_sounds_of_other_types_are_refused() -> None:
    codec = whole_codec("dac")
    for wrong in (np.zeros(900, dtype=np.float32), torch.zeros(900, dtype=torch.int32)):
        with pytest.raises(DtypeError, match="wav"):
            compress_dac(codec, wrong)  # type: ignore[arg-type]
