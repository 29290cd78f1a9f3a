"""`fastvoc bench --html`: one page that needs nothing else, whose plots show what was measured."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from codec_models import MONO, lively
from command_line import Run
from stream_families import vocoder

from fastvoc.bench.benchmark import example_call
from fastvoc.bench.roofline import ceilings, errors, layer_times
from fastvoc.bench.svg import Axis, Series, bars, plot
from fastvoc.codec import Codec
from fastvoc.vocoder import Vocoder

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
TITLES = ["Speed by length", "Streams by chunk", "Layers against the roofline", "Precision"]
_SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def page(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from fastvoc.cli import main

    path = tmp_path_factory.mktemp("page") / "report.html"
    arguments = [
        "bench",
        str(model),
        "--seconds",
        "0.1,0.3",
        "--budget",
        "0",
        "--compare",
        "torch",
        "--html",
        str(path),
    ]
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    assert not left.value.code
    return path


def svgs(text: str) -> list[ET.Element]:
    return [ET.fromstring(found) for found in re.findall(r"<svg.*?</svg>", text, re.DOTALL)]


class Balanced(HTMLParser):
    """Fails where a tag is closed that is not the open one."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.titles: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert not {"src", "href"} & {name for name, _ in attrs}, "it needs something else"
        assert tag not in ("script", "link", "img")
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["h2"]:
            self.titles.append(data)


def test_the_page(page: Path, voc: Vocoder) -> None:
    text = page.read_text()
    parser = Balanced()
    parser.feed(text)
    assert parser.titles == TITLES
    assert not parser.open
    assert not re.search(r"\b(nan|inf)\b", text)
    found = svgs(text)
    assert len(found) == 4
    for svg in found:
        assert len(svg) > 10
        for element in svg.iter():
            for name in ("cx", "cy", "x", "y", "width", "height", "x1", "y1"):
                assert math.isfinite(float(element.get(name, "0")))
    speed, streams, roof, precision = found
    assert len(list(speed.iter(f"{_SVG}circle"))) == 4  # two lengths of us, two of torch
    assert len(list(streams.iter(f"{_SVG}circle"))) == 6  # three chunks, first and later
    layers = {title.text.split(":")[0] for title in roof.iter(f"{_SVG}title") if title.text}
    assert {"conv_pre", "ups.0", "mrf.0", "ups.1", "mrf.1", "conv_post"} <= layers
    assert [e.text for e in precision.iter(f"{_SVG}text")][-5:].count("default") == 1
    assert "tiny.safetensors" in text


def test_a_browser_opens_it(page: Path, tmp_path: Path) -> None:
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run(
        [*command, "--virtual-time-budget=2000", "--dump-dom", page.as_uri()],
        capture_output=True,
        timeout=120,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert [t for t in TITLES if f"<h2>{t}</h2>" in done.stdout] == TITLES
    assert done.stdout.count("<svg") == 4
    shot = tmp_path / "page.png"
    size = "--window-size=1200,1600"
    taken = subprocess.run([*command, size, f"--screenshot={shot}", page.as_uri()], capture_output=True, timeout=120)
    assert taken.returncode == 0, taken.stderr
    from matplotlib.image import imread

    pixels = imread(shot)[..., :3]
    assert pixels.std() > 0.05, "an empty page"
    blue = (pixels[..., 2] > pixels[..., 0] + 0.3).sum()
    assert blue > 500, "no bars and lines"


@pytest.mark.parametrize("target", ["report.txt", "missing/report.html"])
def test_where_it_cannot_be_written(run: Run, model: Path, tmp_path: Path, target: str) -> None:
    result = run("bench", model, "--html", tmp_path / target)
    assert result.code == 2
    assert "--html" in result.err


def test_a_page_is_replaced_only_by_force(run: Run, model: Path, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("mine")
    result = run("bench", model, "--html", tmp_path / "report.html")
    assert result.code == 2
    assert "--force" in result.err
    assert (tmp_path / "report.html").read_text() == "mine"


def test_layers_of_a_call_and_their_work() -> None:
    voc = vocoder("hifigan-1", "torch")
    mel = torch.randn(voc.n_mels, 50)
    times = {t.layer: t for t in layer_times(voc, lambda: voc(mel, check=False))}
    first = times["conv_pre"]
    weight = voc.model.conv_pre.weight
    assert first.flops == 2 * weight.numel() * 50
    assert first.bytes == 4 * (weight.numel() + weight.shape[0] + voc.n_mels * 50 + weight.shape[0] * 50)
    assert (first.op, first.impl) == ("conv1d", "torch")
    assert all(t.seconds > 0 for t in times.values())
    up = times["ups.0"]
    assert up.flops == 2 * voc.model.ups[0].weight.numel() * 50
    assert list(times) == list(voc.layers())
    stage = sum(
        p.numel() for name, p in voc.model.named_parameters() if name.startswith("resblocks.0.") and p.dim() > 1
    )
    assert times["mrf.0"].flops > 2 * stage * 50
    assert times["mrf.0"].flops % (2 * 50 * 4) == 0  # whole weights at every step of its rate
    assert all(layer._watch is None for layer in voc.layers().values())
    before = list(times)
    voc(mel, check=False)
    assert list(times) == before


def test_errors_against_float64() -> None:
    for loaded in (vocoder("hifigan-1"), vocoder("hift-sample"), Codec(lively(MONO), MONO)):
        found = {e.name: e.relative_l2 for e in errors(loaded)}
        assert list(found) == ["default", "exact", "torch"]
        assert all(1e-9 < error < 1e-5 for error in found.values()), found
        assert loaded.dtype == torch.float32


def test_the_exact_way_of_a_codec_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    ways, decode = [], Codec.decode

    def told(self: Codec, *args: Any, exact: bool = False, **more: Any) -> torch.Tensor:
        ways.append(exact)
        return decode(self, *args, exact=exact, **more)

    monkeypatch.setattr(Codec, "decode", told)
    errors(Codec(lively(MONO), MONO))
    assert ways == [False, False, True, False]  # float64, default, exact, torch


def test_layers_of_a_codec() -> None:
    codec = Codec(lively(MONO), MONO)
    assert layer_times(codec, example_call(codec, 0.1))


def test_ceilings() -> None:
    most = ceilings(torch.device("cpu"), torch.float32)
    assert 1e8 < most.flops < 1e15
    assert 1e7 < most.bytes < 1e13


def test_plots_leave_out_what_has_no_place() -> None:
    points = [(1.0, 2.0), (0.0, 3.0), (2.0, math.nan), (10.0, 400.0)]
    found = ET.fromstring(plot([Series("a <b>", points)], Axis("x", log=True), Axis("y & z", log=True)))
    assert len(list(found.iter(f"{_SVG}circle"))) == 2
    xs = [float(c.get("cx", "")) for c in found.iter(f"{_SVG}circle")]
    assert xs[0] < xs[1]
    assert "a <b>" in [e.text for e in found.iter(f"{_SVG}text")]
    assert ET.fromstring(plot([], Axis("x"), Axis("y"))) is not None
    one = ET.fromstring(bars([("a", 120.0), ("b", 60.0)], Axis("dB")))
    tall, short = [float(r.get("height", "")) for r in one.iter(f"{_SVG}rect")][-2:]
    assert tall == pytest.approx(2 * short, abs=0.2)
