"""Writes what layers took on a device into the table by which implementations are chosen (`fastvoc.runtime.choice`).

python benchmarks/choices.py results/first-times-*.jsonl

Takes the lines of `contact.py --timed`, a file for each implementation, as `gpu.sh first` leaves them in logs.tar.gz.
What was measured takes the place of what was estimated for the same layer and size; an implementation that failed comes
last there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fastvoc.runtime import choice

_KEY = ("op", "bytes", "weight", "items", "seconds")


def measured(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of a table from lines of `contact.py`, whatever their order; lines without a time or a failure count not."""
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for line in lines:
        if "seconds" not in line and "failed" not in line:
            continue
        items, seconds = line["shape"].split("x")
        row = {name: line[name] for name in ("op", "bytes", "weight")} | {
            "items": int(items),
            "seconds": float(seconds),
        }
        found = rows.setdefault(_key(row), row | {"from": "measured", "us": {}})
        found["us"][line["impl"]] = None if "failed" in line else rounded(1e6 * line["seconds"])
    return list(rows.values())


def merged(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Puts rows into a table's file, in place of those of the same layers and sizes; no estimate for a measurement."""
    kept = json.loads(path.read_text())["rows"] if path.exists() else []
    table = {_key(row): row for row in kept}
    for row in rows:
        if row["from"] == "measured" or table.get(_key(row), row)["from"] == "estimated":
            table[_key(row)] = row
    path.parent.mkdir(parents=True, exist_ok=True)
    text = ",\n  ".join(json.dumps(table[key]) for key in sorted(table))
    path.write_text(f'{{\n "rows": [\n  {text}\n ]\n}}\n')
    choice.read(path)  # raises for what the package could not read


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(tuple(row[name]) if name == "weight" else row[name] for name in _KEY)


def rounded(value: float) -> float:
    """Three digits."""
    return float(f"{value:.3g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, help="of contact.py --timed, all from one device")
    parser.add_argument("--into", type=Path, default=choice.HERE, help="folder of the tables")
    options = parser.parse_args()
    lines = [json.loads(line) for file in options.files for line in file.read_text().splitlines()]
    archs = {line["machine"]["cuda"]["arch"] for line in lines if "machine" in line}
    if len(archs) != 1:
        raise SystemExit(f"files: expected those of one kind of device, got {sorted(archs)}")
    path = options.into / f"{archs.pop()}.json"
    rows = measured(line for line in lines if "machine" not in line)
    merged(path, rows)
    print(f"{path}: {len(rows)} rows measured")


if __name__ == "__main__":
    main()
