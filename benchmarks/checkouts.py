"""Two checkouts in turn: python benchmarks/checkouts.py OTHER_PYTHON [--only WORD] [--rounds N] [--json FILE].

OTHER_PYTHON is the interpreter of another checkout's environment. A process of each makes the same requests; a turn is
handed over by a line on a pipe, so that only one of them runs at a time. The figure is the median over rounds of the
other's time over ours.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

THREADS = 2
_LEAST = 0.03  # seconds that a turn takes at least


def requests() -> dict[str, Callable[[], Any]]:
    """What is timed, by name: calls of the published shapes with random weights, and chunks of their streams."""
    import torch
    from zoo import ZOO

    from fastvoc.codec import Codec
    from fastvoc.vocoder import Vocoder

    torch.manual_seed(0)
    torch.set_num_threads(THREADS)
    voc = Vocoder(ZOO["v2"].model(), ZOO["v2"].model().config)
    mel = torch.randn(80, 862) - 5
    made: dict[str, Callable[[], Any]] = {
        "v2 0.1 s": lambda: voc(mel[:, :9], check=False),
        "v2 1 s": lambda: voc(mel[:, :86], check=False),
        "v2 10 s": lambda: voc(mel, check=False),
    }
    for frames in (1, 5):
        live = voc.stream()
        for _ in range(4):
            live.push(mel[:, :20])
        made[f"v2, chunks of {frames}"] = lambda live=live, frames=frames: live.push(mel[:, :frames])  # type: ignore[misc]
    model = ZOO["encodec-24k-decode"].model()
    codec = Codec(model, model.config)
    codes = torch.randint(0, 1024, (8, 750))
    sound = codec.decoding(8).stream()
    for _ in range(4):
        sound.push(codes[:, :20])
    made["encodec decode, chunks of 1"] = lambda: sound.push(codes[:, :1])
    made["encodec decode 1 s"] = lambda: codec.decode(codes[:, :75])
    made["encodec decode 10 s"] = lambda: codec.decode(codes)
    for name in ("v1", "vocos"):
        one = Vocoder(ZOO[name].model(), ZOO[name].model().config)
        long = torch.randn(one.n_mels, 938) - 5
        made[f"{name} 0.1 s"] = lambda one=one, long=long: one(long[:, :9], check=False)  # type: ignore[misc]
        made[f"{name} 1 s"] = lambda one=one, long=long: one(long[:, :94], check=False)  # type: ignore[misc]
    return made


def serve() -> None:
    """Answers each name on standard input with the seconds that one such request takes."""
    import fastvoc

    sys.path.append(str(Path(fastvoc.__file__).parents[1] / "benchmarks"))  # the checkout's own
    answers = sys.stdout
    sys.stdout = sys.stderr
    made = requests()
    for run in made.values():
        run()
    print(json.dumps(list(made)), file=answers, flush=True)
    for line in sys.stdin:
        run, count = made[line.strip()], 0
        run()
        begin = time.perf_counter()
        while time.perf_counter() - begin < _LEAST:
            run()
            count += 1
        print((time.perf_counter() - begin) / count, file=answers, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", nargs="?", help="the other checkout's Python")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--only", default="", help="a word of the requests' names")
    parser.add_argument("--json", type=Path, help="file for the result")
    options = parser.parse_args()
    if options.other is None:
        serve()
        return
    command = ["-P", str(Path(__file__).resolve())]
    pair = [
        subprocess.Popen([python, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for python in (sys.executable, options.other)
    ]

    def answer(process: subprocess.Popen[str], text: str) -> float:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{text}\n")
        process.stdin.flush()
        return float(process.stdout.readline())

    names, _ = (json.loads(process.stdout.readline()) for process in pair if process.stdout is not None)
    names = [name for name in names if options.only in name]
    found: dict[str, dict[str, float]] = {}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for turn in range(options.rounds):
        for name in names:
            order = pair if turn % 2 else pair[::-1]
            took = {id(process): answer(process, name) for process in order}
            times[name].append((took[id(pair[0])], took[id(pair[1])]))
    for process in pair:
        assert process.stdin is not None
        process.stdin.close()
    for name, rows in times.items():
        ratios = sorted(theirs / ours for ours, theirs in rows)
        quarter = len(ratios) // 4
        found[name] = {
            "ours_ms": round(1e3 * statistics.median(ours for ours, _ in rows), 4),
            "other_over_ours": round(statistics.median(ratios), 3),
            "lower_quartile": round(ratios[quarter], 3),
            "upper_quartile": round(ratios[-1 - quarter], 3),
        }
        print(f"{name:30s} {found[name]}")
    if options.json:
        import harness  # with torch, which the children load for themselves

        said = {"machine": harness.machine("cpu"), "threads": THREADS, "rounds": options.rounds, "rows": found}
        options.json.write_text(json.dumps(said, indent=1) + "\n")


if __name__ == "__main__":
    main()
