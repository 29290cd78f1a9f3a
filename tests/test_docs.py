"""The pages under docs/ and the README are true: their Python and their commands run, in order, in a folder."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mimi_models
import pytest
import torch
import yaml
from checkpoint_files import VITS, random_state, write_jik, write_kokoro, write_rvc
from codec_models import lively
from hift_files import write_cosyvoice
from onnx_files import need_onnx, write_voice
from whole_codecs import whole_codec

import fastvoc
from fastvoc import audio
from fastvoc.cli import main
from fastvoc.codec import Codec
from fastvoc.models.encodec_config import EncodecConfig
from fastvoc.models.hifigan import HifiGanConfig
from fastvoc.runtime import env
from helpers import ROOT

PAGES = {path.name: path for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}
TEXTS = {**PAGES, **{name: ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md")}}
_BLOCK = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NO_RUN = "no-run: "  # then the reason: needs a GPU, the network, another program


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, what follows that, where its text begins."""

    language: str
    info: str
    text: str
    line: int

    @property
    def runs(self) -> bool:
        return not self.info


def blocks(page: str, *languages: str) -> list[Block]:
    text = PAGES[page].read_text()
    found = [
        Block(match[1], match[2].strip(), match[3], text.count("\n", 0, match.start()) + 2)
        for match in _BLOCK.finditer(text)
    ]
    return [block for block in found if not languages or block.language in languages]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages call `path/to/...`, small and with random weights, and some speech."""
    torch.manual_seed(5)
    folder = tmp_path_factory.mktemp("docs")
    speech, rate = audio.read_audio(ROOT / "fastvoc" / "assets" / "demo.flac")
    audio.write_audio(folder / "speech.wav", speech[:, : rate * 3 // 2], rate)
    (folder / "recordings").mkdir()
    audio.write_audio(folder / "recordings" / "clip.wav", speech.repeat(1, 7), rate)  # calibration wants 30 s
    write_cosyvoice(folder / "path" / "to" / "cosyvoice2")
    write_rvc(folder / "path" / "to")
    write_kokoro(folder / "path" / "to" / "kokoro")
    config = HifiGanConfig(upsample_initial_channel=32)
    write_jik(folder / "path" / "to" / "LJ_V1", random_state(config), config)
    codec = EncodecConfig(n_filters=4, dimension=12)
    (folder / "path" / "to" / "encodec_24khz").mkdir()
    fastvoc.save(Codec(lively(codec), codec), folder / "path" / "to" / "encodec_24khz" / "model.safetensors")
    if importlib.util.find_spec("onnx") is not None:
        write_voice(folder / "path" / "to", replace(VITS, gin_channels=0, num_speakers=0))
    mimi = replace(mimi_models.SMALL, n_q=8, ratios=(8, 6, 5, 4))
    (folder / "path" / "to" / "mimi").mkdir()
    fastvoc.save(Codec(mimi_models.lively(mimi), mimi), folder / "path" / "to" / "mimi" / "model.safetensors")
    for name, config in (("dac_44khz", "dac"), ("snac_24khz", "snac")):
        (folder / "path" / "to" / name).mkdir()
        fastvoc.save(whole_codec(config), folder / "path" / "to" / name / "model.safetensors")
    return folder


@pytest.fixture
def place(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The current folder of a page."""
    for source in models.iterdir():
        (tmp_path / source.name).symlink_to(source)
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def run_python(page: str, block: Block, namespace: dict[str, Any]) -> None:
    """With the line numbers of the page, for the trace of an error."""
    exec(compile("\n" * (block.line - 1) + block.text, str(PAGES[page]), "exec"), namespace)


