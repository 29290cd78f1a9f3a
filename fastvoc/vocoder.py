"""What `fastvoc.load` returns: a model, its mel front end, and the checks that stand before them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fastvoc.errors import ArgumentError, MelWarning, ShapeError
from fastvoc.graphs.graphed import Graphed, GraphOptions
from fastvoc.graphs.requests import MelGraphable
from fastvoc.loaded import Lengths, LoadedModel, whole_lengths
from fastvoc.nn.model import Array, Input, Model
from fastvoc.runtime import flags
from fastvoc.runtime.lengths import on_device
from fastvoc.runtime.stats import clock
from fastvoc.runtime.values import wrong_values
from fastvoc.sound import mel_check
from fastvoc.sound.formats import Format
from fastvoc.sound.mel import MelConfig, MelSpectrogram
from fastvoc.sound.mel_doctor import Diagnosis, diagnose
from fastvoc.streams.delivery import Delivery
from fastvoc.streams.mel import MelStreamable
from fastvoc.streams.stream import Check, Latency, Stream, Streamable, context_frames, latency

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Vocoder(LoadedModel):
    """Log-mel spectrograms in, waveforms out.

    model: its `forward(mel [B, n_mels, T], lengths=None, backend=None)` gives [B, 1, S].
    mel_config: the front end that the model was trained with; None when it is not known, then `mel` raises
    ArgumentError and the statistics of an input are not judged.
    backend: the implementation to force for every op, None to choose.
    """

    _called = "mel"  # the first argument, in messages

    def __init__(
        self,
        model: Model,
        config: Any,
        mel_config: MelConfig | None = None,
        *,
        backend: str | None = None,
    ) -> None:
        super().__init__(model, config, backend=backend)
        self.mel_config = mel_config

    def __repr__(self) -> str:
        kind = type(self.model).__name__
        return f"Vocoder({kind}, {self.sample_rate} Hz, hop {self.hop}, {self.dtype}, {self.device})"

    @property
    def n_mels(self) -> int:
        """Mel bands, or channels of the latent that the model takes in place of a mel."""
        return int(self.config.num_mels)

    def warmup(self, frames: int = 100) -> Vocoder:
        """Runs the model once on `frames` frames of silence, so that the first real call is as fast as the rest."""
        silence = -11.5 if self.mel_config is None else self.mel_config.log_floor
        mel = torch.full((self.n_mels, frames), silence, dtype=torch.float32, device=self.device)
        self(mel, check=False, **self.model.warmup_inputs)
        return self

    def mel(self, wav: Array, *, check: bool | None = None) -> Tensor:
        """The log-mel that this model was trained on: [L] or [B, L] samples in -1..1 -> [n_mels, T] or [B, n_mels, T].

        Raises ArgumentError when the model's front end is not known, or (`check`, the default on the CPU) for NaN
        and infinity; DtypeError, DeviceError or ShapeError for a wav that does not fit.
        """
        if getattr(self.config, "latent", False):
            raise ArgumentError(f"mel: the model takes a latent [{self.n_mels}, T], which no mel front end makes")
        front_end = self._front_end()
        wav = self._floats(wav, "wav")
        if self._checks(check) and (wrong := wrong_values(wav)):
            raise ArgumentError(f"wav: holds {wrong}")
        with torch.inference_mode():
            mel = MelSpectrogram(front_end)(wav)
        return mel.clone()  # an ordinary tensor, which may be changed in place

    def each(
        self,
        mels: Sequence[Array],
        *,
        check: Check = None,
        rate: int | None = None,
        format: Format = "f32",
        dither: int | None = None,
        **inputs: Any,
    ) -> list[Tensor]:
        """Makes the waveforms of log-mels [n_mels, T_i] of any lengths in one batch -> [S_i] each, as if alone.

        `check`, `rate`, `format`, `dither` and `inputs` as in a call, `inputs` for the batch. Raises the errors of a
        call, naming the mel; ShapeError for no mels at all.
        """
        items = [self._floats(mel, f"mels[{i}]") for i, mel in enumerate(mels)]
        for i, item in enumerate(items):
            if item.dim() != 2 or item.shape[0] != self.n_mels or not item.shape[1]:
                raise ShapeError(f"mels[{i}]: expected [{self.n_mels}, T > 0], got {list(item.shape)}")
        if not items:
            raise ShapeError("mels: expected at least one")
        frames = [item.shape[1] for item in items]
        batch = items[0].new_zeros((len(items), self.n_mels, max(frames)))
        for row, item in zip(batch, items, strict=True):
            row[:, : item.shape[1]] = item
        wavs = self(batch, frames, check=check, rate=rate, format=format, dither=dither, **inputs)
        sizes = [int(self.config.samples(count)) for count in frames]
        if (delivery := Delivery.of(self.sample_rate, rate, format, dither)) is not None:
            sizes = [delivery.length(size) for size in sizes]
        return [wav[:size].clone() for wav, size in zip(wavs, sizes, strict=True)]

    def __call__(
        self,
        mel: Array,
        lengths: Lengths = None,
        *,
        check: Check = None,
        exact: bool = False,
        rate: int | None = None,
        format: Format = "f32",
        dither: int | None = None,
        **inputs: Input,
    ) -> Tensor:
        """Makes the waveform of a log-mel.

        Args:
            mel: [n_mels, T] or [B, n_mels, T], any floating-point type, on the model's device (numpy: anywhere).
            lengths: [B] whole numbers, the valid frames of each item of a batch; the waveform is 0 beyond them.
            check: also look at the values, inside the lengths: NaN and infinity raise, and a mel of at least 50
                frames that looks like another front end's gives one MelWarning. None: True on the CPU. "later": the
                device looks for NaN and infinity in the mel, and `voc.check()` tells; the host does not wait.
            exact: compute as a stream does (`fastvoc.use_exact`): slower, and equal to it bit for bit on the C++ CPU
                implementation; the default agrees with a stream to about 1e-6.
            rate: of the waveform in Hz, 1000..384000; that of the model when None. S is then round(S' * rate /
                voc.sample_rate) of the S' samples that the model makes, halves upwards.
            format: "f32"; "s16", int16 of round(32767 x); "mulaw" or "alaw", uint8 of ITU-T G.711. The three clip
                at full scale, `voc.stats.clipped` counts how often.
            dither: a seed: triangular noise of two steps of s16 before it rounds, another one for each item.
            inputs: what this model's own `forward` takes besides, as HiFTNet's f0, source, seed, phase and noise, the
                bandwidth_id of Vocos on codes, the speaker of a VITS decoder, or the f0 and speaker of RVC's; tensors
                or numpy arrays, without the batch axis for a single mel [n_mels, T].

        Returns:
            [S] or [B, S] samples in -1..1, float32 unless another format is asked for, S = T * hop for the published
            configurations.

        Raises:
            ShapeError, DtypeError, DeviceError: the argument that does not fit, before any computation.
            ArgumentError: lengths outside 1..T, NaN, infinity or a value beyond 1e6, an input that this model does not
                take, no such rate or format, dither of another format than s16.
        """
        stats, clipped = self.stats, None
        start = stats.begin()
        try:
            delivery = None
            if rate is not None or format != "f32" or dither is not None:
                delivery = Delivery.of(self.sample_rate, rate, format, dither)
            batch, frames, single, further = self.checked(mel, lengths, check, inputs)
            checked = clock()
            with torch.inference_mode(), self.computing(batch.shape[0], batch.shape[2] * self.hop, exact):
                wav: Tensor = self.model(batch.to(self.input_dtype), frames, backend=self.backend, **further)[:, 0]
                computed, wav = clock(), wav.float()
                if delivery is not None:
                    wav, clipped = delivery.whole(wav, self._sizes(frames))
            wav = (wav[0] if single else wav).clone()  # an ordinary tensor, which may be changed in place
        except BaseException as error:
            stats.failed("call", start, error)
            raise
        count = batch.shape[0] * batch.shape[2] if frames is None else int(frames.sum())
        stats.made("call", start, checked, computed, count, clipped)
        return wav

    def _sizes(self, frames: Tensor | None) -> list[int] | None:
        """The samples of items of so many frames."""
        return None if frames is None else [int(self.config.samples(count)) for count in frames.tolist()]

    def checked(
        self, mel: Array, lengths: Lengths, check: Check, inputs: dict[str, Any]
    ) -> tuple[Tensor, Tensor | None, bool, dict[str, Any]]:
        """A call's arguments as the model takes them: [B, n_mels, T], lengths, whether a batch axis was added, inputs.

        Warns and raises as a call.
        """
        batch, frames, single = self._batch(mel, lengths)
        further = {name: self._input(name, value, single) for name, value in inputs.items()} if inputs else {}
        if single and inputs:
            self._check_single(inputs, batch.shape[2])
        if check == "later":
            wrong = ~batch.isfinite()
            if frames is not None:
                inside = torch.arange(batch.shape[2], device=batch.device) < on_device(frames, batch)[:, None]
                wrong &= inside[:, None]
            flags.note(flags.NOT_FINITE, wrong)
        elif self._checks(check):
            for name, value in further.items():
                _check_finite(name, value, frames, self._per_frame(name))
            if (problem := self._examine(batch, frames)) is not None:
                warnings.warn(f"mel: looks {problem}; check=False silences this", MelWarning, stacklevel=3)
        return batch, frames, single, further

    def graphs(self, max_mb: float = 1024.0, **options: Unpack[GraphOptions]) -> Graphed:
        """This vocoder run from CUDA graphs, whose memory keeps within `max_mb`; see `fastvoc.Graphed`."""
        return Graphed(self, max_mb, **options)

    def graphable(self) -> MelGraphable:
        """This vocoder as `fastvoc.graphs.graphed` sees it."""
        return MelGraphable(self)

    def decode_codes(
        self,
        codes: Array,
        lengths: Lengths = None,
        *,
        rate: int | None = None,
        format: Format = "f32",
        dither: int | None = None,
        **inputs: Input,
    ) -> Tensor:
        """Makes the waveform of a codec's codes, with a model that takes them, as Vocos on EnCodec's.

        Args:
            codes: [K, T] or [B, K, T] of any integer type, as `Codec.encode` gives them, K from 1 to all codebooks; on
                the model's device (numpy: anywhere).
            lengths: [B] whole numbers, the valid frames of each item of a batch; the waveform is 0 beyond them.
            rate, format, dither: as in a call.
            inputs: as in a call: for Vocos `bandwidth_id`, a number, or one for each item.

        Returns:
            [S] or [B, S] samples, float32.

        Raises:
            ArgumentError: the model takes no codes, an input that this model does not take, lengths outside 1..T; on
                the CPU a code outside the codebooks, which elsewhere counts as the nearest (see `check`).
            ShapeError, DtypeError, DeviceError: the argument that does not fit, before any computation.
        """
        stats, clipped = self.stats, None
        start = stats.begin()
        try:
            delivery = Delivery.of(self.sample_rate, rate, format, dither)
            batch, frames, single, further = self._checked_codes(codes, lengths, inputs)
            checked = clock()
            with torch.inference_mode(), self.computing(batch.shape[0], batch.shape[2] * self.hop):
                wav: Tensor = self.model.decode_codes(batch, frames, backend=self.backend, **further)[:, 0]
                computed, wav = clock(), wav.float()
                if delivery is not None:
                    wav, clipped = delivery.whole(wav, self._sizes(frames))
            wav = (wav[0] if single else wav).clone()
        except BaseException as error:
            stats.failed("decode", start, error)
            raise
        count = batch.shape[0] * batch.shape[2] if frames is None else int(frames.sum())
        stats.made("decode", start, checked, computed, count, clipped)
        return wav

    def _checked_codes(
        self, codes: Array, lengths: Lengths, inputs: dict[str, Any]
    ) -> tuple[Tensor, Tensor | None, bool, dict[str, Any]]:
        """The arguments of `decode_codes` as the model takes them, and whether a batch axis was added."""
        books = self.model.codebooks
        if not books:
            raise ArgumentError(f"codes: {type(self.model).__name__} takes mels here, it has no codebooks")
        codes = self._integers(codes, "codes")
        if codes.dim() not in (2, 3) or 0 in codes.shape or codes.shape[-2] > books:
            form = f"[K, T] or [B, K, T] with K in 1..{books}, B, T > 0"
            raise ShapeError(f"codes: expected {form}, got {list(codes.shape)}")
        single = codes.dim() == 2
        if single and lengths is not None:
            raise ShapeError(f"lengths: only for a batch [B, K, T], got codes of shape {list(codes.shape)}")
        batch = codes[None] if single else codes
        frames = whole_lengths(lengths, len(batch), batch.shape[2])
        return batch, frames, single, {name: self._input(name, value, single) for name, value in inputs.items()}

    def f0(self, mel: Array, lengths: Lengths = None, *, check: bool | None = None) -> Tensor:
        """F0 in Hz that the model reads from a log-mel: [n_mels, T] or [B, n_mels, T] -> [T] or [B, T], float32.

        `lengths` as in a call; F0 is 0 beyond them. `check` refuses NaN and infinity; None: True on the CPU.
        Raises ArgumentError when the model predicts none, and the errors of a call.
        """
        if not self.model.predicts_f0:
            raise ArgumentError(f"f0: {type(self.model).__name__} does not predict F0")
        batch, frames, single = self._batch(mel, lengths)
        if self._checks(check):
            _check_finite("mel", batch, frames, 1)
        with torch.inference_mode():
            f0: Tensor = self.model.predict_f0(batch.to(self.input_dtype), frames, backend=self.backend).float()
        return (f0[0] if single else f0).clone()

    def stream(
        self,
        *,
        lookahead: int | None = None,
        exact: bool = True,
        check: Check = None,
        rate: int | None = None,
        format: Format = "f32",
        dither: int | None = None,
        **options: Input,
    ) -> Stream:
        """A stream: chunks of a spectrogram in, the samples that they complete out, the same as in one call.

        Args:
            lookahead: frames of look-ahead, fewer than the exact `latency.frames`: earlier sound, no longer exact.
            exact: equal to `voc(mel, exact=True)`, bit for bit on the C++ CPU implementation. False is faster by as
                much as a default call is faster than an exact one (Toom-Cook convolutions on the CPU), and agrees with
                both to a relative L2 of 5e-6 however the signal is cut.
            check: look at the values of every chunk: NaN and infinity raise before the stream changes, which goes on
                with the next good chunk. None: True on the CPU. "later": the device looks, and `voc.check()` tells; the
                host does not wait.
            rate, format, dither: of the samples, as in a call with them, which they equal as without. `Stream.latency`
                includes the filter of another rate; `Stream.clipped` counts what a format clipped.
            options: what the model knows of, such as the `seed` of a model with noise.

        Raises ArgumentError for an option that the model does not know, a look-ahead that is too long, no such rate or
        format, and dither of another format than s16.
        """
        delivery = Delivery.of(self.sample_rate, rate, format, dither)
        return Stream(self.streamable(), options if exact else {**options, "exact": False}, lookahead, check, delivery)

    def streamable(self) -> Streamable:
        """This model as `Stream` and `fastvoc.Streams` see it."""
        return MelStreamable(self)

    @property
    def latency(self) -> Latency:
        """How far exact streamed output lies behind its input."""
        return latency(self.model, self.hop, self.sample_rate, self.backend)

    @property
    def context_frames(self) -> tuple[int, int]:
        """Frames to the left and to the right of a frame that its samples depend on."""
        return context_frames(self.model, self.hop, self.backend)

    def examine(self, mel: Array) -> str | None:
        """What a mel [n_mels, T] or [B, n_mels, T] of another front end looks like and how to mend it, or None.

        Raises ArgumentError for NaN and infinity, and the errors of a call for a mel that does not fit.
        """
        mel = self._floats(mel, "mel")
        self._check_shape(mel)
        return self._examine(mel if mel.dim() == 3 else mel[None], None)

    def diagnose(self, mel: Array, wav: Array | None = None) -> Diagnosis:
        """Which front end made a mel that sounds wrong: from its values, and from the waveform that it was made of.

        Args:
            mel: [n_mels, T] as it came, of any front end and form, transposed, normalised, in decibels.
            wav: [L] samples at `sample_rate` that it was made from. With them the front end is found by trying;
                without, only what changes a mel's values (their unit, the bands, the axes) can be told.

        Raises ArgumentError when the model's front end is not known, or for NaN and infinity; ShapeError, DtypeError or
        DeviceError for what is no mel or waveform.
        """
        front_end = self._front_end()
        given = None if wav is None else self._floats(wav, "wav")
        return diagnose(self._floats(mel, "mel"), front_end, given)

    def _front_end(self) -> MelConfig:
        """The front end of training. Raises ArgumentError where it is not known."""
        if self.mel_config is None:
            problem = "the checkpoint does not say which mel front end it was trained with"
            raise ArgumentError(f"mel: {problem}; give one to fastvoc.load as mel=")
        return self.mel_config

    def _batch(self, mel: Array, lengths: Lengths) -> tuple[Tensor, Tensor | None, bool]:
        """The mel as [B, n_mels, T], the lengths, and whether it came without a batch axis."""
        mel = self._floats(mel, self._called)
        self._check_shape(mel)
        frames = self._lengths(lengths, mel)
        return (mel, frames, False) if mel.dim() == 3 else (mel[None], frames, True)

    def _input(self, name: str, value: Any, single: bool) -> Any:
        """One of the model's further inputs, with a batch axis."""
        known = self.model.inputs
        if name not in known:
            takes = f"takes {', '.join(known)}" if known else "takes nothing but the mel"
            raise ArgumentError(f"{name}: {type(self.model).__name__} has no such input; it {takes}")
        if isinstance(value, np.ndarray) and value.dtype.kind in "iu":
            value = torch.from_numpy(value.astype(np.int64, order="C")).to(self.device)
        elif isinstance(value, np.ndarray) or (isinstance(value, Tensor) and value.is_floating_point()):
            value = self._floats(value, name)
        return value[None] if single and isinstance(value, Tensor) and value.dim() else value

    def _check_single(self, inputs: dict[str, Any], frames: int) -> None:
        """Raises ShapeError unless the inputs fit a mel that came without a batch axis."""
        shapes = self.model.input_shapes(frames)
        for name, value in inputs.items():
            got = getattr(value, "shape", None)
            if name in shapes and got is not None and tuple(got) != tuple(shapes[name]):
                raise ShapeError(
                    f"{name}: expected {list(shapes[name])} for a mel [{self.n_mels}, {frames}], got {list(got)}"
                )

    def _check_shape(self, mel: Tensor) -> None:
        size, bands = mel.shape, self.n_mels
        if len(size) in (2, 3) and size[-2] == bands and 0 not in size:
            return
        shape = list(size)
        if mel.dim() in (2, 3) and mel.shape[-2] != bands and mel.shape[-1] == bands:
            raise ShapeError(
                f"{self._called}: expected [{bands}, T] or [B, {bands}, T], got {shape}: it is transposed; "
                f"pass {self._called}.transpose(-1, -2)"
            )
        raise ShapeError(f"{self._called}: expected [{bands}, T] or [B, {bands}, T] with B, T > 0, got {shape}")

    def _lengths(self, lengths: Lengths, mel: Tensor) -> Tensor | None:
        if lengths is not None and mel.dim() != 3:
            raise ShapeError(f"lengths: only for a batch [B, n_mels, T], got a mel of shape {list(mel.shape)}")
        return None if lengths is None else whole_lengths(lengths, len(mel), mel.shape[-1])

    def _per_frame(self, name: str) -> int:
        """Values that an input has for a frame; 0 where their number does not depend on the frames."""
        one, two = (self.model.input_shapes(frames).get(name, (0,)) for frames in (1, 2))
        return two[-1] - one[-1]

    def _examine(self, batch: Tensor, lengths: Tensor | None) -> str | None:
        counts = [batch.shape[2]] * len(batch) if lengths is None else lengths.tolist()
        items = [item[:, :count] for item, count in zip(batch, counts, strict=True)]
        for index, item in enumerate(items):
            if wrong := wrong_values(item):
                where = "" if len(items) == 1 else f" in item {index}"
                raise ArgumentError(f"{self._called}: holds {wrong}{where}")
        if self.mel_config is None:
            return None
        kinds = (mel_check.suspect(item, self.mel_config) for item in items)
        kind = next((kind for kind in kinds if kind is not None), None)
        return None if kind is None else mel_check.advice(kind, self.mel_config)


def _check_finite(name: str, value: Any, frames: Tensor | None, each: int) -> None:
    """Floats inside the lengths must be a signal's. The last axis has `each` values a frame, or 0: any."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return
    if frames is None or value.dim() < 2 or not each or len(value) != len(frames):
        wrong = wrong_values(value)
    else:
        own = (wrong_values(item[..., : n * each]) for item, n in zip(value, frames.tolist(), strict=True))
        wrong = next(filter(None, own), None)
    if wrong:
        raise ArgumentError(f"{name}: holds {wrong}")
