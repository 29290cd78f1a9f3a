"""Lines of code by feature in two revisions, so that growth by new features is told from growth of what was there:

python benchmarks/lines.py [BASE [REVISION]] [--out FILE.md]. A file belongs to the first row of `FEATURES` whose
pattern its path has. A new feature is one that BASE did not have; what old files gained since counts as theirs.
"""

from __future__ import annotations

import argparse
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
BASE = "6526543"
AREAS = ("fastvoc", "kernels", "csrc", "tests")
SUFFIXES = (".py", ".h", ".cpp", ".cu", ".cuh")


class Feature(NamedTuple):
    """What files are for whose path has `pattern` somewhere."""

    name: str
    new: bool
    pattern: re.Pattern[str]


def _feature(name: str, pattern: str, *, new: bool = False) -> Feature:
    return Feature(name, new, re.compile(pattern))


FEATURES = (
    _feature(
        "VITS and Piper voices, files of ONNX",
        r"piper|vits|onnx|cli/speak|front_ends|styled|speakers|^fastvoc/nn/(beside|noise|weights)\b",
        new=True,
    ),
    _feature("RVC", r"rvc|nsf_hifigan|models/sources", new=True),
    _feature("Kokoro", r"kokoro|adain|depthwise|nn/blocks", new=True),
    _feature(
        "DAC and SNAC",
        r"(^|[/_])dac|(^|[/_])snac|whole_codec|orpheus|factorised|snaked|local_attention|nn/grouped|compat/codebooks"
        r"|models/levels|cli/codes|code_file|test_codes",
        new=True,
    ),
    _feature("Mimi and attention", r"mimi|attention|attend|split_rvq", new=True),
    _feature("XTTS", r"xtts", new=True),
    _feature("writing ONNX", r"exporting|export", new=True),
    _feature("decoders inside other packages' models", r"patching|other_packages", new=True),
    _feature("Ray", r"(^|/|_)ray(/|_)|tests/cluster", new=True),
    _feature("training of Vocos", r"vocos_trained|training/(generators|objective|resolutions|test_vocos)", new=True),
    _feature("phases and mels in rounds", r"mel_rounds|toom_cook_choice|nn/toom_cook|square_conv|paired", new=True),
    _feature(
        "other rates and formats of sound", r"resampl|test_rates|sound/(formats|loudness)|formats|delivery", new=True
    ),
    _feature("mels read by their sound", r"mel_doctor|pitch", new=True),
    _feature("watching a service", r"runtime/stats\.|test_stats\.|^fastvoc/metrics\.|recorders", new=True),
    _feature(
        "tables of choices, estimated costs", r"choice|cost|roofline|bench/(report|svg)|bench_page|cli/ops", new=True
    ),
    _feature("the faults that tests must find", r"mutants", new=True),
    _feature("ops", r"^(kernels|csrc)/|/ops/|triton|cuda|/op_c|native|packing|registry|library|pages|stream_kernels"),
    _feature("networks", r"/(models|nn)/|layer_calls"),
    _feature("formats and files", r"checkpoint|loading|hub|published|model_files|origins|_files\.|load_dtype"),
    _feature("signatures of other packages", r"compat"),
    _feature("streams, pieces and graphs", r"stream|pieces|graph|capture|segments|long"),
    _feature("codes", r"ecdc|codec|compression|coder|integer_lm"),
    _feature("commands", r"/cli/|bench|command_line"),
    _feature("training", r"/training/"),
    _feature("sound", r"audio|mel|pcm|wav|sound/"),
    _feature("the ground, and tests of the whole", r"^(fastvoc|tests)/"),
)


def feature_of(path: str) -> Feature:
    """The feature that a file belongs to. Raises LookupError where the table has none."""
    for feature in FEATURES:
        if feature.pattern.search(path):
            return feature
    raise LookupError(f"{path}: no feature has this path")


def counted(revision: str) -> dict[str, int]:
    """Lines of each file of a revision, of the working tree where it is empty."""
    words = ["git", "grep", "-c", "", *([revision] if revision else []), "--", *AREAS]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    pairs = (line.removeprefix(f"{revision}:").rsplit(":", 1) for line in done.stdout.splitlines())
    return {path: int(lines) for path, lines in pairs if path.endswith(SUFFIXES)}


def table(base: str, revision: str) -> str:
    """The lines of both, as a table of Markdown."""
    before, now = counted(base), counted(revision)
    sums: Counter[tuple[str, str, bool]] = Counter()
    for files, is_now in ((before, False), (now, True)):
        for path, lines in files.items():
            feature = feature_of(path)
            if feature.new and not is_now:
                raise LookupError(f"{path}: {base} has it, so that {feature.name!r} is not new")
            sums[feature.name, path.partition("/")[0], is_now] += lines
    rows = [f"| feature | {' | '.join(AREAS)} |", "|---" * (len(AREAS) + 1) + "|"]
    for new in (False, True):
        names = [f.name for f in FEATURES if f.new is new]
        rows += [_row(name, [name], sums, new) for name in names]
        rows.append(_row("**all new features**" if new else "**all features that were there**", names, sums, new))
    rows.append(_row("**all**", [f.name for f in FEATURES], sums, False))
    return "\n".join(rows)


def _row(title: str, names: list[str], sums: Counter[tuple[str, str, bool]], new: bool) -> str:
    cells = []
    for area in AREAS:
        was, are = (sum(sums[name, area, is_now] for name in names) for is_now in (False, True))
        cells.append("" if was == are == 0 else f"{are:,}" if new else f"{was:,} → {are:,}")
    return f"| {title} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", nargs="?", default=BASE)
    parser.add_argument("revision", nargs="?", default="", help="the working tree when left out")
    parser.add_argument("--out", type=Path, help="where the table goes, too")
    given = parser.parse_args()
    made = table(given.base, given.revision)
    print(made)
    if given.out:
        head = f"# Lines by feature, {given.base} and after\n\nBy `benchmarks/lines.py`, of {', '.join(SUFFIXES)}.\n"
        given.out.write_text(f"{head}\n{made}\n")


if __name__ == "__main__":
    main()