def run_shell(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of a block, in this process: `NAME=value fastvoc command ... < in > out`."""
    for line in block.text.splitlines():
        words = shlex.split(line, comments=True)
        with monkeypatch.context() as here, contextlib.ExitStack() as files:
            while words and "=" in words[0]:
                here.setenv(*words.pop(0).split("=", 1))
            for sign, mode, stream in (("<", "r", "stdin"), (">", "w", "stdout")):
                if sign in words:
                    at = words.index(sign)
                    here.setattr(sys, stream, files.enter_context(open(words[at + 1], mode)))
                    del words[at : at + 2]
            if words:
                assert words.pop(0) == "fastvoc", line
                with pytest.raises(SystemExit) as left:
                    main(words)
                assert not left.value.code, line


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("page", PAGES)
@pytest.mark.usefixtures("place")
def test_a_page_runs(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if "voice.onnx" in PAGES[page].read_text():
        need_onnx("onnxruntime")
    namespace: dict[str, Any] = {"__name__": "page"}
    for block in blocks(page, "python", "sh"):
        if block.language == "sh" and block.runs:
            run_shell(block, monkeypatch)
        elif block.runs:
            run_python(page, block, namespace)
        elif block.language == "python":
            compile(block.text, str(PAGES[page]), "exec")


@pytest.mark.parametrize("page", PAGES)
def test_what_does_not_run_says_why(page: str) -> None:
    for block in blocks(page):
        where = f"{page}:{block.line - 1}"
        if block.language in ("python", "sh"):
            assert block.runs or len(block.info.removeprefix(_NO_RUN).split()) > 1, where
            assert block.runs or block.info.startswith(_NO_RUN), where
        else:
            assert block.language in ("text", "mermaid"), (
                f"{where}: a block of {block.language or 'nothing'} is not tested"
            )


@pytest.mark.parametrize("page", PAGES)
def test_pages_are_short(page: str) -> None:
    assert PAGES[page].read_text().count("\n") <= 120


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_somewhere(page: str) -> None:
    folder = TEXTS[page].parent
    for target, anchor in re.findall(r"\]\(([^)#]*)(#[^)]*)?\)", TEXTS[page].read_text()):
        if target.startswith("http"):
            continue
        linked = folder / target if target else TEXTS[page]
        assert linked.exists(), target
        assert not anchor or anchor[1:] in _anchors(linked), f"{target}{anchor}"


def _anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", TEXTS)
def test_files_named_exist(page: str) -> None:
    """`fastvoc/nn/network.py` and its like, without placeholders."""
    named = re.findall(r"`((?:fastvoc|kernels|csrc|tests|benchmarks|docs|\.ci)/[\w./-]+)`", TEXTS[page].read_text())
    assert not [name for name in named if not (ROOT / name).exists()]


def test_every_page_is_linked_from_the_readme() -> None:
    linked = set(re.findall(r"\]\(docs/([^)#]+)", PAGES["README.md"].read_text()))
    assert linked == set(PAGES) - {"README.md"}


def test_every_environment_variable_is_described() -> None:
    rows = dict(
        re.findall(r"^\| `((?:FASTVOC|TRITON)_[A-Z]+)` \| (.+) \|$", PAGES["install.md"].read_text(), re.MULTILINE)
    )
    assert set(rows) == {variable.name for variable in env.VARIABLES}


def commands_shown() -> set[str]:
    shown = [
        re.findall(r"^(?:\w+=\S+ )?fastvoc (\w+)", b.text, re.MULTILINE) for page in PAGES for b in blocks(page, "sh")
    ]
    return {name for names in shown for name in names}


@pytest.mark.parametrize("command", sorted(commands_shown()))
def test_every_command_shown_exists_and_shows_an_example(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    with contextlib.suppress(SystemExit):
        main([command, "--help"])
    assert f"Example: fastvoc {command}" in " ".join(capsys.readouterr().out.split())


MODELS = {"HiFi-GAN V1": "v1", "HiFi-GAN V2": "v2", "HiFi-GAN V3": "v3", "CosyVoice 2": "cosyvoice2"}
MODELS |= {"Vocos mel 24 kHz": "vocos"}
MODELS |= {f"EnCodec {n} kHz, {way}coding": f"encodec-{n}k-{way}code" for n in (24, 48) for way in ("en", "de")}


@pytest.mark.parametrize(("file", "count"), [("models", 2 * len(MODELS)), ("models-avx2", 6)])
def test_figures_of_speed_are_those_of_the_results(file: str, count: int) -> None:
    """Every row of the table that names a file, against that file, to the digits shown."""
    results = json.loads((ROOT / f"benchmarks/results/amd-epyc-2core/{file}.json").read_text())["rows"]
    measured = {(row["model"], row["seconds"], row["dtype"]): row for row in results if row["batch"] == 1}
    table = PAGES["speed.md"].read_text().partition(f"/{file}.json`")[2].partition("\n\n|")[2].partition("\n\n")[0]
    rows = re.findall(r"^\|? (\D.+?) \| (\d+) s \| (.+) \|$", table, re.MULTILINE)
    assert len(rows) == count
    for name, seconds, rest in rows:
        fp32, torch_, ort, openvino, *bf16 = rest.split(" | ")
        shown = {"fp32": (fp32, {"torch": torch_, "onnxruntime": ort, "openvino": openvino})}
        if bf16:
            shown["bf16"] = bf16[0], dict(zip(("torch", "openvino"), bf16[1:], strict=True))
        for dtype, (time, over) in shown.items():
            row = measured[MODELS[name], float(seconds), dtype]
            ours = row["impls"]["cpp"]
            ms, times = re.fullmatch(r"([\d.]+) ms, ([\d.]+)x(?: real time)?", time).groups()  # type: ignore[union-attr]
            assert _rounded(1e3 * ours["median_s"], ms) == ms, (name, dtype)
            assert _rounded(ours["real_time"], times) == times, (name, dtype)
            assert {rival: _rounded(row["over"][rival], cell) for rival, cell in over.items()} == over, (name, dtype)


def test_sizes_of_a_run_are_those_of_the_results() -> None:
    """Hours of audio a core hour: half of what two threads make."""
    rows = re.findall(r"^\| (\D.+?) \| ([\d.]+) \| ([\d.]+) \|$", PAGES["ray.md"].read_text(), re.MULTILINE)
    assert len(rows) == 6
    for column, (file, seconds) in enumerate((("models", 10.0), ("models-avx2", 1.0)), 1):
        results = json.loads((ROOT / f"benchmarks/results/amd-epyc-2core/{file}.json").read_text())["rows"]
        fp32 = [row for row in results if (row["batch"], row["dtype"], row["seconds"]) == (1, "fp32", seconds)]
        rates = {row["model"]: row["impls"]["cpp"]["real_time"] / 2 for row in fp32}
        for row in rows:
            assert _rounded(rates[MODELS[row[0]]], row[column]) == row[column], (file, row[0])


def _rounded(value: float, like: str) -> str:
    return f"{value:.{len(like.partition('.')[2])}f}"


def test_every_wheel_is_described() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())
    built = {build["label"] for build in workflow["jobs"]["wheel"]["strategy"]["matrix"]["build"]}
    assert set(re.findall(r"^\| `.*?\+(c\w+).*?` \|", PAGES["install.md"].read_text(), re.MULTILINE)) == built
