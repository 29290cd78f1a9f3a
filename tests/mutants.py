"""Mutants: faults of one line, put into a copy of the tree one at a time, each of which the tests it names must find.

`python tests/mutants.py [WORD...]` runs those whose file or tests have one of the words, all without; `--out` writes a
table to a file as well. The exit status is 1 where a mutant survives, 2 where its text or its tests are not as stated.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 900  # seconds of one run of tests


class Stale(Exception):
    """A mutant that the tree has outgrown."""


@dataclass(frozen=True)
class Mutant:
    """`old`, which stands once in `file`, becomes `new`; `tests` of a tier, as pytest's arguments, must fail then."""

    file: str
    old: str
    new: str
    tests: str
    tier: str = "test"

    def applied(self, text: str) -> str:
        """The file's text with the fault. Raises Stale unless `old` stands there once."""
        if text.count(self.old) != 1:
            raise Stale(f"{self.file}: {self.old!r} stands there {text.count(self.old)} times, expected once")
        return text.replace(self.old, self.new)


MUTANTS = (
    # Triton's kernels
    Mutant("kernels/philox.py", "k1 = zero + (key >> 32)", "k1 = zero", "tests/ops/test_triton_ops.py -k nsf", "check"),
    Mutant(
        "kernels/nsf_source.py",
        "first = (position == 0) & (frame == 0)",
        "first = frame == 0",
        "tests/ops/test_triton_ops.py -k goes_on",
        "check",
    ),
    Mutant(
        "kernels/layer_norm.py",
        "tl.sqrt(variance + eps)",
        "tl.sqrt(variance + 1e-6)",
        "tests/ops/test_triton_ops.py -k layer_norm",
        "check",
    ),
    Mutant(
        "kernels/snake_aa.py",
        "0), 2 * length - 1)",
        "0), 2 * length - 2)",
        "tests/ops/test_triton_ops.py -k snake_aa",
        "check",
    ),
    Mutant(
        "kernels/rvq_decode.py", "code >= ENTRIES", "code > ENTRIES", "tests/ops/test_triton_ops.py -k flagged", "check"
    ),
    # C++
    Mutant("csrc/coder/arithmetic.h", "zero_ = ones_ > 0;", "zero_ = false;", "tests/test_coder.py"),
    Mutant(
        "csrc/coder/bits.h", "if (count > 0) bytes[written]", "if (count > 1) bytes[written]", "tests/test_coder.py"
    ),
    Mutant(
        "csrc/cpu/stream_rows.cpp",
        "if (channel == 1 && step == channels) {",
        "if (channel == 1) {",
        "tests/ops/test_stream_rows.py",
    ),
    Mutant(
        "csrc/cpu/nsf_source.cpp",
        "kept[i * (rows + 1)] += steps(i);",
        "kept[i * (rows + 1)] = steps(i);",
        "tests/ops/test_source_streams.py tests/ops/test_nsf_source.py",
    ),
    Mutant("csrc/cpu/rvq.cpp", "code < args.entries,", "code <= args.entries,", "tests/ops/test_rvq_decode.py"),
    Mutant("csrc/cpu/stream_sum.cpp", "return t < keeps ?", "return t + 1 < keeps ?", "tests/ops/test_stream_rows.py"),
    # CUDA C++
    Mutant("csrc/cuda/mrf_stage.cuh", "    fence_operands();\n", "", "tests/ops/test_cuda_stage.py -k 64", "check"),
    Mutant(
        "csrc/cuda/mrf_stage.cuh",
        "    if (!met) meet();\n",
        "    if (!met && false) meet();\n",
        "tests/ops/test_cuda_stage.py -k 64-one",
        "check",
    ),
    Mutant(
        "csrc/cuda/mrf_stage.cuh",
        "products_wait<1>();",
        "products_wait<2>();",
        "tests/ops/test_cuda_stage.py -k 64",
        "check",
    ),
    Mutant(
        "csrc/cuda/mrf_stage.cuh",
        "if (a.odd) group_sync(8, 256);",
        "if (a.odd && false) group_sync(8, 256);",
        "tests/ops/test_cuda_stage.py -k 32-odd",
        "check",
    ),
    # Models
    Mutant(
        "fastvoc/models/hift_parts.py",
        "on_device(lengths - count, x)",
        "on_device(lengths, x)",
        "tests/models/test_hift_parts.py -k shortened",
    ),
    Mutant(
        "fastvoc/models/speakers.py",
        "if not 0 <= n < len(table)]",
        "if not 0 <= n <= len(table)]",
        "tests/models/test_vits.py tests/models/test_rvc.py -k speaker",
    ),
    Mutant(
        "fastvoc/models/encodec.py",
        ".sqrt() + 1e-8)",
        ".sqrt() + 1e-6)",
        "tests/models/test_encodec.py -k silence",
    ),
    # Streams
    Mutant(
        "fastvoc/ops/stream.py",
        'have - 1 - (self.right if self.pad_mode == "reflect" else 0)',
        "have - 1",
        "tests/ops/test_op_streams.py",
    ),
    Mutant(
        "fastvoc/streams/pool.py",
        "        self._fed.pop(name, None)\n",
        "",
        "tests/streams/test_streams.py tests/streams/test_values.py",
    ),
    Mutant(
        "fastvoc/streams/delivery.py",
        "            made._count = numbers[0]\n",
        "            made._count = 0\n",
        "tests/streams/test_rates.py -k state",
    ),
    # Formats
    Mutant(
        "fastvoc/checkpoints/safetensors_file.py",
        "if start + position != size:",
        "if start + position > size:",
        "tests/checkpoints/test_safetensors_file.py",
    ),
    Mutant(
        "fastvoc/sound/formats.py",
        "torch.bucketize(doubled, bounds, right=True)",
        "torch.bucketize(doubled, bounds)",
        "tests/test_formats.py",
    ),
    Mutant(
        "fastvoc/checkpoints/text.py",
        "range(_MAX_REFERENCES + 1)",
        "range(_MAX_REFERENCES)",
        "tests/checkpoints/test_fields.py",
    ),
)


