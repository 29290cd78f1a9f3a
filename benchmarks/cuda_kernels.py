"""What nvcc makes of the CUDA kernels: registers, shared memory, spills, tensor-core share. Needs nvcc, no device.

`python benchmarks/cuda_kernels.py [--arch 90] [--kernel mrf-32]`; writes benchmarks/results/cuda_kernels.md without
arguments.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import subprocess
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import stage_cost

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "build/cuda_kernels"  # what was compiled once, by its sources
ARCHS = (80, 90, 100, 120)
BF16 = "fastvoc::cuda::BFloat16"


@dataclass(frozen=True)
class Kernel:
    """One instance of a kernel: its header, its name with template arguments and the type of its argument.

    `traffic` says what an output step reads of device memory, in bytes by channels C.
    """

    name: str
    header: str
    instance: str
    argument: str
    shared: str = "0"
    traffic: str = ""
    archs: tuple[int, ...] = ARCHS


def _chain(width: int, tile: str, kind: str = "Leaky", halo: int = 10) -> Kernel:
    name = f"mrf-{width}" + ("-snake" if kind == "Snake" else "") + ("-small" if tile.startswith("Small") else "")
    instance = f"chain_kernel<{BF16}, fastvoc::cuda::{tile}, fastvoc::cuda::ActKind::k{kind}>"
    once = "4 C a block" if width < 128 else "4 or 8 C a launch, 4 C a further layer"
    traffic = f"{once}, 4 C of the sum from the second block on"
    shared = f"fastvoc::cuda::{tile}::bytes<{BF16}>({halo})"
    return Kernel(name, "cuda/mrf_tiles.cuh", instance, f"fastvoc::cuda::ChainArgs<{BF16}>", shared, traffic)


def _stage(width: int, rows: int, columns: int, kind: str = "Leaky") -> Kernel:
    shape = f"fastvoc::cuda::StageShape<{width}, {columns}, {rows // 128}>"
    name = f"mrf-stage-{width}-{columns}x{rows}" + ("-snake" if kind == "Snake" else "")
    instance = f"stage_kernel<{shape}, fastvoc::cuda::ActKind::k{kind}>"
    traffic = "4 C a run of layers, twice that where a job has some columns; weights 2 K C^2 / rows"
    return Kernel(
        name, "cuda/mrf_stages.cuh", instance, "fastvoc::cuda::StageArgs", f"{shape}::bytes(50)", traffic, (90,)
    )


def _kernel(name: str, header: str, kernel: str, args: str, shared: int, traffic: str) -> Kernel:
    """`args` is the argument's type with its template arguments, which are those of the kernel too."""
    return Kernel(
        name, f"cuda/{header}.cuh", kernel + args[args.index("<") :], f"fastvoc::cuda::{args}", str(shared), traffic
    )


