"""Mimi at its published size in int8 against float32: signal to noise of the sound, and how many codes are the same.

python benchmarks/mimi_int8.py speech/valid --calibrate speech/train --write codecs-avx2

The weights are random, since no published ones are at hand, without biases and with layer scales of 1, so that the
sound depends on what the transformer, which is what computes in int8, makes of the codes.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import harness
import torch
from precision import decibels
from table import Table
from zoo_mimi import BOOKS

import fastvoc
from fastvoc.checkpoints import Checkpoint
from fastvoc.loading import loaded, save
from fastvoc.models.mimi import Mimi
from fastvoc.models.mimi_config import MIMI
from fastvoc.quantization import calibrate
from fastvoc.training.data import find_clips, read_clip

SHOWN, HEARD = 31.0, 3.0  # seconds that calibration sees, and of each clip


def random_mimi() -> Checkpoint:
    """Weights under which a signal keeps about its size, and every codebook refines the one before."""
    torch.manual_seed(0)
    model = Mimi(MIMI)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            parameter.data.fill_(0.0 if name.endswith("bias") else 1.0)
        elif "codebooks" in name:
            parameter.data.normal_(0.0, 0.7 * 0.8 ** int(name.rsplit(".", 1)[1]))
        else:
            up = name.startswith("decoder.") and parameter.dim() == 3 and parameter.shape[0] > parameter.shape[1]
            fan = 2 * parameter.shape[0] if up else parameter[0].numel()
            parameter.data.normal_(0.0, fan**-0.5)
    return Checkpoint(MIMI, dict(model.state_dict()), "random")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, help="folder or list of held-out clips of speech")
    parser.add_argument("--calibrate", type=Path, required=True, help="folder or list of other clips")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--write", help="the name of a result file to merge into")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    checkpoint = random_mimi()
    whole = loaded(checkpoint)
    shown, seconds = [], 0.0
    for path in find_clips(args.calibrate):
        shown.append(read_clip(path, whole.sample_rate))
        seconds += len(shown[-1]) / whole.sample_rate
        if seconds > SHOWN:
            break
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "int8.safetensors"
        save(calibrate(checkpoint, shown), file)
        int8: Any = fastvoc.load(file)
    found, same, heard = [], [], 0.0
    for path in find_clips(args.clips):
        wav = read_clip(path, whole.sample_rate)[: int(HEARD * whole.sample_rate)]
        codes = whole.encode(wav, codebooks=BOOKS)
        found.append(decibels(int8.decode(codes), whole.decode(codes)))
        same.append(float((int8.encode(wav, codebooks=BOOKS).codes == codes.codes).double().mean()))
        heard += len(wav) / whole.sample_rate
    row: dict[str, Any] = {"model": "mimi-decode", "dtype": "int8", "batch": 1, "seconds": round(heard, 1)}
    row |= {"clips": len(found), "least_db": min(found), "mean_db": statistics.fmean(found), "same_codes": min(same)}
    table = Table("clips", "dB, least", "dB, mean", "codes of float32, least")
    noise = [f"{row[key]:.1f}" for key in ("least_db", "mean_db")]
    table.add_row(str(len(found)), *noise, f"{100 * row['same_codes']:.2f} %")
    table.print()
    print(*int8.notes)
    if args.write:
        print(f"written: {harness.merge(args.write, 'cpu', [row])}")


if __name__ == "__main__":
    main()
