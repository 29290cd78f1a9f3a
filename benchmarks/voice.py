"""Quality of checkpoints in copy synthesis of held-out clips, beside the mel itself turned back by Griffin and Lim.

python benchmarks/voice.py hifigan vocos-22k --clips speech/valid           # the embedded voices
python benchmarks/voice.py runs/v2/g_00010000 --clips speech/valid --out voice.json --pictures voices/

PESQ-wb (at 16 kHz), STOI, mel L1 (under the model's own front end), F0 error in cents where both sounds are voiced and
the part of frames that only one of them is voiced in. "same" is the clip against itself: the best that there is.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from pitch import pitch_error
from table import Table
from torch import Tensor

import fastvoc
from fastvoc.loading import loaded, read_checkpoint
from fastvoc.quantization import calibrate
from fastvoc.runtime.io import atomic_path
from fastvoc.sound.mel import MelConfig, MelSpectrogram, mel_filterbank
from fastvoc.training.data import find_clips, read_clip
from fastvoc.training.metrics import mel_l1, pesq_wb, stoi
from fastvoc.training.plots import plot_audio

MEASURES = ("pesq_wb", "stoi", "mel_l1", "f0_cents", "voicing")
PRECISIONS = ("fp32", "bf16", "int8")
_ROUNDS = 60

Copy = Callable[[Tensor], Tensor]


def measure(wav: Tensor, copied: Tensor, config: MelConfig) -> dict[str, float]:
    """The measures of a clip's copy, both [L]."""
    rate = config.sample_rate
    cents, voicing = pitch_error(wav, copied, rate)
    return {
        "pesq_wb": pesq_wb(wav, copied, rate),
        "stoi": stoi(wav, copied, rate),
        "mel_l1": mel_l1(wav, copied, MelSpectrogram(config)),
        "f0_cents": cents,
        "voicing": voicing,
    }


def griffin_lim(config: MelConfig) -> Copy:
    """From a log-mel the sound whose STFT, in 60 rounds, comes near the least-squares magnitudes of the mel."""
    inverse = torch.linalg.pinv(mel_filterbank(config).float())
    window = torch.hann_window(config.win_length)
    shape = {"n_fft": config.n_fft, "hop_length": config.hop_length, "window": window}

    def copy(mel: Tensor) -> Tensor:
        magnitude = (inverse @ mel.exp()).clamp(min=0)
        phase = torch.rand(magnitude.shape, generator=torch.Generator().manual_seed(0)) * 2 * torch.pi
        length = mel.shape[1] * config.hop_length
        spectrum = torch.polar(magnitude, phase)
        for _ in range(_ROUNDS):
            wav = torch.istft(spectrum, length=length, **shape)
            again = torch.stft(wav, return_complex=True, **shape)[:, : mel.shape[1]]
            spectrum = torch.polar(magnitude, again.angle())
        return torch.istft(spectrum, length=length, **shape)

    return copy


def copies(model: str, precisions: tuple[str, ...], calibration: Path | None) -> dict[str, Any]:
    """The vocoders of a name by precision; bfloat16 on the C++ kernels, on any CPU."""
    made: dict[str, Any] = {}
    for precision in precisions:
        if precision == "int8":
            assert calibration is not None
            voc: Any = fastvoc.load(model)
            if not voc.model.int8_layers():
                print(f"{model}: has no layers that compute in int8")
                continue
            made[precision] = quantized(model, voc, calibration)
        else:
            made[precision] = fastvoc.load(model, dtype=precision, backend="cpp" if precision == "bf16" else None)
    return made


def quantized(model: str, voc: Any, calibration: Path) -> Any:
    """The vocoder in int8, its ranges taken from clips that are not among the measured ones."""
    mels = (voc.mel(read_clip(path, voc.sample_rate)) for path in find_clips(calibration))
    return loaded(calibrate(read_checkpoint(model), mels), dtype=torch.int8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="what fastvoc.load takes: names, files, folders, hub ids")
    parser.add_argument("--clips", required=True, type=Path, help="folder or list of held-out clips")
    parser.add_argument("--calibration", type=Path, help="folder or list of clips for int8, which is left out without")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=["fp32"])
    parser.add_argument("--pictures", type=Path, help="folder for sound and spectrogram of the first clip's copies")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    if "int8" in args.precisions and args.calibration is None:
        parser.error("--precisions int8 needs --calibration")
    torch.set_num_threads(args.threads)
    paths = find_clips(args.clips)
    result: dict[str, Any] = {"torch": torch.__version__, "seconds": {}, "voices": {}}
    rows: dict[str, dict[str, Any]] = {}
    for model in args.models:
        for precision, voc in copies(model, tuple(args.precisions), args.calibration).items():
            clips = {path.stem: read_clip(path, voc.sample_rate) for path in paths}
            result["seconds"] |= {name: round(len(wav) / voc.sample_rate, 2) for name, wav in clips.items()}
            name = model if precision == "fp32" else f"{model} {precision}"
            judged: dict[str, Copy] = {name: voc}
            if not rows:
                judged |= {"Griffin-Lim": griffin_lim(voc.mel_config)}
                rows["same"] = {clip: measure(wav, wav, voc.mel_config) for clip, wav in clips.items()}
            for who, copy in judged.items():
                sounds = {clip: copy(voc.mel(wav)) for clip, wav in clips.items()}
                rows[who] = {clip: measure(clips[clip], sound, voc.mel_config) for clip, sound in sounds.items()}
                if args.pictures:
                    picture(args.pictures, who, next(iter(sounds.values())), voc)
    table = Table("voice", *MEASURES, title=f"means over {len(paths)} clips")
    for who, found in rows.items():
        means = {name: fmean(row[name] for row in found.values()) for name in MEASURES}
        result["voices"][who] = {"mean": means, "clips": found}
        table.add_row(who, *(f"{means[name]:.3f}" for name in MEASURES))
    table.print()
    if args.out:
        with atomic_path(args.out) as temporary:
            temporary.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def picture(folder: Path, who: str, sound: Tensor, voc: Any) -> None:
    """Writes a copy's sound and its log-mel."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{Path(who).name.replace(' ', '_')}.wav"
    fastvoc.audio.write_audio(path, sound, voc.sample_rate)
    plot_audio(path.with_suffix(".png"), sound, voc.mel(sound), voc.sample_rate, voc.hop, who)


if __name__ == "__main__":
    main()
