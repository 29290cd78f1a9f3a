"""The exceptions and warnings that fastvoc raises: each derives from `FastvocError` and the closest built-in."""

from __future__ import annotations

from collections.abc import Hashable


class FastvocError(Exception):
    """Base of every error raised by fastvoc; `stream` is the id of the stream in `fastvoc.Streams` that it is about."""

    stream: Hashable | None = None


class ShapeError(FastvocError, ValueError):
    """A tensor has the wrong rank, channel count or length."""


class DtypeError(FastvocError, TypeError):
    """A tensor or argument has the wrong type."""


class DeviceError(FastvocError, ValueError):
    """A tensor lives on another device than the model."""


class ArgumentError(FastvocError, ValueError):
    """An argument's value is outside its allowed set or range, or holds NaN or infinity."""


class LoadError(FastvocError):
    """A checkpoint or configuration is not what it claims to be."""


class DecodeError(FastvocError):
    """An audio file or bit stream cannot be decoded."""


class ExportError(FastvocError):
    """A model cannot be written to a file of another runtime; the message names the layer or input that it is about."""


class BackendError(FastvocError, RuntimeError):
    """A forced backend cannot run the operation, or a native library failed to load."""


class MelWarning(UserWarning):
    """A mel spectrogram looks as if another front end had made it."""


class AssumptionWarning(UserWarning):
    """Something about a checkpoint (its sample rate, its mel front end) is assumed, as none of its files says it."""


class AudioWarning(UserWarning):
    """A sound is given as it is, though it is not all that its file or pipe declares or holds."""


class StreamError(FastvocError, RuntimeError):
    """A stream is used in a way its state does not allow: after its end, by two threads, with another model's state."""


def shown(value: object) -> str:
    """A value in the message of an error: its representation, of which much is left out where it is long."""
    if isinstance(value, int) and value.bit_length() > 256:  # whose digits Python may refuse to write
        return f"an integer of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
