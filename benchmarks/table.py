"""Tables in a terminal; needs nothing but Python."""

from __future__ import annotations

import sys


class Table:
    """Rows of text under headings, in columns as wide as they need to be."""

    def __init__(self, *headings: str, title: str = "") -> None:
        self._title, self._rows = title, [headings]

    def add_row(self, *cells: str) -> None:
        self._rows.append(cells)

    def print(self) -> None:
        """Text to the left, numbers to the right."""
        count = len(self._rows[0])
        rows = [(*row, *[""] * (count - len(row))) for row in self._rows]
        widths = [max(len(row[i]) for row in rows) for i in range(count)]
        numbers = [all(not row[i] or row[i][0] in "-.0123456789" for row in rows[1:]) for i in range(count)]
        if self._title:
            print(self._title)
        for at, row in enumerate(rows):
            cells = (c.rjust(w) if n else c.ljust(w) for c, w, n in zip(row, widths, numbers, strict=True))
            print("  ".join(cells).rstrip())
            if at == 0:
                print("  ".join("-" * w for w in widths))
        sys.stdout.flush()
