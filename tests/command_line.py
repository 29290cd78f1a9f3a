"""What the tests of the command line share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Result:
    """What a command left: exit code, standard output and error."""

    code: int
    out: str
    err: str


class Run(Protocol):
    """`run(*arguments)` runs `fastvoc` with them."""

    def __call__(self, *arguments: object) -> Result: ...
