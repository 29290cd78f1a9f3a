"""Compiles the libraries: one pool over the units of all of them, the longest first, each in its own time and place.

A unit is compiled again when its command or a file that it was made of has changed. Where g++ compiles, the headers
that most units of a library begin with are compiled once for all (`PRECOMPILED`). Where ccache is installed, it keeps
objects and headers.
"""

from __future__ import annotations

import os
import shlex
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from native_toolchain import ISAS, ROOT, Toolchain, Unavailable, find_cxx, run, target_machine, toolchain

SUFFIX = {"cpu": ".cpp", "coder": ".cpp", "cuda": ".cu"}
# Library, beginning of the names of its units, header that they begin with.
PRECOMPILED = [("cpu", "isa_", "std.h"), ("cpu", "", "glue.h")]
# Sources that check and hand over are compiled so many at once: what they include takes longer than they do.
JOINED = 13
# What the kernels, which are vectors by themselves, want of g++'s -O3: short loops unrolled, and their few plain loops
# as vectors. The rest of it is copies of large functions.
KERNELS = ["-O2", "-fpeel-loops", "-fvect-cost-model=dynamic", "-fversion-loops-for-strides", "-funswitch-loops"]
# Without this ccache passes on what reads a precompiled header; its content is compared all the same.
KEEPING = ["env", "CCACHE_SLOPPINESS=pch_defines,time_macros"]
# Seconds that a unit takes, roughly, by library and the beginning of its name, until it is known.
EXPECTED = [("cuda", "", 60), ("cpu", "isa_avx512", 40), ("cpu", "isa_", 15), ("coder", "", 10), ("cpu", "", 8)]


def optimisation(library: str, stem: str, gcc: bool = True) -> list[str]:
    """What computes is worth the compiler's time; what checks and hands over is not. Few run the portable on x86."""
    if (library == "cpu" and not stem.startswith("isa_")) or (library, stem) == ("coder", "module"):
        return ["-O1"]
    if library != "cpu" or target_machine() != "x86_64" or not gcc:
        return ["-O3"]
    return ["-O2"] if stem.startswith("isa_portable") else KERNELS


def isa_of(stem: str) -> str | None:
    """The instruction set of a unit `isa_<set>_<numbers>`; None for one that is compiled once."""
    return stem.removeprefix("isa_").rpartition("_")[0] if stem.startswith("isa_") else None


@dataclass
class Unit:
    """One run of the compiler."""

    library: str
    source: Path
    output: Path
    command: list[str]
    header: Unit | None = None  # compiled before, as a part of this one

    @property
    def name(self) -> str:
        return f"{self.library}/{self.source.name}"

    def expected(self) -> float:
        took = self.output.with_suffix(".seconds")
        if took.exists():
            return float(took.read_text())
        return next(s for lib, stem, s in EXPECTED if lib == self.library and self.source.name.startswith(stem))

    def files(self) -> list[Path] | None:
        """What the output was made of; None where that is not known."""
        made_of = self.output.with_suffix(".d")
        if not made_of.exists():
            return None
        own = [Path(name) for name in made_of.read_text().replace("\\\n", " ").partition(":")[2].split()]
        if self.header is None:
            return own
        its = self.header.files()
        return None if its is None else own + its

    def is_done(self) -> bool:
        said, files = self.output.with_suffix(".command"), self.files()
        if files is None or not self.output.exists() or not said.exists():
            return False
        if said.read_text() != shlex.join(self.command):
            return False
        made = self.output.stat().st_mtime
        return all(file.exists() and file.stat().st_mtime < made for file in files)

    def compile(self) -> float | None:
        """Runs the compiler where it must; the seconds it took."""
        if self.is_done():
            return None
        said = self.output.with_suffix(".command")
        said.unlink(missing_ok=True)  # what an interrupted compiler leaves is not taken for an object
        made_of = self.output.with_suffix(".d")
        start = time.monotonic()
        run([*self.command, "-MMD", "-MF", str(made_of), "-c", str(self.source), "-o", str(self.output)])
        took = time.monotonic() - start
        said.write_text(shlex.join(self.command))
        self.output.with_suffix(".seconds").write_text(f"{took:.1f}")
        return took


@dataclass
class Library:
    """A library on its way: its units and what they will be linked to."""

    name: str
    target: Path
    objects: Path
    tools: Toolchain
    units: list[Unit] = field(default_factory=list)
    failure: str | None = None

    def finish(self, before: dict[str, Any]) -> dict[str, Any]:
        """The facts of the library, or why it is left out, in which case its file is removed."""
        try:
            return self.link(before)
        except Unavailable as error:
            self.target.unlink(missing_ok=True)
            return {"left_out": str(error)}

    def link(self, before: dict[str, Any]) -> dict[str, Any]:
        """Links the objects unless the target is newer than all of them and `before` has the same facts; those facts.

        Raises Unavailable where a unit or the link failed.
        """
        if self.failure:
            raise Unavailable(self.failure)
        outputs = [unit.output for unit in self.units]
        newest = max(output.stat().st_mtime for output in outputs)
        if self.tools.facts == before and self.target.exists() and self.target.stat().st_mtime > newest:
            return self.tools.facts
        link = self.tools.link
        for name in self.tools.stand_ins:  # an empty library, so that the real one is named as a dependency
            empty = ["-xc", os.devnull, "-o", str(self.objects / f"lib{name}.so")]
            run([str(find_cxx()), "-shared", f"-Wl,-soname,lib{name}.so", *empty])
            link = ["-Xlinker", "--no-as-needed", f"-L{self.objects}", f"-l{name}", *link]
        partial = f"{self.target}.partial"
        run([*self.tools.compile, "-shared", *map(str, outputs), "-o", partial, *link])
        os.replace(partial, self.target)
        return self.tools.facts


