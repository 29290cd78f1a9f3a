"""SNAC's quantiser: codebooks that look at means over several steps, a frame of all their codes at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, reduce
from math import lcm
from operator import add

import torch
from torch import Tensor, nn

from fastvoc.nn.blocks import BlockStream
from fastvoc.nn.factorised import BooksEncode, FactorisedBook, bound_on_device
from fastvoc.nn.layer import Part, Steps
from fastvoc.nn.prepared import Prepared
from fastvoc.nn.wide import Wide

_Run = Callable[..., Tensor]


class GroupedQuantizer(Wide):
    """Codebook k makes a code of the mean of `strides[k]` steps: `quantizers.{k}`.

    A frame is `steps` steps, a multiple of the strides; its codes lie one below the other, codebook by codebook.
    They stay in float32 where the network around them is cast to less: a rounded codebook names other entries.
    """

    def __init__(self, entries: int, dimension: int, channels: int, strides: Sequence[int], steps: int) -> None:
        super().__init__()
        assert steps % lcm(*strides) == 0
        self.books = [FactorisedBook(entries, dimension, channels) for _ in strides]
        self.quantizers = nn.ModuleList(self.books)
        self.strides, self.steps, self.channels = tuple(strides), steps, channels
        self.rates = tuple(steps // stride for stride in strides)
        self.decoding = GroupedDecode(self)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the codebooks."""
        return self.books[0].codebook.weight.dtype

    def encoding(self, count: int) -> GroupedEncode:
        """The part that makes the codes of the first `count` codebooks."""
        return GroupedEncode(self, count)


class GroupedEncode(BooksEncode):
    """[B, channels, frames * steps] -> codes [B, rows, frames] int64."""

    def __init__(self, quantizer: GroupedQuantizer, count: int) -> None:
        super().__init__(quantizer, quantizer.books, count)
        self._quantizer = quantizer

    def output_lengths(self, lengths: Steps) -> Steps:
        return lengths // self._quantizer.steps

    def bound(self, backend: str | None) -> tuple[_Run, bool]:
        quantizer = self._quantizer
        searches = [book.search(backend) for book in self._books]

        def run(x: Tensor, lengths: Tensor | None) -> Tensor:
            rows = []
            for search, stride, rate in zip(searches, quantizer.strides, quantizer.rates, strict=False):
                code, entry = search(_mean(x, stride), None if lengths is None else lengths // stride)
                rows.append(code.unflatten(1, (-1, rate)).mT)
                x = x - _repeated(entry, stride)
            return torch.cat(rows, 1)

        return run, False

    def opened(self, backend: str | None, *, exact: bool, further: bool = False) -> BlockStream:
        run, _ = self.bound(backend)
        rows = sum(self._quantizer.rates[: len(self._books)])
        return BlockStream(lambda x: run(x, None), self._quantizer.steps, 1, rows, torch.int64)


class GroupedDecode(Part):
    """Codes [B, rows, frames] int64 of the first codebooks -> [B, channels, frames * steps] in the codebooks' dtype."""

    name = "quantizer.decode"

    def __init__(self, quantizer: GroupedQuantizer) -> None:
        self._quantizer = quantizer

    @property
    def quantizer(self) -> GroupedQuantizer:
        """Whose codes it takes."""
        return self._quantizer

    def owners(self) -> list[nn.Module]:
        return [self._quantizer]

    def output_lengths(self, lengths: Steps) -> Steps:
        return lengths * self._quantizer.steps

    def width(self) -> int:
        return self._quantizer.channels

    def ops(self) -> dict[str, Prepared]:
        return {
            f"{k}.{name}": op
            for k, book in enumerate(self._quantizer.books)
            for name, op in (("entries", book.decoder), ("out_proj", book.out_proj.prepared))
        }

    def bound(self, backend: str | None) -> tuple[_Run, bool]:
        books, dtype = self._quantizer.books, self._quantizer.dtype
        looks = [book.decoder.bound(torch.int64, backend, checked=True)[0] for book in books]
        ups = [bound_on_device(book.out_proj.prepared, dtype, backend) for book in books]
        return partial(self._sum, looks, ups), False

    def __call__(self, codes: Tensor, *, lengths: Tensor | None = None, backend: str | None = None) -> Tensor:
        books = self._quantizer.books
        looks = [partial(book.decoder, backend=backend) for book in books]
        return self._sum(looks, [partial(book.out_proj.prepared, backend=backend) for book in books], codes, lengths)

    def _sum(self, looks: Sequence[_Run], ups: Sequence[_Run], codes: Tensor, lengths: Tensor | None) -> Tensor:
        """The entries that the codes name, projected and repeated, added up from the coarse one on."""
        parts, rows = [], 0
        for look, up, stride, rate in zip(looks, ups, self._quantizer.strides, self._quantizer.rates, strict=True):
            if rows == codes.shape[1]:
                break
            level = codes[:, rows : rows + rate].mT.flatten(1)[:, None]
            valid = None if lengths is None else lengths * rate
            parts.append(_repeated(up(look(level, valid), None, valid), stride))
            rows += rate
        return reduce(add, parts)

    def opened(self, backend: str | None, *, exact: bool, further: bool = False) -> BlockStream:
        run, _ = self.bound(backend)
        return BlockStream(
            lambda codes: run(codes, None), 1, self._quantizer.steps, self.width(), self._quantizer.dtype
        )


def _mean(x: Tensor, stride: int) -> Tensor:
    """[B, C, n * stride] -> the means of `stride` steps each, added up in order."""
    return x if stride == 1 else reduce(add, (x[:, :, i::stride] for i in range(stride))) / stride


def _repeated(x: Tensor, stride: int) -> Tensor:
    """[B, C, n] -> [B, C, n * stride], laid out by time."""
    return x if stride == 1 else x.mT.repeat_interleave(stride, 1).mT
