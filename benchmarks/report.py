"""The short table that benchmarks/gpu.sh ends with, from the results of its parts, and one file of each part's.

python benchmarks/report.py build/gpu/results models benchmarks/results/nvidia-h200
"""

from __future__ import annotations

import argparse
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from table import Table

PARTS = ("first", "build", "test", "ops", "models", "rivals", "sanitize")


def read(folder: Path, part: str) -> list[tuple[str, dict[str, Any]]]:
    """Name and content of a part's results."""
    found = {path.stem: json.loads(path.read_text()) for path in folder.glob(f"{part}-*.json")}
    found |= {path.stem: lines(path) for path in folder.glob(f"{part}-*.jsonl")}  # what did not end
    return sorted(found.items())


def lines(path: Path) -> dict[str, Any]:
    """The rows that a driver had when it was stopped; the last line may be a part of one."""
    result: dict[str, Any] = {"machine": {}, "rows": []}
    for line in path.read_text().splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            break
        if "machine" in row:
            result |= row
        else:
            result["rows"].append(row)
    return result


def joined(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each model and shape of rows that have an implementation each; ratios are those of the medians."""
    table: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        key = tuple(row.get(name) for name in ("model", "seconds", "batch", "dtype"))
        if key not in table:
            table[key] = {**row, "impls": dict(row["impls"]), "failed": dict(row.get("failed", {}))}
            continue
        known = table[key]
        known["failed"] |= row.get("failed", {})
        first = next(iter(known["impls"].values()), None)
        for impl, r in row["impls"].items():
            known["impls"][impl] = {**r, "speedup": first["median_s"] / r["median_s"] if first else 1.0}
    return list(table.values())


def show_failed(rows: list[dict[str, Any]]) -> None:
    """Why rows are missing."""
    for row in rows:
        for impl, reason in row.get("failed", {}).items():
            of = row.get("layer") or f"{row['model']} {row['batch']} x {row['seconds']:g} s"
            print(f"failed: {of} {impl}: {reason}")


def tests(folder: Path) -> list[dict[str, Any]]:
    """What pytest counted, file by file."""
    rows = []
    for path in sorted(folder.glob("test-*.xml")):
        suite = next(ElementTree.parse(path).iter("testsuite"))
        counts = {key: int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")}
        rows.append({"file": path.stem.removeprefix("test-"), **counts, "seconds": float(suite.get("time", 0))})
    return rows


def show_tests(rows: list[dict[str, Any]]) -> None:
    table = Table("gpu tests", "tests", "failures", "errors", "skipped", "seconds")
    for row in rows:
        table.add_row(*(f"{v:.1f}" if isinstance(v, float) else str(v) for v in row.values()))
    table.print()


def show_ops(results: list[tuple[str, dict[str, Any]]]) -> None:
    """The layers that take most time, and how near each implementation comes to the ceiling over all of them."""
    for name, result in results:
        if not result["rows"]:
            continue
        totals: dict[str, list[float]] = {}
        table = Table("layer", "op", "impl", "ms", "% of ceiling", title=name)
        best = [
            (min(row["impls"].values(), key=lambda r: r["median_s"])["median_s"], row)
            for row in result["rows"]
            if row["impls"]
        ]
        slowest = sorted(best, key=lambda pair: -pair[0])[:10]
        for _, row in slowest:
            for impl, r in row["impls"].items():
                table.add_row(row["layer"], row["op"], impl, f"{1e3 * r['median_s']:.4f}", f"{100 * r['ceiling']:.0f}")
        for row in result["rows"]:
            for impl, r in row["impls"].items():
                total = totals.setdefault(impl, [0.0, 0.0])
                total[0] += r["median_s"]
                total[1] += r["ceiling"] * r["median_s"]
        table.print()
        for impl, (seconds, floor) in totals.items():
            print(f"{name} {impl}: {1e3 * seconds:.2f} ms in all, {100 * floor / seconds:.0f} % of the ceiling")


def show_models(rows: list[dict[str, Any]]) -> None:
    table = Table("model", "shape", "impl", "ms", "x real time", "x the first", "over the best rival")
    for row in rows:
        for impl, r in row["impls"].items():
            over = f"{row['over_best']:.2f}" if row.get("best") == impl and row.get("over_best") else ""
            figures = f"{1e3 * r['median_s']:.3f}", f"{r['real_time']:.0f}", f"{r['speedup']:.2f}"
            table.add_row(row["model"], f"{row['batch']} x {row['seconds']:g} s", impl, *figures, over)
    table.print()


def show_layers(results: list[tuple[str, dict[str, Any]]]) -> None:
    """Layers that are further from float64 than torch's, those that failed, and what all of a model's take."""
    rows = [row for _, result in results for row in result.get("rows", ()) if "impl" in row]
    of = {(row["layer"], row["dtype"], row["shape"], row["impl"]): row for row in rows}
    right: dict[str, int] = {}
    totals: dict[tuple[str, str, str, str], float] = {}
    for (layer, dtype, shape, impl), row in of.items():
        if "failed" in row:
            print(f"failed: {layer} {dtype} {shape} {impl}: {row['failed']}")
            continue
        if "seconds" in row:
            key = row["model"], dtype, shape, impl
            totals[key] = totals.get(key, 0.0) + row["seconds"]
        theirs = of.get((layer, dtype, shape, "torch"), {}).get("error")
        if "error" in row and theirs is not None:
            if row["error"] <= 1.5 * theirs + 1e-6:
                right[impl] = right.get(impl, 0) + 1
            else:
                print(f"WRONG: {layer} {dtype} {shape} {impl}: {row['error']:.2e} from float64, torch {theirs:.2e}")
    for impl, count in right.items():
        print(f"{impl}: {count} layers as near to float64 as torch's")
    if totals:
        table = Table("model", "dtype", "shape", "impl", "ms of all layers")
        for key, seconds in totals.items():
            table.add_row(*key, f"{1e3 * seconds:.4f}")
        table.print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("part", choices=[*PARTS, "all"])
    parser.add_argument("folder", type=Path, help="where one file for each part goes")
    args = parser.parse_args()
    for part in PARTS if args.part == "all" else [args.part]:
        whole: Any = None
        if part == "first" and (results := read(args.results, part)):
            whole = {
                "machine": next(filter(None, (r.get("machine") for _, r in results)), {}),
                "results": dict(results),
            }
            show_layers(results)
            models = [row for _, result in results for row in result.get("rows", ()) if "impls" in row]
            show_models(joined(models))
            show_failed(models)
        elif part == "build" and (args.results / "build.json").exists():
            whole = json.loads((args.results / "build.json").read_text())
            table = Table("build", "")
            for key, value in whole.items():
                table.add_row(key, str(value))
            table.print()
        elif part == "test" and (rows := tests(args.results)):
            whole = rows
            show_tests(rows)
        elif part in ("ops", "models", "rivals") and (results := read(args.results, part)):
            rows = [row for _, result in results for row in result["rows"]]
            whole = {"machine": results[-1][1]["machine"], "rows": rows if part == "ops" else joined(rows)}
            if part == "ops":
                show_ops(results)
            else:
                show_models(whole["rows"])
            show_failed(whole["rows"])
        elif part == "sanitize":
            whole = {}
            for log in sorted(args.results.parent.glob("logs/sanitize-*.log")):
                said = [line for line in log.read_text().splitlines() if "ERROR SUMMARY" in line or "passed" in line]
                whole[log.stem] = said
                print(f"{log.stem}: {'; '.join(said) or 'no summary'}")
        if whole:
            args.folder.mkdir(parents=True, exist_ok=True)
            (args.folder / f"{part}.json").write_text(json.dumps(whole, indent=1) + "\n")


if __name__ == "__main__":
    main()