def plan(name: str, target: Path, objects: Path, isas: Sequence[str] = tuple(ISAS)) -> Library:
    """A library and its units, of the CPU's those for `isas`. Raises Unavailable where it cannot be built here."""
    sources = sorted((ROOT / "csrc" / name).glob(f"*{SUFFIX[name]}"))
    if not sources:
        raise Unavailable(f"csrc/{name} holds no {SUFFIX[name]} file")
    library = Library(name, target, objects, toolchain(name))
    if name == "cpu":
        sources = [source for source in sources if isa_of(source.stem) in (None, *isas)]
        library.tools.facts["isas"] = list(isas)
    objects.mkdir(parents=True, exist_ok=True)
    sources = joined(sources, objects) if name == "cpu" else sources
    ccache = shutil.which("ccache")
    command = [*([*KEEPING, ccache] if ccache else []), *library.tools.compile]
    gcc = "clang" not in library.tools.facts["compiler"]
    headers: dict[str, Unit] = {}
    for source in sources:
        unit = Unit(name, source, objects / f"{source.stem}.o", [*command, *optimisation(name, source.stem, gcc)])
        if name == "cpu" and source.stem == "dispatch":
            unit.command.append(f"-DFASTVOC_BEST_ISA={list(ISAS).index(isas[-1])}")
        wanted = next((h for lib, stem, h in PRECOMPILED if lib == name and source.stem.startswith(stem)), None)
        header = ROOT / "csrc" / name / wanted if wanted else None
        if wanted and header and gcc and header.exists():
            unit.command += ["-fpch-preprocess"] if ccache else []
            unit.header = headers.setdefault(wanted, precompiled(unit, header))
            unit.command += ["-include", str(unit.header.source)]
        library.units.append(unit)
    return library


def including(file: Path, files: Sequence[Path]) -> Path:
    """Makes a file that includes those, unless it is there."""
    text = "".join(f'#include "{each.relative_to(ROOT / "csrc")}"\n' for each in files)
    if not file.exists() or file.read_text() != text:
        file.write_text(text)
    return file


def joined(sources: Sequence[Path], folder: Path) -> list[Path]:
    """The kernels' sources and the dispatch's as they are, of the others files in a folder that include some each."""
    alone = [source for source in sources if source.stem.startswith("isa_") or source.stem == "dispatch"]
    rest = [source for source in sources if source not in alone]
    groups = [rest[i : i + JOINED] for i in range(0, len(rest), JOINED)]
    files = [folder / f"ops_{group[0].stem}_to_{group[-1].stem}.cpp" for group in groups]
    return alone + [including(*pair) for pair in zip(files, groups, strict=True)] if len(rest) > 1 else [*sources]


def precompiled(unit: Unit, header: Path) -> Unit:
    """The unit that compiles a header for units of this one's command: a file beside its output, which includes it."""
    file = including(unit.output.parent / header.name, [header])
    command = [*unit.command, "-x", "c++-header"]
    if command[: len(KEEPING)] == KEEPING:
        # It holds what the headers looked like, which `#pragma once` compares; ccache sees no change of a comment.
        read = sorted((ROOT / "csrc").glob("*/*.h"))
        command.insert(len(KEEPING), f"CCACHE_EXTRAFILES={os.pathsep.join(map(str, read))}")
    return Unit(unit.library, file, file.with_suffix(".h.gch"), command)


def build(libraries: list[Library]) -> None:
    """Compiles all units of all libraries; a failure ends its own library alone, whose `failure` says why."""
    units = [unit for library in libraries for unit in library.units]
    headers = {id(unit.header): unit.header for unit in units if unit.header}
    first = sorted(headers.values(), key=Unit.expected, reverse=True)
    rest = sorted(units, key=Unit.expected, reverse=True)
    owner = {library.name: library for library in libraries}
    with ThreadPoolExecutor(int(os.environ.get("MAX_JOBS") or os.cpu_count() or 1)) as pool:
        ready: dict[int, Future[None]] = {}

        def compile_unit(unit: Unit) -> None:
            if unit.header:
                ready[id(unit.header)].result()
            library = owner[unit.library]
            if library.failure:
                return
            try:
                took = unit.compile()
            except Unavailable as error:
                library.failure = library.failure or str(error)
                print(f"fastvoc: {unit.name}: failed", flush=True)
                return
            if took is not None:
                print(f"fastvoc: {unit.name}: {took:.1f} s", flush=True)

        for unit in first:
            ready[id(unit)] = pool.submit(compile_unit, unit)
        for future in [pool.submit(compile_unit, unit) for unit in rest]:
            future.result()
