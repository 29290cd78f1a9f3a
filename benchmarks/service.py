"""What a service pays for: another rate and format, and counting; each against the same call or stream without.

python benchmarks/service.py                    # HiFi-GAN V2 on 2 threads
python benchmarks/service.py --write            # and keep the figures
python benchmarks/service.py --plot             # only draw the filter's response

`rate`: the part that a call, or a stream by chunks, at another rate takes longer, from the median over rounds of the
ratio of the two, which run in turn. `stats`: the same for a call of 0.1 s with and without its counting.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from typing import Any

import torch
from harness import RESULTS, interleaved, machine
from table import Table
from zoo import ZOO

from fastvoc.ops.resample import taps
from fastvoc.sound.resampling import Converter
from fastvoc.vocoder import Vocoder

RATES = (8000, 16000, 48000)
PLOT = RESULTS / "resampling.svg"


class _Uncounted:
    """In the place of `Stats`: the same calls, which count nothing."""

    listeners: tuple[()] = ()

    def begin(self) -> float:
        return 0.0

    def made(self, *_: object) -> None:
        pass


def vocoder(name: str) -> Vocoder:
    """A model of the zoo as `fastvoc.load` would give it."""
    model: Any = ZOO[name].model()
    return Vocoder(model, model.config, backend="cpp")


def more(times: dict[str, list[float]], name: str) -> float:
    """By what part of "plain" it takes longer."""
    return statistics.median(a / b for a, b in zip(times[name], times["plain"], strict=True)) - 1


def calls(voc: Vocoder, seconds: float, budget: float) -> list[dict[str, Any]]:
    """Whole calls of so many seconds at every rate."""
    mel = torch.randn(voc.n_mels, round(seconds * voc.sample_rate / voc.hop))
    runs: dict[str, Callable[[], Any]] = {"plain": lambda: voc(mel, check=False)}
    for rate in RATES:
        runs[f"{rate} s16"] = lambda rate=rate: voc(mel, check=False, rate=rate, format="s16")  # type: ignore[misc]
    times = interleaved(runs, budget)
    plain = statistics.median(times["plain"])
    return [{"what": f"call of {seconds:g} s", "to": n, "plain_s": plain, "more": more(times, n)} for n in runs][1:]


def streams(voc: Vocoder, chunk: int, budget: float) -> list[dict[str, Any]]:
    """One second by chunks of so many frames, at every rate."""
    chunks = torch.randn(voc.n_mels, round(voc.sample_rate / voc.hop)).split(chunk, 1)

    def run(**out: Any) -> None:
        live = voc.stream(check=False, **out)
        for part in chunks:
            live.push(part)
        live.flush()

    runs: dict[str, Callable[[], Any]] = {"plain": run}
    for rate in RATES:
        runs[f"{rate} s16"] = lambda rate=rate: run(rate=rate, format="s16")  # type: ignore[misc]
    times = interleaved(runs, budget)
    plain = statistics.median(times["plain"])
    what = f"stream of 1 s by {chunk} frames"
    return [{"what": what, "to": n, "plain_s": plain, "more": more(times, n)} for n in runs][1:]


def counting(voc: Vocoder, budget: float) -> dict[str, Any]:
    """A call of 0.1 s with its counting, against one that counts nothing."""
    mel = torch.randn(voc.n_mels, round(0.1 * voc.sample_rate / voc.hop))
    counted, off = voc.stats, _Uncounted()

    def run(stats: Any) -> Callable[[], Any]:
        def once() -> None:
            voc.stats = stats
            voc(mel, check=False)

        return once

    times = interleaved({"plain": run(off), "stats": run(counted)}, budget)
    voc.stats = counted
    return {
        "what": "call of 0.1 s",
        "to": "stats",
        "plain_s": statistics.median(times["plain"]),
        "more": more(times, "stats"),
    }


def draw() -> None:
    """The filter's response for every rate from 22.05 kHz, whole and where it must be flat."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "fastvoc"
    from matplotlib import pyplot

    figure, (whole, flat) = pyplot.subplots(1, 2, figsize=(10, 4))
    for rate in RATES:
        converter = Converter(22050, rate)
        impulse = taps(converter.ratio).double().flip(1).t().flatten() * 2.0**24 / converter.ratio.up
        size = 1 << (len(impulse).bit_length() + 2)
        response = 20 * torch.fft.rfft(impulse, size).abs().clamp(min=1e-9).log10()
        nyquist = min(22050, rate) / 2
        relative = torch.arange(len(response)) * (22050 * converter.ratio.up / size) / nyquist
        for axes, most in ((whole, 3.0), (flat, 0.95)):
            kept = relative <= most
            axes.plot(relative[kept], response[kept], label=f"22050 to {rate} Hz", linewidth=0.8)
    whole.axhline(-100, color="black", linestyle=":", linewidth=0.8)
    whole.set(ylim=(-150, 5), xlabel="frequency / lower Nyquist frequency", ylabel="dB", title="all")
    flat.axvline(0.9, color="black", linestyle=":", linewidth=0.8)
    flat.set(ylim=(-0.06, 0.06), xlabel="frequency / lower Nyquist frequency", title="what passes")
    whole.legend()
    figure.tight_layout()
    figure.savefig(PLOT, metadata={"Date": None})
    print(f"wrote {PLOT}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="v2")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--budget", type=float, default=8.0, help="seconds for one measurement")
    parser.add_argument("--write", nargs="?", const="amd-epyc-2core", metavar="NAME", help="folder of the result file")
    parser.add_argument("--plot", action="store_true", help="only draw the filter's response")
    options = parser.parse_args()
    if options.plot:
        draw()
        return
    torch.set_num_threads(options.threads)
    voc = vocoder(options.model)
    rows = [*calls(voc, 1.0, options.budget), *calls(voc, 10.0, options.budget)]
    rows += [*streams(voc, 25, options.budget), *streams(voc, 5, options.budget), counting(voc, options.budget)]
    table = Table("what", "to", "plain ms", "more %", title=f"{options.model}, {options.threads} threads")
    for row in rows:
        table.add_row(row["what"], row["to"], f"{1e3 * row['plain_s']:.3f}", f"{100 * row['more']:.2f}")
    table.print()
    if options.write:
        path = RESULTS / options.write / "service.json"
        found = {"machine": machine("cpu"), "model": options.model, "rows": rows}
        path.write_text(json.dumps(found, indent=1) + "\n")
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
