"""What the README shows is true."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from fastvoc.runtime import env
from helpers import ROOT, golden, golden_folder

README = (ROOT / "README.md").read_text()


def test_every_environment_variable_is_in_the_readme() -> None:
    assert set(re.findall(r"(?:FASTVOC|TRITON)_[A-Z]+", README)) == {variable.name for variable in env.VARIABLES}


def test_every_variable_the_package_reads_is_in_env() -> None:
    known = {variable.name for variable in env.VARIABLES}
    for path in [*(ROOT / "fastvoc").rglob("*.py"), ROOT / "setup.py"]:
        assert set(re.findall(r"FASTVOC_[A-Z]+", path.read_text())) <= known, path


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target


@pytest.mark.parametrize("command", sorted(set(re.findall(r"^fastvoc (\w+)", README, re.MULTILINE))))
def test_every_command_shown_exists_and_shows_an_example(command: str) -> None:
    done = subprocess.run([sys.executable, "-P", "-m", "fastvoc", command, "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"Example: fastvoc {command}" in " ".join(done.stdout.split())


def test_the_python_example_runs() -> None:
    block = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0]
    script = f"import torch; wav = torch.randn(22050) * 0.1\n{block}\nassert wav.shape == (86 * 256,), wav.shape\n"
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_second_python_example_runs() -> None:
    block = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[1]
    for shown, case in (
        ("path/to/hift.pt", "cosyvoice2_hift/hift.pt"),
        ("path/to/encodec_24khz", "hf_encodec_24k_small"),
    ):
        assert f'"{shown}"' in block
        golden(case.partition("/")[0])
        block = block.replace(shown, str(golden_folder() / case))
    script = (
        "import fastvoc, torch\n"
        'voc = fastvoc.load("hifigan")\n'
        "mel = mel_a = voc.mel(torch.randn(22050) * 0.1)\n"
        "mel_b, chunks, played = mel[:, :30], [mel[:, :9], mel[:, 9:]], []\n"
        "play, chunk_a, chunk_b = played.append, mel[:, :20], mel[:, 20:50]\n"
        "whole, f0 = voc(mel), torch.full((86,), 200.0)\n"
        f"{block}\n"
        "assert len(torch.cat(played)) == len(whole) and [len(w) for w in wavs] == [86 * 256, 30 * 256]\n"
        'assert set(sounds) == {"alice", "bob"} and live.push(codes.codes[0, :8]).shape[0] == 1\n'
    )
    done = subprocess.run([sys.executable, "-P", "-W", "ignore", "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
