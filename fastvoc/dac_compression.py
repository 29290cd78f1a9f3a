"""Waveforms in `.dac` files and back, as descript-audio-codec makes them: every channel by itself, at -16 LUFS."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from fastvoc.codec import Codec
from fastvoc.errors import ArgumentError, DecodeError, DtypeError, ShapeError
from fastvoc.models.dac import Dac
from fastvoc.sound.audio import resample
from fastvoc.sound.dac_file import DacFile
from fastvoc.sound.loudness import loudness

NORMAL_DB = -16.0
_TOGETHER = 8


def compress_dac(
    codec: Codec,
    wav: Tensor,
    codebooks: int | None = None,
    *,
    sample_rate: int | None = None,
    length: int | None = None,
) -> DacFile:
    """The `.dac` file of a waveform, which the original decodes as one chunk.

    Args:
        codec: a DAC model.
        wav: [C, S] samples at its rate, floating-point, on the CPU; or [S].
        codebooks: how many to use; all when None.
        sample_rate: rate in Hz that the sound had and is to have again; the model's when None.
        length: samples that it had at that rate; what S makes of it when None.

    Raises:
        ArgumentError: another model, more codebooks than it has, NaN or infinity.
        ShapeError, DtypeError: another waveform.
    """
    _check(codec)
    if not isinstance(wav, Tensor) or not wav.is_floating_point():
        got = wav.dtype if isinstance(wav, Tensor) else type(wav).__name__
        raise DtypeError(f"wav: expected a floating-point tensor, got {got}")
    wav = wav[None] if wav.dim() == 1 else wav
    level = loudness(wav, codec.sample_rate)
    loud = wav * 10 ** ((NORMAL_DB - level) / 20)
    peak = loud.abs().amax(1, keepdim=True)
    loud = loud / peak.clamp_min(1.0)
    codes = codec.encode(loud[:, None].to(codec.device), codebooks=codec.config.n_q if codebooks is None else codebooks)
    rate = codec.sample_rate if sample_rate is None else sample_rate
    made = round(wav.shape[1] * rate / codec.sample_rate)
    numbers = codes.codes.cpu().numpy().astype(np.uint16)
    return DacFile(
        numbers, numbers.shape[2], made if length is None else length, (level,), len(wav), rate, padding=True
    )


def decompress_dac(file: DacFile, codec: Codec) -> tuple[Tensor, int]:
    """The waveform [C, S], float32 on the CPU, of a `.dac` file, and its sample rate in Hz.

    Long sounds of the original come in chunks that were encoded, and are decoded, without zeros at their ends; it
    decodes each by itself, and so does this. Raises ArgumentError for another model than DAC or than the file's,
    DecodeError for codes that stand for less sound than the file says.
    """
    _check(codec)
    books, last = codec.config.n_q, int(file.codes.max())
    if file.codes.shape[1] > books or last >= codec.config.bins:
        got = f"{file.codes.shape[1]} codebooks and codes up to {last}"
        raise ArgumentError(f"codec: it has {books} codebooks of {codec.config.bins}, the file {got}")
    with torch.inference_mode():
        wav = torch.cat(list(_chunks(file, codec)), 2)[:, 0]
    channels = len(file.codes)
    levels = file.input_db * (channels // len(file.input_db)) if channels % len(file.input_db) == 0 else ()
    if len(levels) != channels:
        raise DecodeError(f".dac: {len(file.input_db)} levels for {channels} channels")
    rows = [
        row * 10 ** ((db - loudness(row[None], codec.sample_rate)) / 20) for row, db in zip(wav, levels, strict=True)
    ]
    sound = resample(torch.stack(rows), codec.sample_rate, file.sample_rate)
    # An odd rate makes some samples less than a signal has; more are missing only where codes are.
    missing = file.original_length - sound.shape[1]
    if missing > -(-codec.hop * file.sample_rate // codec.sample_rate):
        raise DecodeError(f".dac: {file.original_length} samples stated, {sound.shape[1]} decoded")
    return torch.nn.functional.pad(sound[:, : file.original_length], (0, max(missing, 0))), file.sample_rate


def _chunks(file: DacFile, codec: Codec) -> Iterator[Tensor]:
    """Samples [items, 1, n] of chunks in order, float32 on the CPU; those of one length run together."""
    codes = torch.from_numpy(file.codes.astype(np.int64))
    if file.padding:
        for part in codes.split(file.chunk_length, 2):
            yield codec.decode(part.to(codec.device), check=False).cpu()
        return
    model = codec.model
    assert isinstance(model, Dac)
    parts = codes.split(file.chunk_length, 2)
    for first in range(0, len(parts), _TOGETHER):
        group = parts[first : first + _TOGETHER]
        for alike in (group[:-1], group[-1:]):  # the last one may be shorter
            if not alike:
                continue
            try:
                wav = model.decode_unpadded(torch.cat(alike).to(codec.device), codec.backend).float().cpu()
            except ShapeError:
                raise DecodeError(f".dac: chunks of {alike[0].shape[2]} frames leave no sound") from None
            yield from wav.split(len(codes))


def _check(codec: Codec) -> None:
    if not isinstance(codec.model, Dac):
        raise ArgumentError(f"codec: .dac files are of DAC, got {type(codec.model).__name__}")
