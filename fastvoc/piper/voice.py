"""A Piper voice that speaks: its front in onnxruntime, its decoder here; the samples of the whole file."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypedDict

import numpy as np
import torch
from torch import Tensor

from fastvoc.checkpoints import onnx_file
from fastvoc.checkpoints.checkpoint import refuse
from fastvoc.checkpoints.onnx_graph import Array
from fastvoc.checkpoints.source import open_source
from fastvoc.errors import ArgumentError, DtypeError, LoadError, ShapeError, shown
from fastvoc.loading import loaded, parse_device, parse_dtype
from fastvoc.piper.config import VoiceConfig, framed, read_config
from fastvoc.piper.front import Front
from fastvoc.piper.text import Phonemizer
from fastvoc.runtime.io import given_path
from fastvoc.vocoder import Vocoder

if TYPE_CHECKING:
    from typing_extensions import Unpack

Ids = Sequence[int] | Tensor | np.ndarray[Any, Any]

_SCALES = ("noise_scale", "length_scale", "noise_w")
_INPUTS, _SPEAKER = ("input", "input_lengths", "scales"), "sid"
_AFTER = ("Unsqueeze", "Squeeze", "Reshape", "Transpose", "Flatten", "Identity", "Cast")  # change no sample
_TINY, _HUGE = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)  # as the graph has numbers
_MOST_SEED = 1 << 23  # whole numbers up to twice that are float32's, as ONNX has seeds


class Speaking(TypedDict, total=False):
    """How a sentence is spoken; what is left out is as the voice's JSON has it.

    speaker: a number or a name of a voice with several. noise_scale: how much the sound varies; length_scale: how long
    it takes, 1 as trained; noise_w: how much the lengths of phonemes vary.
    """

    speaker: int | str | None
    noise_scale: float | None
    length_scale: float | None
    noise_w: float | None


class Voice:
    """A whole voice: phoneme ids in, samples out, those of the ONNX file for one sentence at a time.

    `vocoder` is the decoder, as `fastvoc.load` of the file gives it; `config` what the JSON says. Made by `load`.
    """

    def __init__(self, vocoder: Vocoder, config: VoiceConfig, front: Front, phonemes: int) -> None:
        self.vocoder, self.config = vocoder, config
        self._front, self._phonemes = front, phonemes

    def __repr__(self) -> str:
        speakers = "one speaker" if self.config.num_speakers <= 1 else f"{self.config.num_speakers} speakers"
        return f"Voice({self.sample_rate} Hz, {speakers}, {self.vocoder})"

    def __reduce__(self) -> NoReturn:
        raise DtypeError("Voice: a session of onnxruntime cannot be copied or pickled; load the file anew")

    @property
    def sample_rate(self) -> int:
        """Samples per second."""
        return self.vocoder.sample_rate

    def __call__(self, ids: Ids, *, exact: bool = False, **speaking: Unpack[Speaking]) -> Tensor:
        """Speaks a sentence.

        Args:
            ids: [n] phoneme ids as Piper frames them; `ids` makes them of phonemes, `sentences` of text.
            exact: compute as a stream does, see `Vocoder.__call__`.
            speaking: see `Speaking`.

        Returns:
            [S] samples in -1..1, float32, on the decoder's device.

        Raises ShapeError, DtypeError or ArgumentError naming the argument that does not fit, before any computation.
        """
        latent, inputs = self._latent(self._feeds(ids, speaking))
        return self.vocoder(latent, exact=exact, **inputs)

    def stream(
        self, ids: Ids, *, chunk_frames: int = 8, exact: bool = True, **speaking: Unpack[Speaking]
    ) -> Generator[Tensor, None, None]:
        """Speaks a sentence piece by piece: the samples of one call, the first of them early.

        Args:
            ids, speaking: as in a call.
            chunk_frames: frames of sound in a piece; the first piece waits for so many and the decoder's look-ahead,
                the last has what remains.
            exact: the bits of `voice(ids, exact=True)` on the C++ kernels; False is faster, see `Vocoder.stream`.

        Yields [m] samples, float32. Raises as a call, before anything is yielded.
        """
        if isinstance(chunk_frames, bool) or not isinstance(chunk_frames, int) or chunk_frames < 1:
            raise ArgumentError(f"chunk_frames: expected a positive integer, got {chunk_frames!r}")
        return self._pieces(self._feeds(ids, speaking), chunk_frames, exact)

    def latent(self, ids: Ids, **speaking: Unpack[Speaking]) -> tuple[Tensor, Tensor | None]:
        """What the front makes of a sentence: the decoder's input [C, T] and the speaker's vector [G], if any.

        Arguments and errors as in a call: `voice.vocoder(latent, speaker=vector)` is the sound.
        """
        latent, inputs = self._latent(self._feeds(ids, speaking))
        return latent, inputs.get("speaker")

    def ids(self, phonemes: Sequence[str]) -> list[int]:
        """The ids of a sentence's phonemes, with those that begin, part and end them as Piper has it.

        Raises ArgumentError for a phoneme that the voice does not know, DtypeError for what is no text.
        """
        try:
            listed = list(phonemes)
        except TypeError:
            raise DtypeError(f"phonemes: expected texts, got {shown(phonemes)}") from None
        if wrong := [one for one in listed if not isinstance(one, str)]:
            raise DtypeError(f"phonemes: expected texts, got {shown(wrong[0])}")
        known = self.config.phoneme_ids
        if (frame := framed(known)) is None:
            raise ArgumentError("phonemes: the voice's JSON has no ids for '^', '$' and '_'; give ids")
        begin, end, between = frame
        found = [*begin, *between]
        for phoneme in listed:
            if phoneme not in known:
                raise ArgumentError(f"phonemes: {phoneme!r} is not among the {len(known)} that the voice knows")
            found += [*known[phoneme], *between]
        return [*found, *end]

    def sentences(self, text: str) -> list[list[int]]:
        """The phoneme ids of every sentence of a text, by the package piper-tts.

        Raises FastvocError when that is not installed, ArgumentError for a text that it cannot read.
        """
        if not isinstance(text, str):
            raise DtypeError(f"text: expected a text, got {type(text).__name__}")
        return self._phonemizer(text)

    @cached_property
    def _phonemizer(self) -> Phonemizer:
        return Phonemizer(self.config)

    def _feeds(self, ids: Ids, speaking: Speaking) -> dict[str, Array]:
        """What the front is given for a sentence."""
        if wrong := sorted(set(speaking) - set(Speaking.__annotations__)):
            raise ArgumentError(f"{wrong[0]}: no such argument; expected {', '.join(Speaking.__annotations__)}")
        tokens = _whole(ids, self._phonemes)
        scales = [_scale(name, speaking.get(name), getattr(self.config, name)) for name in _SCALES]
        return {
            "input": tokens[None],
            "input_lengths": np.array([len(tokens)], dtype=np.int64),
            "scales": np.array(scales, dtype=np.float32),
            _SPEAKER: np.array([self._speaker(speaking.get("speaker"))], dtype=np.int64),
        }

    def _speaker(self, speaker: int | str | None) -> int:
        count, names = self.config.num_speakers, self.config.speakers
        if _SPEAKER not in self._front.inputs:
            if speaker is not None:
                raise ArgumentError(f"speaker: this voice has one speaker, expected None, got {speaker!r}")
            return 0
        if isinstance(speaker, str):
            if speaker not in names:
                listed = ", ".join(list(names)[:8]) or "none"
                raise ArgumentError(f"speaker: {speaker!r} is not among the {len(names)} names ({listed})")
            speaker = names[speaker]
        number = self.config.default_speaker if speaker is None else speaker
        if isinstance(number, bool) or not isinstance(number, int | np.integer) or not 0 <= number < count:
            raise ArgumentError(f"speaker: expected 0..{count - 1} or a name, got {shown(number)}")
        return int(number)

    def _parts(self, feeds: dict[str, Array]) -> tuple[Iterator[Tensor], dict[str, Any]]:
        """The latent [C, n] part by part, and what else the decoder is given."""
        device = self.vocoder.device
        parts, vectors = self._front(feeds)
        inputs = {"speaker": torch.from_numpy(vectors[0]).to(device).reshape(-1)} if vectors else {}
        return (torch.from_numpy(part).to(device)[0] for part in parts), inputs

    def _latent(self, feeds: dict[str, Array]) -> tuple[Tensor, dict[str, Any]]:
        parts, inputs = self._parts(feeds)
        return torch.cat(list(parts), 1), inputs

    def _pieces(self, feeds: dict[str, Array], chunk: int, exact: bool) -> Generator[Tensor, None, None]:
        parts, inputs = self._parts(feeds)
        rest, step = next(parts), chunk + self.vocoder.latency.frames
        with self.vocoder.stream(exact=exact, **inputs) as live:
            while True:
                while rest.shape[1] <= step and (more := next(parts, None)) is not None:
                    rest = torch.cat([rest, more], 1)
                if rest.shape[1] <= step:
                    break
                yield live.push(rest[:, :step])
                rest, step = rest[:, step:], chunk
            yield live.flush(rest)


def load(
    path: str | os.PathLike[str],
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    backend: str | None = None,
    threads: int | None = None,
    seed: int | None = None,
) -> Voice:
    """Loads a Piper voice, `<name>.onnx` with `<name>.onnx.json` beside it (github.com/rhasspy/piper).

    The graph is cut where the decoder begins: onnxruntime, on the CPU, runs what is before, and fastvoc the rest.

    Args:
        path: the ONNX file.
        device, dtype, backend: of the decoder, as in `fastvoc.load`.
        threads: CPU threads of onnxruntime; as many as torch has when None.
        seed: where the voice's noise begins, so that equal calls after equal loads sound alike; None leaves it to
            chance. Scales of 0 leave no noise.

    Raises:
        LoadError: no such file, no Piper voice, or the package onnx or onnxruntime is missing.
        DtypeError, DeviceError, BackendError: as `fastvoc.load`. ArgumentError: threads or seed out of range.
    """
    for name, value, low, high in (("threads", threads, 1, 1024), ("seed", seed, 0, _MOST_SEED)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high):
            raise ArgumentError(f"{name}: expected {low}..{high}, got {shown(value)}")
    if not isinstance(path, str | os.PathLike):
        raise DtypeError(f"path: expected a text or a path, got {type(path).__name__}")
    wanted, target, file = parse_dtype(dtype), parse_device(device), given_path(path)
    try:
        source = open_source(file)
        if source.container != "onnx":
            raise refuse(file, f"a {source.container} file, expected a Piper voice in ONNX; see fastvoc.load")
        config = read_config(source.path)
        read = onnx_file.read(source)
    except OSError as error:
        raise LoadError(f"{file}: {error.strerror or error}") from error
    phonemes = _check_voice(source.path, read, config)
    decoder = read.decoder
    outputs = [decoder.input] + ([] if decoder.speaker is None else [decoder.speaker])
    threads = torch.get_num_threads() if threads is None else threads
    front = Front(source.path, read.graph, outputs, decoder.values["num_mels"], seed, threads)
    vocoder = loaded(read.checkpoint, target, wanted, backend)
    assert isinstance(vocoder, Vocoder)
    return Voice(vocoder, config, front, phonemes)


def _check_voice(path: Path, read: onnx_file.Voice, config: VoiceConfig) -> int:
    """Raises LoadError unless a graph is a Piper voice around its decoder; the number of phonemes that it knows."""
    graph, decoder = read.graph, read.decoder
    speakers = [_SPEAKER] if _SPEAKER in graph.inputs else []
    if sorted(graph.inputs) != sorted([*_INPUTS, *speakers]):
        raise refuse(path, f"no Piper voice: inputs {graph.inputs}, expected {[*_INPUTS]}, maybe with {_SPEAKER!r}")
    if decoder.given or (speakers and config.num_speakers < 1):
        raise refuse(path, "no Piper voice: its decoder reads what is given, or it knows no speaker")
    if isinstance(hop := config.values.get("hop_length"), int) and hop != read.checkpoint.config.hop:
        raise refuse(
            path, f"hop_length {hop} in its JSON, its decoder makes {read.checkpoint.config.hop} samples a frame"
        )
    sound = {decoder.output}
    for node in graph.nodes:
        if not sound.isdisjoint(node.inputs):
            if node.op not in _AFTER:
                raise refuse(path, f"no Piper voice: {node} changes what its decoder makes")
            sound.update(node.outputs)
    if sound.isdisjoint(graph.outputs):
        raise refuse(path, f"no Piper voice: its decoder makes {decoder.output!r}, which is none of its outputs")
    for node in graph.nodes:
        if node.op == "Gather" and len(node.inputs) == 2 and graph.source(node.inputs[1]) == "input":
            table = graph.constant(node.inputs[0])
            if table is not None and table.ndim == 2 and len(table):
                return len(table)
    raise refuse(path, "no Piper voice: no table of phonemes that 'input' chooses from")


def _whole(ids: Ids, count: int) -> Array:
    """Phoneme ids as int64 [n]."""
    try:
        array = np.asarray(ids.detach().cpu() if isinstance(ids, Tensor) else ids)
    except (TypeError, ValueError) as error:
        raise DtypeError(f"ids: expected whole numbers ({error})") from None
    if array.ndim != 1 or not len(array):
        raise ShapeError(f"ids: expected [n > 0], the phoneme ids of one sentence, got {list(array.shape)}")
    if array.dtype.kind == "O" and all(isinstance(one, int) for one in array.flat):  # one of more than 64 bits
        beyond = next(one for one in array.flat if not 0 <= one < count)
        raise ArgumentError(f"ids: expected 0..{count - 1}, got {shown(beyond)}")
    if array.dtype.kind not in "iu":
        raise DtypeError(f"ids: expected whole numbers, got {array.dtype}")
    if wrong := [int(one) for one in array if not 0 <= one < count]:
        raise ArgumentError(f"ids: expected 0..{count - 1}, got {shown(wrong[0])}")
    return array.astype(np.int64)


def _scale(name: str, value: object, default: float) -> float:
    number = default if value is None else value
    if not isinstance(number, int | float | np.integer | np.floating) or isinstance(number, bool):
        raise ArgumentError(f"{name}: expected a number, got {shown(number)}")
    low = 0 if name != "length_scale" else _TINY
    if not low <= number <= _HUGE:
        wanted = f"a number from 0 to {_HUGE:g}" if not low else f"a positive number from {_TINY:g} to {_HUGE:g}"
        raise ArgumentError(f"{name}: expected {wanted}, got {shown(number)}")
    return float(number)
