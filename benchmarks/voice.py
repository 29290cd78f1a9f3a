"""Quality of a checkpoint in copy synthesis: PESQ-wb (at 16 kHz), STOI and mel L1 (under the model's own front end).

python benchmarks/voice.py hifigan --clips speech/valid                     # the embedded voice
python benchmarks/voice.py runs/v2/g_00010000 --clips speech/valid --out benchmarks/results/voice.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from harness import Table

import fastvoc
from fastvoc.runtime.io import atomic_path
from fastvoc.sound.mel import MelSpectrogram
from fastvoc.training.data import find_clips, read_clip
from fastvoc.training.metrics import mel_l1, pesq_wb, stoi
from fastvoc.vocoder import Vocoder

MEASURES = ("pesq_wb", "stoi", "mel_l1")


def measure(voc: Vocoder, path: Path) -> dict[str, Any]:
    """The measures of one clip against its copy."""
    rate = voc.sample_rate
    wav = read_clip(path, rate)
    copy = voc(voc.mel(wav))
    row: dict[str, Any] = {"clip": path.stem, "seconds": round(len(wav) / rate, 2)}
    row["pesq_wb"] = pesq_wb(wav, copy, rate)
    row["stoi"] = stoi(wav, copy, rate)
    row["mel_l1"] = mel_l1(wav, copy, MelSpectrogram(voc.mel_config))
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="what fastvoc.load takes: a name, a file, a folder, a hub id")
    parser.add_argument("--clips", required=True, type=Path, help="folder or list of held-out clips")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    voc = fastvoc.load(args.model)
    rows = [measure(voc, path) for path in find_clips(args.clips)]
    means = {name: fmean(row[name] for row in rows) for name in MEASURES}
    table = Table("clip", "seconds", *MEASURES, title=f"{args.model}, {len(rows)} clips")
    for row in rows:
        table.add_row(row["clip"], str(row["seconds"]), *(f"{row[name]:.3f}" for name in MEASURES))
    table.add_row("mean", "", *(f"{means[name]:.3f}" for name in MEASURES))
    table.print()
    if args.out:
        result = {"model": str(args.model), "torch": torch.__version__, "mean": means, "clips": rows}
        with atomic_path(args.out) as temporary:
            temporary.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
