"""Waveforms in .ecdc streams and back: a codec, the container, and a language model where one is wanted."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from fastvoc import ecdc
from fastvoc.checkpoints import detect_and_load
from fastvoc.checkpoints.origins import warn_assumed
from fastvoc.codec import Codec
from fastvoc.errors import ArgumentError, LoadError
from fastvoc.hub import published
from fastvoc.loading import load_codec, model_of
from fastvoc.models.encodec_lm import EncodecLm, FloatLm
from fastvoc.models.integer_lm import IntegerLm
from fastvoc.nn.model import Array
from fastvoc.runtime.io import given_path
from fastvoc.runtime.values import wrong_values
from fastvoc.streams.pieces import CodecDecoder, CodecEncoder

MODELS = {"encodec_24khz": "facebook/encodec_24khz", "encodec_48khz": "facebook/encodec_48khz"}


def compress(
    codec: Codec,
    wav: Array,
    bandwidth: float = 6.0,
    *,
    lm: ecdc.LanguageModel | None = None,
    portable: bool = False,
) -> bytes:
    """The .ecdc stream of a waveform.

    Args:
        codec: an EnCodec model as published: 24 kHz mono or 48 kHz stereo.
        wav: [C, S] samples at its rate, or [S] for mono, floating-point, on its device (numpy: anywhere).
        bandwidth: one of `codec.bandwidths`, in kbit/s.
        lm: makes the stream smaller. An integer model (`load_language_model`) makes fastvoc's variant of the format,
            one in floating point the original's, which decodes only where probabilities round as they do here: in the
            original on as many threads, 1 unless the `FloatLm` says otherwise.
        portable: fastvoc's variant, with checksums, without a language model too.

    Raises:
        ArgumentError, ShapeError, DtypeError, DeviceError: the argument that does not fit, before any computation.
    """
    file = io.BytesIO()
    encode_stream(codec, [codec.check_wav(wav)], file, bandwidth, lm=lm, portable=portable)
    return file.getvalue()


def decompress(
    data: bytes | BinaryIO, codec: Codec | None = None, lm: ecdc.LanguageModel | None = None
) -> tuple[Tensor, int]:
    """The waveform [C, S], float32, of a .ecdc stream, and its sample rate.

    `codec` and `lm` are loaded by the names that the stream gives when they are None: the published models.
    A stream of the original's language model is tried as made on 1 to 16 threads; made on another processor or release
    of torch it may still not decode. Raises DecodeError then and for a damaged stream, ArgumentError for models other
    than the stream's, LoadError as `load`.
    """
    reader = ecdc.Reader(io.BytesIO(data) if isinstance(data, bytes) else data)
    header = reader.header
    codec = load_codec(MODELS[header.model]) if codec is None else codec
    if header.lm and lm is None:
        lm = load_language_model(header.model, integer=bool(header.fingerprint))
    parts = list(decode_stream(reader, codec, lm))
    return torch.cat(parts, 1), codec.sample_rate


def encode_stream(
    codec: Codec,
    pieces: Iterable[Tensor],
    file: BinaryIO,
    bandwidth: float = 6.0,
    *,
    lm: ecdc.LanguageModel | None = None,
    portable: bool = False,
) -> int:
    """Writes the .ecdc stream of a waveform that comes in pieces [C, n]; returns its number of samples.

    Memory does not grow with the waveform. Arguments and errors as `compress`.
    """
    name = stream_name(codec)
    encoder = CodecEncoder(codec, bandwidth)
    fingerprint = "" if lm is None else lm.fingerprint
    version = ecdc.PORTABLE if portable or fingerprint else ecdc.ORIGINAL
    header = ecdc.Header(name, encoder.codebooks, None, lm is not None, version, fingerprint)
    with ecdc.Writer(file, header, lm) as writer:
        for wav in pieces:
            if wrong := wrong_values(wav):
                raise ArgumentError(f"wav: holds {wrong}")
            for codes, scale in encoder.push(wav):
                writer.write(codes, scale)
        for codes, scale in encoder.finish():
            writer.write(codes, scale)
        writer.close(encoder.samples)
    return encoder.samples


def decode_stream(reader: ecdc.Reader, codec: Codec, lm: ecdc.LanguageModel | None = None) -> Iterator[Tensor]:
    """The waveform of a .ecdc stream in pieces [C, n], float32, in memory that does not grow with it.

    The original's streams with a language model at 24 kHz are the exception: their codes are held until all are read.
    Where a `FloatLm` reads such a stream wrong, its `others` are tried; `reader.lm` is then the one that was right.
    Raises ArgumentError for another model than the stream's, and as `fastvoc.ecdc.Reader`.
    """
    header = reader.header
    if stream_name(codec) != header.model:
        raise ArgumentError(f"codec: the stream was made with {header.model}, got {stream_name(codec)}")
    if header.codebooks > codec.config.n_q:
        raise ArgumentError(f"codec: the stream has {header.codebooks} codebooks, the model {codec.config.n_q}")
    decoder = CodecDecoder(codec)
    for block in reader.blocks(lm, lm.others() if isinstance(lm, FloatLm) else ()):
        yield decoder.push(block.codes, block.scale)
    assert reader.header.samples is not None
    yield decoder.finish(reader.header.samples)


def stream_name(codec: Codec) -> str:
    """What .ecdc files call the codec. Raises ArgumentError for one whose streams they cannot hold."""
    c = codec.config
    layout = ecdc.LAYOUTS.get(getattr(c, "name", ""))
    own = (c.sample_rate, c.channels, c.segment_length, c.segment_stride, c.normalize, c.hop, c.bins)
    if layout is None or own != (
        layout.sample_rate,
        layout.channels,
        layout.segment,
        layout.stride,
        layout.scaled,
        ecdc.HOP,
        1 << ecdc.CODE_BITS,
    ):
        raise ArgumentError(f"codec: .ecdc streams are of {' or '.join(ecdc.LAYOUTS)}; this is neither")
    return str(getattr(c, "name", ""))


def load_language_model(
    name: str | os.PathLike[str], *, integer: bool = True, folder: str | os.PathLike[str] | None = None
) -> FloatLm | IntegerLm:
    """The language model of .ecdc streams.

    Args:
        name: "encodec_24khz" or "encodec_48khz", the published one of that codec; or a file.
        integer: the model in whole numbers, for fastvoc's variant of the format; in floating point for the original.
        folder: where to look for the published file, or one that is named like it, before torch.hub's cache; into that
            it is downloaded if it is in neither.

    Raises LoadError when it cannot be found, fetched or read.
    """
    path = given_path(name)
    if str(name) in ecdc.LAYOUTS and not path.exists():
        rate = ecdc.LAYOUTS[str(name)].sample_rate
        path = _beside(folder, str(name)) or published.fetch(published.LANGUAGE_MODELS[rate])
    checkpoint = detect_and_load(path)
    if checkpoint.config.family != "encodec_lm":
        raise LoadError(f"{path}: a model of the family {checkpoint.config.family}, expected a language model")
    warn_assumed(path, checkpoint, stacklevel=2)
    if integer:
        return IntegerLm(checkpoint.config, checkpoint.state)
    model = model_of(checkpoint)
    assert isinstance(model, EncodecLm)
    return FloatLm(model)


def _beside(folder: str | os.PathLike[str] | None, name: str) -> Path | None:
    if folder is None or not Path(folder).is_dir():
        return None
    kind = name.removeprefix("encodec_")
    patterns = (f"encodec_lm_{kind}*", f"{name}_lm*")
    found = sorted(p for p in Path(folder).iterdir() if any(fnmatch(p.name, pattern) for pattern in patterns))
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise LoadError(f"{folder}: more than one language model of {name} ({names}); give the path of one")
    return found[0] if found else None