_STAGES = tuple((width, *shape) for width, shapes in stage_cost.SHAPES.items() for shape in shapes)
KERNELS = (
    _chain(16, "Tile16"),
    _chain(32, "Tile32"),
    _chain(64, "Tile64"),
    _chain(64, "Tile64", "Snake"),
    _chain(128, "Tile128", halo=50),
    _chain(128, "Tile128", "Snake", 50),
    _chain(128, "SmallTile128", halo=50),
    _chain(256, "Tile256", halo=50),
    _chain(256, "Tile256", "Snake", 50),
    _chain(256, "SmallTile256", halo=50),
    *(_stage(*shape) for shape in _STAGES),
    *(_stage(*shape, "Snake") for shape in _STAGES if shape[0] > 32),
    # Shared memory of the launches: convolutions of 7 taps, transforms of 1024, 512 channels, 8 books of 1024 by 128.
    _kernel(
        "conv-tile",
        "conv_tile",
        "conv_tile_kernel",
        f"ConvTileArgs<{BF16}>",
        12288 + 34816,
        "2 C_in a block of 64 outputs; weights 2 K C_in / 128 for each output",
    ),
    _kernel(
        "conv1d",
        "conv1d",
        "conv1d_kernel",
        "Conv1dArgs<float, float, float>",
        0,
        "4 K C_in from the cache; weights 4 K C_in / 8 for each output",
    ),
    _kernel("upsample", "upsample", "upsample_kernel", "UpsampleArgs<float>", 0, "as conv1d, with K / stride taps"),
    _kernel("stage-mean", "mrf_stages", "stage_mean_kernel", f"StageMeanArgs<{BF16}>", 0, "4 C a block"),
    _kernel("layer-norm", "layer_norm", "layer_norm_kernel", f"LayerNormArgs<{BF16}>", 16384, "2 K C, K = 1 or 7"),
    _kernel("group-pieces", "group_norm_act", "group_pieces_kernel", f"GroupNormArgs<{BF16}>", 1024, "4 C"),
    _kernel(
        "group-norm", "group_norm_act", "group_norm_kernel", f"GroupNormArgs<{BF16}>", 1024, "2 C, 4 C with an addend"
    ),
    _kernel("adain-pieces", "adain", "adain_pieces_kernel", f"AdaInArgs<{BF16}>", 1024, "4 C"),
    _kernel("adain", "adain", "adain_kernel", f"AdaInArgs<{BF16}>", 1024, "2 C"),
    _kernel("stft", "stft", "stft_kernel", "StftArgs<float>", 12288, "4 n_fft a frame, tables 12 n_fft a block"),
    _kernel(
        "istft-frames", "istft_head", "istft_frames_kernel", "IstftHeadArgs<float, float>", 24608, "4 n_fft a frame"
    ),
    _kernel("istft-gather", "istft_head", "istft_gather_kernel", "IstftHeadArgs<float, float>", 0, "8 n_fft / hop"),
    _kernel("nsf-scan", "nsf_source", "nsf_scan_kernel", "NsfSourceArgs<float>", 2048, "4 a frame"),
    _kernel("nsf-source", "nsf_source", "nsf_source_kernel", "NsfSourceArgs<float>", 0, "12 a frame"),
    _kernel("snake-aa", "snake_aa", "snake_aa_kernel", f"SnakeAaArgs<{BF16}>", 27648, "2 C (64 + 12) / 64"),
    _kernel("depthwise", "depthwise", "depthwise_kernel", f"DepthwiseArgs<{BF16}>", 8960, "2 C (64 + K - 1) / 64"),
    _kernel(
        "attend-turn", "attend", "turn_kernel", f"AttendArgs<{BF16}>", 0, "2 (H + 2 K) D of heads H, K of keys, D wide"
    ),
    *(
        Kernel(
            f"attend-{size}",
            "cuda/attend.cuh",
            f"attend_kernel<{BF16}, {size // 32}>",
            f"fastvoc::cuda::AttendArgs<{BF16}>",
            str(4 * (32 * (size + 32) + 32 * size + 32)),
            "4 D (window + 31) / 32 a head",
        )
        for size in (64, 128, 256)
    ),
    _kernel("lvc", "lvc", "lvc_kernel", f"LvcArgs<{BF16}>", 0, "2 K C_in from the cache; 2 K C_in / 8 for each output"),
    _kernel("conv2d", "conv2d", "conv2d_kernel", "Conv2dArgs<float>", 0, "as conv1d, with K time by K bands taps"),
    _kernel("rvq-decode", "rvq_decode", "rvq_decode_kernel", f"RvqDecodeArgs<{BF16}>", 0, "(8 + 2 D) a book"),
    _kernel("rvq-encode", "rvq_encode", "rvq_encode_kernel", "RvqEncodeArgs<float>", 20512, "4 N D / 8 a book"),
    Kernel(
        "lstm",
        "cuda/lstm.cuh",
        f"lstm_kernel<{BF16}, {BF16}, 8>",
        f"fastvoc::cuda::LstmArgs<{BF16}, {BF16}>",
        str(4 * 4 * 512 * 2 + 8 * (512 + 16) * 4),
        "4 H of the state a block, 16 H of the gates",
    ),
)


@dataclass(frozen=True)
class Report:
    """What the compiler and the disassembly say of one kernel."""

    kernel: str
    arch: int
    registers: int
    stack: int
    spilled: int
    shared: int
    instructions: int
    tensor: int

    @property
    def loop_share(self) -> float:
        """Tensor-core instructions as a share of those in the innermost loops that hold any."""
        return self.tensor / self.instructions if self.instructions else 0.0


