"""A capture that needs no device: it runs what it was given again, on the same tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from fastvoc.errors import BackendError


class Rerun:
    """Records functions by keeping them. `size` is the memory that each is said to hold."""

    def __init__(self, size: int = 0) -> None:
        self.size, self.made, self.live = size, 0, 0

    def __call__(self, run: Callable[[], Any]) -> _Kept:
        run()
        run()  # the host's part of a captured call runs once more than the replays
        self.made += 1
        self.live += 1
        return _Kept(self, run)


class _Kept:
    def __init__(self, owner: Rerun, run: Callable[[], Any]) -> None:
        self._owner, self._run, self.bytes = owner, run, owner.size
        self._inside, self._gone = False, False

    def replay(self) -> Any:
        if self._gone or not self._inside:
            raise BackendError("a replay after drop, or outside of in_order")
        return self._run()

    @contextmanager
    def in_order(self) -> Iterator[None]:
        if self._inside:
            raise BackendError("two calls replay one graph at once")
        self._inside = True
        try:
            yield
        finally:
            self._inside = False

    def drop(self) -> None:
        if self._inside or self._gone:
            raise BackendError("dropped while in use, or twice")
        self._gone = True
        self._owner.live -= 1
