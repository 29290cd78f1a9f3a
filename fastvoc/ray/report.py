"""What became of the rows of a job that wrote files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fastvoc.runtime.stats import log

if TYPE_CHECKING:
    import pyarrow as pa

MOST = 1000
TWICE = "this id comes twice, in several blocks, and was written each time"


@dataclass
class Report:
    """Rows written now, found written before, and failed; seconds of audio made or encoded now.

    `errors` and `warnings` are by id, the first thousand of each; every failed row lies in `_failed` of the output.
    """

    written: int = 0
    there: int = 0
    failed: int = 0
    seconds: float = 0.0
    errors: dict[str, str] = field(default_factory=dict)
    warnings: dict[str, str] = field(default_factory=dict)
    _written: set[str] = field(default_factory=set, repr=False, compare=False)

    def add(self, row: Mapping[str, object]) -> None:
        """Adds a block's row of `table`."""
        told: Mapping[str, object] = row
        self.written += _count(told["written"])
        self.there += _count(told["there"])
        seconds = told["seconds"]
        assert isinstance(seconds, float)
        self.seconds += seconds
        for name, kept in (("failed", self.errors), ("warned", self.warnings)):
            pairs = told[name]
            assert isinstance(pairs, list)
            for pair in pairs:
                log.warning("%s: %s", pair["id"], pair["text"])
                if len(kept) < MOST:
                    kept[pair["id"]] = pair["text"]
            self.failed += len(pairs) if name == "failed" else 0
        ids = told["ids"]
        assert isinstance(ids, list)
        for name in ids:
            if name in self._written:
                log.warning("%s: %s", name, TWICE)
                if len(self.warnings) < MOST:
                    self.warnings[name] = TWICE
        self._written.update(ids)

    def table(
        self, failed: Iterable[tuple[str, str]], warned: Iterable[tuple[str, str]], ids: Sequence[str]
    ) -> pa.Table:
        """One block's counts as the row that its worker sends back."""
        import pyarrow as pa

        pairs = pa.list_(pa.struct([("id", pa.string()), ("text", pa.string())]))
        schema = pa.schema(
            [
                ("written", pa.int64()),
                ("there", pa.int64()),
                ("seconds", pa.float64()),
                ("failed", pairs),
                ("warned", pairs),
                ("ids", pa.list_(pa.string())),
            ]
        )
        told = [[{"id": name, "text": text} for name, text in some] for some in (failed, warned)]
        row = {"written": self.written, "there": self.there, "seconds": self.seconds}
        return pa.Table.from_pylist([{**row, "failed": told[0], "warned": told[1], "ids": ids}], schema)


def _count(value: object) -> int:
    assert isinstance(value, int)
    return value