def compile_kernel(kernel: Kernel, arch: int, folder: Path) -> tuple[Path, str]:
    """The cubin of one kernel, and what ptxas said; both are kept in `folder`, by their sources, and not made again."""
    text = (
        f'#include "{kernel.header}"\n'
        f"template __global__ void fastvoc::cuda::{kernel.instance}(const __grid_constant__ {kernel.argument});\n"
        f"__device__ char fastvoc_shared_bytes[{kernel.shared} + 1];\n"  # ptxas then says how many
    )
    digest = hashlib.sha256("".join([text, *_headers(kernel.header).values()]).encode()).hexdigest()[:16]
    stem = f"{kernel.name}-{arch}-{digest}"
    source, cubin, said = (folder / f"{stem}.{ending}" for ending in ("cu", "cubin", "txt"))
    if not said.exists():
        folder.mkdir(parents=True, exist_ok=True)
        source.write_text(text)
        command = [
            "nvcc",
            "-O3",
            "-std=c++20",
            "--expt-relaxed-constexpr",
            "-gencode=arch=compute_90a,code=sm_90a" if kernel.archs == (90,) else f"-arch=sm_{arch}",
            "-Xptxas",
            "-v",
            "-cubin",
        ]
        command += ["-I", str(ROOT / "csrc"), str(source), "-o", str(cubin)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{stem}: {done.stderr}")
        said.with_suffix(".partial").write_text(done.stderr)
        said.with_suffix(".partial").rename(said)
    return cubin, said.read_text()


def _headers(name: str, found: dict[str, str] | None = None) -> dict[str, str]:
    """The texts of a header of csrc and of all that it includes, by name."""
    found = {} if found is None else found
    path = ROOT / "csrc" / name
    if name not in found and path.exists():
        found[name] = path.read_text()
        for further in re.findall(r'^#include "(.+)"$', found[name], re.MULTILINE):
            _headers(further, found)
    return found


def measure(kernel: Kernel, arch: int, folder: Path) -> Report:
    """Compiles one kernel for one target and reads its report and its code."""
    cubin, said = compile_kernel(kernel, arch, folder)
    found = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", said)
    registers = re.search(r"Used (\d+) registers", said)
    shared = re.search(r"(\d+) bytes gmem", said)
    if found is None or registers is None or shared is None:
        raise RuntimeError(f"{kernel.name}: cannot read what ptxas said: {said}")
    total, tensor = hot_loop(sass(cubin))
    stack, stores, loads = map(int, found.groups())
    memory = int(shared.group(1)) - 1
    return Report(kernel.name, arch, int(registers.group(1)), stack, stores + loads, memory, total, tensor)


def sass(cubin: Path) -> list[tuple[int, str]]:
    """Addresses and instructions of a cubin."""
    text = subprocess.run([disassembler(), "-sass", str(cubin)], capture_output=True, text=True, check=True).stdout
    return [(int(at, 16), what) for at, what in re.findall(r"/\*([0-9a-f]{4,})\*/\s+(\S[^;]*);", text)]


def disassembler() -> str:
    """cuobjdump of the toolkit, else the one in Triton's package."""
    found = shutil.which("cuobjdump")
    if found:
        return found
    from importlib.util import find_spec

    spec = find_spec("triton")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("cuobjdump: neither the CUDA toolkit nor triton is installed")
    return str(Path(spec.origin).parent / "backends/nvidia/bin/cuobjdump")


def hot_loop(code: Sequence[tuple[int, str]]) -> tuple[int, int]:
    """Instructions, and those of tensor cores, in the innermost loop that holds most of the latter; (0, 0) without."""
    # HFMA2.MMA, by which ptxas moves constants, is none.
    tensors = [at for at, what in code if re.search(r"\b[A-Z]G?MMA\b", what)]
    exits = [at for at, what in code if re.search(r"\bEXIT\b", what)]
    loops = []
    for at, what in code:
        jump = re.search(r"\bBRA\b.*?0x([0-9a-f]+)", what)
        if jump and int(jump.group(1), 16) <= at:
            begin = int(jump.group(1), 16)
            held = bisect_right(tensors, at) - bisect_left(tensors, begin)
            # What waits for a barrier once more stands behind the end of the kernel and jumps back.
            if held and bisect_left(exits, begin) == bisect_left(exits, at):
                loops.append((begin, at, held))
    best = (0, 0)
    for begin, end, held in loops:
        inner = any(begin <= b and e <= end and (b, e) != (begin, end) for b, e, _ in loops)
        if not inner and held > best[1]:
            best = (sum(begin <= at <= end for at, _ in code), held)
    return best


def measure_all(kernels: Sequence[Kernel], archs: Sequence[int], jobs: int = 2) -> list[Report]:
    """The reports of all kernels for all targets."""
    with ThreadPoolExecutor(jobs) as pool:
        pairs = [(kernel, arch) for kernel in kernels for arch in archs if arch in kernel.archs]
        return list(pool.map(lambda pair: measure(*pair, KEPT), pairs))


def table(reports: Sequence[Report], kernels: Sequence[Kernel] = KERNELS) -> str:
    """The reports as a table in Markdown."""
    traffic = {kernel.name: kernel.traffic for kernel in kernels}
    rows = [
        "| kernel | sm | registers | spills | shared KB | tensor share of the hot loop | bytes read an output step |"
    ]
    rows.append("|---|---|---|---|---|---|---|")
    for r in reports:
        share = f"{r.tensor} of {r.instructions} ({r.loop_share:.0%})" if r.tensor else "-"
        rows.append(
            f"| {r.kernel} | {r.arch} | {r.registers} | {r.spilled} | {r.shared / 1024:.1f} | {share} |"
            f" {traffic[r.kernel]} |"
        )
    return "\n".join(rows) + "\n"


def main() -> None:
    """Prints the table, and keeps it when it is whole."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", type=int, action="append")
    parser.add_argument("--kernel", action="append")
    options = parser.parse_args()
    kernels = [k for k in KERNELS if not options.kernel or k.name in options.kernel]
    text = table(measure_all(kernels, options.arch or ARCHS))
    print(text)
    if not options.arch and not options.kernel:
        (ROOT / "benchmarks/results/cuda_kernels.md").write_text(text)


if __name__ == "__main__":
    main()
