"""The bit packer and arithmetic coder in plain Python: what `csrc/coder` computes, and what runs where it is not built.

Names, arguments and errors are those of the compiled module: ValueError for wrong values, EOFError for data that end
early, LookupError for a code that no symbol has.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.uint16]
Cdf = npt.NDArray[np.uint32]

_TOTAL_BITS = 24
_TOTAL = 1 << _TOTAL_BITS


def pack(codes: Codes, width: int) -> bytes:
    """Codes of `width` bits one after another, least significant bit first, zeros at the end of the last byte."""
    _check_width(width)
    values = np.ascontiguousarray(codes).astype("<u2", casting="safe").ravel()
    if (values >> width).any():
        raise ValueError("codes: a value does not fit")
    bits = np.unpackbits(values.view(np.uint8).reshape(-1, 2), axis=1, bitorder="little")[:, :width]
    return np.packbits(bits, bitorder="little").tobytes()


def unpack(data: bytes, width: int, count: int) -> Codes:
    """The first `count` codes that `pack` put into `data`."""
    _check_width(width)
    if count * width > len(data) * 8:
        raise EOFError("the data end early")
    bits = np.unpackbits(np.frombuffer(data, np.uint8), count=count * width, bitorder="little").reshape(count, width)
    values = np.zeros((count, 16), np.uint8)
    values[:, :width] = bits
    return np.packbits(values, axis=1, bitorder="little").view("<u2").astype(np.uint16).ravel()


def _check_width(width: int) -> None:
    if not 1 <= width <= 16:
        raise ValueError("width: expected 1 to 16 bits")


def _share(cdf: Cdf, symbol: int, width: int) -> tuple[int, int]:
    """Distance from the begin of an interval to a symbol's share of it, and the width of that share."""
    first, end = int(cdf[symbol - 1]) if symbol else 0, int(cdf[symbol])
    if end < first + 2 or end > _TOTAL:
        raise ValueError("cdf: expected steps of at least 2, up to 2^24")
    begin = -(-first * width >> _TOTAL_BITS)
    return begin, ((end - 1) * width >> _TOTAL_BITS) - begin + 1


def _check_table(cdf: Cdf) -> None:
    if cdf.dtype != np.uint32:
        raise TypeError(f"cdf: expected uint32, got {cdf.dtype}")
    if cdf.ndim != 2 or not 1 <= cdf.shape[1] <= 1 << 16:
        raise ValueError("cdf: expected a shape [K, N]")


class ArithmeticEncoder:
    """Codes symbols, each within its row of a table of cumulative 24-bit frequencies, into one long binary number."""

    def __init__(self) -> None:
        self._low, self._width, self._digits = 0, 1, 0
        self._bits = ""

    def push(self, symbols: Codes, cdf: Cdf) -> None:
        """Codes symbols [K] with a table [K, N]."""
        _check_table(cdf)
        if symbols.shape != cdf.shape[:1]:
            raise ValueError("symbols: expected one for each row of cdf")
        for symbol, row in zip(symbols.tolist(), cdf, strict=True):
            if symbol >= len(row):
                raise ValueError("symbols: outside of the table of probabilities")
            while self._width < _TOTAL:
                self._low, self._width, self._digits = self._low << 1, self._width << 1, self._digits + 1
            begin, self._width = _share(row, symbol, self._width)
            self._low += begin
            # The leading digits that both ends of the interval share are final.
            rest = (self._low ^ (self._low + self._width - 1)).bit_length()
            self._emit(self._low >> rest, self._digits - rest)
            self._low, self._digits = self._low & ((1 << rest) - 1), rest

    def take(self) -> bytes:
        """The whole bytes that are final and were not taken before."""
        whole = len(self._bits) // 8 * 8
        taken, self._bits = self._bits[:whole], self._bits[whole:]
        return bytes(int(taken[i : i + 8][::-1], 2) for i in range(0, whole, 8))

    def finish(self) -> bytes:
        """Ends the code and gives the rest of it, filled with zeros to a whole byte; the next symbol begins another."""
        self._emit(self._low, self._digits)
        self._low, self._width, self._digits = 0, 1, 0
        self._bits += "0" * (-len(self._bits) % 8)
        return self.take()

    def _emit(self, value: int, digits: int) -> None:
        if digits:
            self._bits += f"{value:0{digits}b}"


class ArithmeticDecoder:
    """Reads what `ArithmeticEncoder` wrote, given the same tables."""

    def __init__(self) -> None:
        self._offset, self._width = 0, 1
        self._held, self._count = 0, 0

    def pull(self, cdf: Cdf, window: bytes) -> tuple[Codes, int]:
        """Symbols [K] for a table [K, N], read from the next bytes of the code, and how many of them were begun."""
        _check_table(cdf)
        symbols = np.zeros(len(cdf), np.uint16)
        used = 0
        for k, row in enumerate(cdf):
            while self._width < _TOTAL:
                if self._count == 0:
                    if used == len(window):
                        raise EOFError("the data end early")
                    self._held, self._count, used = window[used], 8, used + 1
                self._offset = self._offset << 1 | (self._held & 1)
                self._held, self._count, self._width = self._held >> 1, self._count - 1, self._width << 1
            symbols[k] = self._find(row)
        return symbols, used

    def _find(self, row: Cdf) -> int:
        first, last = 0, len(row)
        while first < last:
            middle = (first + last) // 2
            begin, width = _share(row, middle, self._width)
            if self._offset < begin:
                last = middle
            elif self._offset - begin >= width:
                first = middle + 1
            else:
                self._offset, self._width = self._offset - begin, width
                return middle
        raise LookupError("no symbol has this code")