class Copy:
    """A copy of the tree, in which `fastvoc` is imported and C++ is built."""

    def __init__(self, folder: Path) -> None:
        self.tree, site = folder / "tree", folder / "site"
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
        built = [str(path.relative_to(ROOT)) for path in ROOT.glob("fastvoc/_[Cb]*") if path.is_file()]
        for name in [*filter(None, listed.stdout.split("\0")), *built]:
            if (ROOT / name).is_file():
                (self.tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.tree / name)
        self._take_objects()
        site.mkdir()
        (site / "fastvoc").symlink_to(self.tree / "fastvoc")
        (self.tree / "fastvoc" / "kernels").symlink_to(self.tree / "kernels")
        golden = os.environ.get("FASTVOC_GOLDEN") or str(ROOT.parent / "shared" / "golden")
        own = {"PYTHONPATH": str(site), "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1", "FASTVOC_GOLDEN": golden}
        self._environment = {**os.environ, **own, "PYTHONDONTWRITEBYTECODE": "1", "FASTVOC_BUILD": "cpu"}
        where = self._run(
            "-c", "import fastvoc, fastvoc.kernels as k; print(fastvoc.__file__, k.__file__)"
        ).stdout.split()
        if [Path(name).resolve() for name in where] != [self.tree / n / "__init__.py" for n in ("fastvoc", "kernels")]:
            raise Stale(f"the copy is not what would be tested, but {where}")

    def _take_objects(self) -> None:
        """What `build_native --inplace` has compiled, as if here, so that a mutant compiles what it changes alone."""
        objects = self.tree / "build" / "inplace"
        if (ROOT / "build" / "inplace").is_dir():
            shutil.copytree(ROOT / "build" / "inplace", objects)
        for text in (path for path in objects.rglob("*") if path.suffix in (".command", ".d")):
            before = text.stat()
            text.write_text(text.read_text().replace(str(ROOT), str(self.tree)))
            os.utime(text, ns=(before.st_atime_ns, before.st_mtime_ns))

    @contextmanager
    def mutated(self, mutant: Mutant) -> Iterator[None]:
        """The tree with a fault inside a `with` block."""
        path = self.tree / mutant.file
        before = path.read_text()
        path.write_text(mutant.applied(before))
        try:
            yield
        finally:
            path.write_text(before)

    def build(self) -> None:
        """Builds what has changed. Raises Stale where it does not compile."""
        done = self._run("-W", "ignore", "setup.py", "-q", "build_native", "--inplace", importable="")
        if done.returncode:
            raise Stale(f"the copy does not build:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")

    def test(self, tests: str, tier: str) -> str | None:
        """None where all pass, otherwise the first test that fails. Raises Stale for a choice without tests."""
        done = self._run("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"--tier={tier}", *shlex.split(tests))
        if done.returncode == 0:
            if re.search(r"\d+ passed", done.stdout) is None:
                raise Stale(f"{tests}: no test ran")
            return None
        if done.returncode in (4, 5):
            raise Stale(f"{tests}: {done.stdout[-500:]}{done.stderr[-500:]}")
        found = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
        return found[1].removeprefix("tests/") if found else f"exit status {done.returncode}"

    def _run(self, *words: str, importable: str | None = None) -> subprocess.CompletedProcess[str]:
        environment = self._environment if importable is None else {**self._environment, "PYTHONPATH": importable}
        command = [sys.executable, *words]
        try:
            return subprocess.run(
                command, cwd=self.tree, env=environment, capture_output=True, text=True, timeout=LIMIT
            )
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(command, 124, "", "")


def run(mutants: Sequence[Mutant]) -> Iterator[tuple[Mutant, str | None, float]]:
    """Every mutant, the test that found it, None where it survived, and the seconds that the tests took with it."""
    with tempfile.TemporaryDirectory(prefix="fastvoc-mutants-") as folder:
        copy = Copy(Path(folder).resolve())
        if any(m.file.startswith("csrc/") for m in mutants):
            copy.build()
        sound: set[tuple[str, str]] = set()
        for mutant in mutants:
            chosen = mutant.tests, mutant.tier
            if chosen not in sound and (failing := copy.test(*chosen)):
                raise Stale(f"{mutant.tests}: {failing} fails without a mutant")
            sound.add(chosen)
            with copy.mutated(mutant):
                if mutant.file.startswith("csrc/"):
                    copy.build()
                start = time.monotonic()
                found = copy.test(*chosen)
                took = time.monotonic() - start
            if mutant.file.startswith("csrc/"):
                copy.build()
            yield mutant, found, took


def row(mutant: Mutant, found: str | None, took: float) -> str:
    """A line of the table."""
    texts = (" ".join(text.split()).replace("|", "\\|") for text in (mutant.old, mutant.new))
    change = " -> ".join(f"`{text}`" if text else "nothing" for text in texts)
    return f"| {mutant.file} | {change} | {mutant.tier} | {f'`{found}`' if found else 'SURVIVED'} | {took:.0f} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="of the files or tests of mutants to run; all without")
    parser.add_argument("--out", type=Path, help="where the table goes, too")
    given = parser.parse_args()
    chosen = [m for m in MUTANTS if not given.words or any(word in f"{m.file} {m.tests}" for word in given.words)]
    lines = ["| file | change | tier | found by | seconds |", "|---|---|---|---|---|"]
    print("\n".join(lines), flush=True)
    survived = 0
    try:
        for mutant, found, took in run(chosen):
            lines.append(row(mutant, found, took))
            survived += found is None
            print(lines[-1], flush=True)
    except Stale as error:
        print(error, file=sys.stderr)
        return 2
    summary = f"{len(chosen) - survived} of {len(chosen)} mutants were found by the tests that name them."
    print(f"\n{summary}")
    if given.out:
        given.out.write_text("\n".join(["# Mutants", "", summary, "", *lines]) + "\n")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
