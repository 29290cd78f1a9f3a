"""What bfloat16 and int8 cost in precision and gain in time: speech through a vocoder, against its float32.

python benchmarks/precision.py speech/valid --calibrate speech/train      # the embedded voice
python benchmarks/precision.py clips --calibrate recordings --model generator_v1

Signal to noise: energy of the samples in float32 over that of the difference, clip by clip. Times: all clips one after
another, in turn with the other dtypes.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import harness
import torch
from table import Table
from torch import Tensor

import fastvoc
from fastvoc.loading import read_checkpoint
from fastvoc.quantization import calibrate
from fastvoc.training.data import find_clips, read_clip
from fastvoc.vocoder import Vocoder

SECONDS = 90.0  # of speech that calibration sees


def quantised(model: str, whole: Vocoder, clips: Path) -> Vocoder:
    """The int8 form of a model, calibrated on the first clips."""
    inputs, seconds = [], 0.0
    for path in find_clips(clips):
        wav = read_clip(path, whole.sample_rate)
        inputs.append(whole.mel(wav))
        seconds += len(wav) / whole.sample_rate
        if seconds > SECONDS:
            break
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "int8.safetensors"
        fastvoc.save(calibrate(read_checkpoint(model), inputs), target)
        return fastvoc.load(target)


def decibels(ours: Tensor, meant: Tensor) -> float:
    ours, meant = ours.double(), meant.double()
    return float(10 * torch.log10(meant.square().sum() / (ours - meant).square().sum()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, help="folder or list of held-out clips of speech")
    parser.add_argument("--calibrate", type=Path, required=True, help="folder or list of other clips, for int8")
    parser.add_argument(
        "--model", default="hifigan", help="what fastvoc.load takes: a name, a file, a folder, a hub id"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--budget", type=float, default=10.0, help="seconds for the times")
    parser.add_argument("--write", action="store_true", help="write the result file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    whole = fastvoc.load(args.model)
    vocoders = {"fp32": whole, "bf16": fastvoc.load(args.model, dtype="bf16", backend="cpp")}
    vocoders["int8"] = quantised(args.model, whole, args.calibrate)
    mels = [whole.mel(read_clip(path, whole.sample_rate)) for path in find_clips(args.clips)]
    seconds = sum(mel.shape[1] for mel in mels) * whole.hop / whole.sample_rate

    def run(voc: Vocoder) -> list[Tensor]:
        return [voc(mel, check=False) for mel in mels]

    meant = run(whole)
    times = harness.interleaved({name: lambda voc=voc: run(voc) for name, voc in vocoders.items()}, args.budget)
    table, rows = Table("dtype", "dB, least", "dB, mean", "x real time", "over fp32"), []
    for name, voc in vocoders.items():
        found = [decibels(ours, wav) for ours, wav in zip(run(voc), meant, strict=True)] if voc is not whole else []
        median = statistics.median(times[name])
        row: dict[str, Any] = {"model": args.model, "dtype": name, "clips": len(mels), "seconds": seconds}
        row |= {
            "median_s": median,
            "real_time": seconds / median,
            "over_fp32": harness.ratio(times["fp32"], times[name]),
        }
        if found:
            row |= {"least_db": min(found), "mean_db": statistics.fmean(found)}
        rows.append(row)
        noise = [f"{row[key]:.1f}" if key in row else "" for key in ("least_db", "mean_db")]
        table.add_row(name, *noise, f"{row['real_time']:.0f}", f"{row['over_fp32']:.2f}")
    table.print()
    print(*vocoders["int8"].notes)
    if args.write:
        print(f"written: {harness.write('precision', 'cpu', rows)}")


if __name__ == "__main__":
    main()
