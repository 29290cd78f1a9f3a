"""Whether two checkouts compute the same bits: python benchmarks/bits.py OTHER_PYTHON [--json FILE].

OTHER_PYTHON is the interpreter of another checkout's environment. Both run this file: every golden case and every
family of the stream tests, in default and exact calls, ragged batches and streams, in float32 and bfloat16.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
REVISION = (
    "import pathlib, subprocess, fastvoc; folder = pathlib.Path(fastvoc.__file__).parent;"
    "print(subprocess.check_output(['git', '-C', folder, 'describe', '--always', '--dirty'], text=True))"
)
GOLDEN = Path(os.environ.get("FASTVOC_GOLDEN") or ROOT.parent / "shared" / "golden")


def digest(tensor: Any) -> str:
    """Of the values' bits."""
    import torch

    flat = tensor.detach().contiguous().reshape(-1)
    return hashlib.sha256(flat.view(torch.uint8).numpy().tobytes()).hexdigest()[:16]


def vocoder(voc: Any) -> Iterator[tuple[str, Any]]:
    """Outputs of a vocoder, by name."""
    import torch

    frames = 61
    mel = torch.randn(3, voc.n_mels, frames, generator=torch.Generator().manual_seed(0))
    further = dict(voc.model.warmup_inputs) if hasattr(voc.model, "warmup_inputs") else {}
    yield "call", voc(mel, check=False, **further)
    yield "exact", voc(mel, check=False, exact=True, **further)
    yield "lengths", voc(mel, [61, 7, 40], check=False, **further)
    yield "long", voc(mel[0].repeat(1, 60), check=False, **further)
    if voc.config.family == "kokoro" or getattr(voc.config, "f0_network", "") == "jdc":  # which read all frames at once
        return
    for exact in (True, False):
        live, cut = voc.stream(exact=exact, **further), (1, 30, 31, 45)
        parts = [live.push(mel[0][:, low:high]) for low, high in zip((0, *cut), cut, strict=False)]
        yield f"stream, exact={exact}", torch.cat([*parts, live.flush(mel[0][:, cut[-1] :])])


def codec(one: Any) -> Iterator[tuple[str, Any]]:
    """Outputs of a codec, by name."""
    import torch

    samples = 3 * one.sample_rate + 77
    wav = torch.randn(2, one.channels, samples, generator=torch.Generator().manual_seed(0)) * 0.1
    bandwidth = one.bandwidths[-1]
    codes = one.encode(wav, bandwidth)
    for i, segment in enumerate(codes.segments):
        yield f"codes {i}", segment
    yield "decode", one.decode(codes)
    ragged = one.encode(wav, bandwidth, [samples, 9000])
    for i, segment in enumerate(ragged.segments):
        yield f"ragged codes {i}", segment
    yield "ragged decode", one.decode(ragged)
    if getattr(one.config, "segment", 0) is None and one.config.causal and not one.config.normalize:
        live = one.decoding(codes.segments[0].shape[1]).stream()
        row = codes.segments[0][0]
        parts = [live.push(row[:, i : i + 40]) for i in range(0, row.shape[1], 40)]
        yield "decode stream", torch.cat([*parts, live.flush()], -1)
        live = one.encoding(bandwidth).stream()
        yield "encode stream", torch.cat([live.push(wav[0][:, i : i + 999]) for i in range(0, samples, 999)], -1)


def _loaded(folder: Path, dtype: str | None) -> Any:
    """The model of a golden case, None where there is none or not of this dtype."""
    import fastvoc
    from fastvoc.errors import FastvocError

    try:
        return fastvoc.load(folder, dtype=dtype)
    except (FastvocError, ImportError):
        return None


def models() -> Iterator[tuple[str, Any]]:
    """All golden models that load, and the families of the stream tests."""
    import fastvoc

    sys.path.append(str(ROOT / "tests"))
    import stream_families

    yield "hifigan", fastvoc.load("hifigan")
    for folder in sorted(GOLDEN.iterdir()) if GOLDEN.exists() else []:
        for dtype in (None, "bf16"):
            if (model := _loaded(folder, dtype)) is not None:
                yield f"{folder.name} {dtype or ''}".strip(), model
    for family in stream_families.FAMILIES:
        try:
            model = stream_families.vocoder(family)
        except TypeError:  # a value of a configuration that this checkout does not have
            continue
        yield family, model


def digests() -> dict[str, str]:
    """Of every output, by model and output."""
    import torch

    warnings.simplefilter("ignore")
    torch.set_num_threads(2)
    found = {}
    for name, model in models():
        outputs = codec(model) if hasattr(model, "bandwidths") else vocoder(model)
        for output, tensor in outputs:
            found[f"{name}: {output}"] = digest(tensor)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", nargs="?", help="the other checkout's Python")
    parser.add_argument("--json", type=Path, help="file for the comparison")
    options = parser.parse_args()
    if options.other is None:
        json.dump(digests(), sys.stdout)
        return 0
    runs = []
    for python in (sys.executable, options.other):
        command = [python, "-P", str(Path(__file__).resolve())]
        runs.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    ours, theirs = runs
    differing = sorted(name for name in ours.keys() & theirs.keys() if ours[name] != theirs[name])
    only = sorted(ours.keys() ^ theirs.keys())
    from harness import machine

    of = subprocess.run(
        [options.other, "-P", "-c", REVISION], capture_output=True, text=True, check=True
    ).stdout.strip()
    result = {
        "compared": len(ours.keys() & theirs.keys()),
        "differing": differing,
        "with": of,
        "machine": machine("cpu"),
    }
    print(json.dumps({**result, "in one only": only}, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return int(bool(differing))


if __name__ == "__main__":
    sys.exit(main())
