"""`.dac`, the file of descript-audio-codec: codes and a few facts, in a pickle inside a .npy.

The pickle is read as data: its opcodes are walked through, and what they would call is only compared with what numpy
writes. Nothing of the file is executed.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, BinaryIO

import numpy as np

from fastvoc.errors import ArgumentError, DecodeError

VERSION = "1.0.0"
_MAGIC, _HEADER = b"\x93NUMPY\x01\x00", "{'descr': '|O', 'fortran_order': False, 'shape': (), }"
_MOST_BYTES = 1 << 28  # half an hour of nine codebooks takes 3 MB
_MOST_OPCODES = 4096
_ARRAY = {f"numpy.{core}.multiarray _reconstruct" for core in ("core", "_core")}
_SCALAR = {f"numpy.{core}.multiarray scalar" for core in ("core", "_core")}
_DTYPES = {"u2": np.uint16, "u4": np.uint32, "i4": np.int32, "i8": np.int64, "f4": np.float32, "f8": np.float64}


@dataclass(frozen=True, eq=False)
class DacFile:
    """Codes and what belongs to them.

    codes: [items, K, T] uint16, an item for each channel. chunk_length: frames that were encoded together, and are to
    be decoded together; padding: whether with zeros at their ends. input_db: LUFS of the sound that was encoded, to
    which what is decoded is brought. original_length: samples of each channel, at sample_rate, which need not be the
    model's.
    """

    codes: np.ndarray[Any, np.dtype[np.uint16]]
    chunk_length: int
    original_length: int
    input_db: tuple[float, ...]
    channels: int
    sample_rate: int
    padding: bool

    def __post_init__(self) -> None:
        codes = self.codes
        if codes.ndim != 3 or 0 in codes.shape or codes.dtype != np.uint16:
            raise ArgumentError(f"codes: expected uint16 [items, K, T], got {codes.dtype} {list(codes.shape)}")
        for name in ("chunk_length", "original_length", "channels", "sample_rate"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 1 << 40:
                raise ArgumentError(f"{name}: expected a positive integer, got {value!r}")
        if not isinstance(self.padding, bool):
            raise ArgumentError(f"padding: expected True or False, got {self.padding!r}")
        if codes.shape[0] % self.channels:
            raise ArgumentError(f"channels: expected a divisor of the {codes.shape[0]} items, got {self.channels}")
        if not self.input_db or not all(-1e4 < value < 1e4 for value in self.input_db):
            raise ArgumentError(f"input_db: expected numbers in dB, got {self.input_db}")


def write_dac(file: BinaryIO, dac: DacFile) -> None:
    """Writes what `dac.DACFile.load` of the original reads."""
    metadata = {
        "input_db": np.array(dac.input_db, np.float32),
        "original_length": dac.original_length,
        "sample_rate": dac.sample_rate,
        "chunk_length": dac.chunk_length,
        "channels": dac.channels,
        "padding": dac.padding,
        "dac_version": VERSION,
    }
    np.save(file, np.array({"codes": dac.codes, "metadata": metadata}, dtype=object), allow_pickle=True)


def read_dac(file: BinaryIO) -> DacFile:
    """Reads a `.dac` file. Raises DecodeError for one that is damaged, of another kind or version."""
    data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise DecodeError(f".dac: more than {_MOST_BYTES} bytes")
    try:
        return _file_of(_unwrapped(data))
    except (ArgumentError, KeyError, TypeError, ValueError, IndexError, OverflowError, struct.error) as error:
        raise DecodeError(f".dac: damaged, or not such a file: {' '.join(str(error).split())[:160]}") from None


def _file_of(values: Any) -> DacFile:
    if not isinstance(values, dict) or not isinstance(values.get("metadata"), dict):
        raise ValueError("expected codes and metadata")
    facts, codes = values["metadata"], values.get("codes")
    if facts.get("dac_version") != VERSION:
        raise DecodeError(f".dac: version {facts.get('dac_version')!r:.40}, expected {VERSION}")
    if not isinstance(codes, np.ndarray) or codes.dtype.kind not in "iu":
        raise ValueError("expected codes of whole numbers")
    if codes.size and not 0 <= int(codes.min()) <= int(codes.max()) < 1 << 16:
        raise ValueError("expected codes below 65536")
    level = np.atleast_1d(np.asarray(facts["input_db"], np.float64))
    counts = {name: _whole(facts[name]) for name in ("chunk_length", "original_length", "channels", "sample_rate")}
    return DacFile(
        codes.astype(np.uint16), input_db=tuple(level.ravel().tolist()), padding=_flag(facts["padding"]), **counts
    )


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.ndarray) or int(value) != value:
        raise ValueError(f"expected a whole number, got {value!r:.40}")
    return int(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"expected True or False, got {value!r:.40}")
    return value


def _unwrapped(data: bytes) -> Any:
    """The one object of a .npy file of shape ()."""
    if not data.startswith(_MAGIC) or len(data) < 10:
        raise ValueError("not a .npy file of version 1")
    (size,) = struct.unpack("<H", data[8:10])
    header = data[10 : 10 + size].decode("latin-1").split()
    if header != _HEADER.split():
        raise ValueError("its header is not that of one object")
    whole = _Walk(data[10 + size :]).value()
    if not isinstance(whole, list) or len(whole) != 1:
        raise ValueError("expected one object")
    return whole[0]


@dataclass(frozen=True)
class _Global:
    """Something that a pickle names."""

    name: str


class _Made:
    """What a call that numpy writes makes; `array` once its state is known."""

    def __init__(self, function: str, args: Any) -> None:
        self.function, self.args = function, args
        self.array: Any = None

    def build(self, state: Any) -> None:
        """The state of an array: (version, shape, dtype, Fortran order, bytes or list of objects)."""
        if self.function == "dtype":
            return  # byte order and flags, which the name has told
        _, shape, dtype, fortran, data = state
        if fortran is not False or not isinstance(shape, tuple) or not all(isinstance(n, int) for n in shape):
            raise ValueError("an array of another order")
        if isinstance(data, list):
            self.array = data
            return
        self.array = _numbers(dtype, data, shape)


def _numbers(dtype: Any, data: Any, shape: tuple[int, ...]) -> Any:
    kind = _kind(dtype)
    if not isinstance(data, bytes) or prod(shape) * np.dtype(kind).itemsize != len(data) or min(shape, default=1) < 0:
        raise ValueError(f"an array of shape {shape} in {len(data)} bytes")
    return np.frombuffer(data, np.dtype(kind).newbyteorder("<")).reshape(shape).astype(kind)


def _kind(dtype: Any) -> Any:
    if not isinstance(dtype, _Made) or dtype.function != "dtype" or dtype.args[0] not in _DTYPES:
        raise ValueError("an array of another type")
    return _DTYPES[dtype.args[0]]


class _Walk:
    """A pickle as data: the opcodes that numpy's arrays, dictionaries, numbers and texts take, and no others."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def value(self) -> Any:
        """What the pickle says. Raises ValueError for an opcode or a name that has no place in it."""
        for count, (opcode, arg, _) in enumerate(pickletools.genops(self._data)):
            if count > _MOST_OPCODES:
                raise ValueError(f"more than {_MOST_OPCODES} opcodes")
            if opcode.name == "STOP":
                return _plain(self._stack.pop())
            self._step(opcode.name, arg)
        raise ValueError("it does not end")

    def _step(self, name: str, arg: Any) -> None:
        stack = self._stack
        if name in _IGNORED:
            return
        if name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _VALUES:
            stack.append(arg)
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self._memo[arg] = stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self._memo[arg])
        elif name == "MARK":
            self._marks.append(len(stack))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            stack.append(tuple(self._taken(int(name[-1]))))
        elif name == "TUPLE":
            stack.append(tuple(self._marked()))
        elif name in ("SETITEM", "SETITEMS"):
            self._set(self._taken(2) if name == "SETITEM" else self._marked())
        elif name in ("APPEND", "APPENDS"):
            items = self._taken(1) if name == "APPEND" else self._marked()
            self._top(list).extend(items)
        elif name == "GLOBAL":
            stack.append(_Global(arg))
        elif name == "STACK_GLOBAL":
            stack.append(_Global(" ".join(map(str, self._taken(2)))))
        elif name == "REDUCE":
            stack.append(_made(*self._taken(2)))
        elif name == "BUILD":
            (state,) = self._taken(1)
            self._top(_Made).build(state)
        else:
            raise ValueError(f"opcode {name}")

    def _taken(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise ValueError("it takes more than there is")
        items = self._stack[-count:]
        del self._stack[-count:]
        return items

    def _marked(self) -> list[Any]:
        at = self._marks.pop()
        items = self._stack[at:]
        del self._stack[at:]
        return items

    def _top(self, kind: Any) -> Any:
        if not self._stack or not isinstance(self._stack[-1], kind):
            raise ValueError(f"expected a {kind.__name__}")
        return self._stack[-1]

    def _set(self, items: list[Any]) -> None:
        target = self._top(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str):
                raise ValueError("a key that is no text")
            target[key] = value


_IGNORED = ("PROTO", "FRAME")
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = {"BININT", "BININT1", "BININT2", "LONG1", "INT", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINBYTES"}
_VALUES |= {"SHORT_BINBYTES", "BINBYTES8"}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}


def _made(function: Any, args: Any) -> _Made:
    """What numpy's own calls stand for. Raises ValueError for any other."""
    name = function.name if isinstance(function, _Global) else "?"
    if not isinstance(args, tuple) or not args:
        raise ValueError(f"a call of {name!r:.60}")
    if name == "numpy dtype":
        return _Made("dtype", args)
    if name in _ARRAY:
        return _Made("array", args)
    if name in _SCALAR and len(args) == 2:
        made = _Made("scalar", args)
        made.array = _numbers(args[0], args[1], ())
        return made
    raise ValueError(f"a call of {name!r:.60}")


def _plain(value: Any) -> Any:
    """The arrays in place of what makes them."""
    if isinstance(value, _Made):
        return _plain(value.array)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value
