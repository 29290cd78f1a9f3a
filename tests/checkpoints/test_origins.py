"""What of a checkpoint is read, fixed, known by a name or assumed, in every dialect; the warning; the caller's word."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from checkpoint_dialects import DIALECTS, written
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import fastvoc
from fastvoc.checkpoints import Checkpoint, Origin, detect_and_load
from fastvoc.checkpoints import save as save_checkpoint
from fastvoc.checkpoints.origins import with_given
from fastvoc.cli import main
from fastvoc.errors import ArgumentError, AssumptionWarning, LoadError
from fastvoc.hub import download as hub
from fastvoc.models.hifigan import HifiGanConfig
from fastvoc.sound.mel import SPEECHT5_16K, TACOTRON2_22K, MelConfig

pytestmark = pytest.mark.filterwarnings("error::fastvoc.errors.AssumptionWarning")

ENCODEC = {"sample_rate": "assumed", "bandwidths": "assumed"}
FIXED = {"sample_rate": "format", "mel": "format"}
# By dialect: what is not read of the rate, the front end, and what follows from them.
FACTS: dict[str, dict[str, str]] = {
    "jik876": {},
    "speecht5": {"mel": "assumed"},
    "speecht5 without a rate": {"sample_rate": "format", "mel": "assumed"},
    "conformer": {},
    "conformer with its acoustic model": {"sample_rate": "format"},
    "parallel_wavegan": {},
    "parallel_wavegan_plain": {},
    "espnet": {},
    "coqui": {},
    "speechbrain": {"sample_rate": "assumed"},
    "nemo": {},
    "bigvgan": {},
    "univnet": {},
    "univnet without its extractor": {"sample_rate": "assumed"},
    "cosyvoice": {"mel": "assumed"},
    "cosyvoice with its front end": {},
    "chatterbox": FIXED,
    "hiftnet": {},
    "hiftnet model draft": {"sample_rate": "format", "mel": "assumed"},
    "hiftnet vocoder draft": FIXED,
    "vocos": {},
    "vocos on codes": {"sample_rate": "format"},
    "vocos draft": {"sample_rate": "format"},
    "vocos of fastvoc train": {},
    "encodec mono": ENCODEC,
    "encodec stereo": ENCODEC,
    "encodec deep": {**ENCODEC, "dilation_base": "assumed"},
    "encodec identity shortcut": {**ENCODEC, "dilation_base": "assumed"},
    "encodec transformers": {},
    "encodec language model": {"sample_rate": "assumed"},
    "dac": {},
    "dac without its values": {"sample_rate": "assumed"},
    "dac transformers": {},
    "snac": {},
    "vits": {},
    "vits transformers": {},
    "vits coqui": {},
    "vits piper": {},
    "vits piper without its configuration": {"sample_rate": "assumed"},
    "rvc": {},
    "xtts": {},
    "xtts without its configuration": {"sample_rate": "assumed"},
    "gpt-sovits": {},
    "kokoro": {"sample_rate": "format"},
}
SHOWN = {"assumed": "(assumed: ", "format": "(fixed by the format: ", None: "(read)"}


def run(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
    return int(caught.value.code or 0), *capfd.readouterr()


def test_every_dialect_has_its_facts() -> None:
    assert list(FACTS) == list(DIALECTS)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_is_read_and_what_is_assumed(dialect: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    checkpoint = detect_and_load(written(dialect, tmp_path / "plain"))
    known = {f: o for f, o in checkpoint.origins.items() if getattr(checkpoint.config, f) is not None}
    assert {fact: origin.kind for fact, origin in known.items()} == FACTS[dialect]
    assert all(origin.why for origin in checkpoint.origins.values())
    assumed = [fact for fact, kind in FACTS[dialect].items() if kind == "assumed"]
    assert list(checkpoint.assumed) == assumed

    def load() -> object:
        if checkpoint.config.family == "encodec_lm":
            return fastvoc.load_language_model(tmp_path / "plain" / "lm.th", integer=False)
        return fastvoc.load(tmp_path / "plain", backend="torch")

    if assumed:
        with pytest.warns(AssumptionWarning) as caught:
            model = load()
        (warning,) = caught
        assert warning.filename == __file__
        for text in (str(tmp_path / "plain"), *(f"{fact} " for fact in assumed), *checkpoint.assumed.values()):
            assert text in str(warning.message)
    else:
        model = load()
    if checkpoint.config.family != "encodec_lm":
        assert list(model.assumed) == assumed  # type: ignore[attr-defined]

    code, shown, _ = run(capfd, "info", tmp_path / "plain")
    assert code == 0
    rows = dict(line.strip().split("  ", 1) for line in shown.splitlines()[1:])
    for fact, row in (("sample_rate", "sample rate"), ("mel", "mel front end"), ("bandwidths", "bandwidths")):
        if row in rows and getattr(checkpoint.config, fact) is not None:
            assert SHOWN[FACTS[dialect].get(fact)] in rows[row], rows[row]

    # A converted file goes on saying what was assumed.
    code, _, told = run(capfd, "convert", tmp_path / "plain", tmp_path / "out.safetensors")
    assert code == 0
    assert ("is assumed" in told) == bool(assumed)
    again = detect_and_load(tmp_path / "out.safetensors")
    assert (again.config, again.assumed) == (checkpoint.config, checkpoint.assumed)


def test_a_saved_model_goes_on_saying_what_was_assumed(tmp_path: Path) -> None:
    with pytest.warns(AssumptionWarning):
        model = fastvoc.load(written("speechbrain", tmp_path / "x"), backend="torch")
    fastvoc.save(model, tmp_path / "x.safetensors")
    with pytest.warns(AssumptionWarning, match="sample_rate 22050 is assumed"):
        assert fastvoc.load(tmp_path / "x.safetensors", backend="torch").assumed == model.assumed


@pytest.mark.parametrize("model", [m for m in hub.KNOWN if m.repo.startswith("speechbrain/")], ids=lambda m: m.repo)
def test_published_names_give_the_rate(model: hub.HubModel, tmp_path: Path) -> None:
    cached = tmp_path / f"models--{model.repo.replace('/', '--')}" / "snapshots" / "0123"
    for folder in (tmp_path / model.repo.rpartition("/")[2], cached):
        written("speechbrain", folder)
        checkpoint = detect_and_load(folder)
        assert checkpoint.config.sample_rate == model.sample_rate
        assert {origin.kind for origin in checkpoint.origins.values()} == {"name"}
        fastvoc.load(folder, backend="torch")  # without a warning


def test_the_front_end_of_a_published_name(tmp_path: Path) -> None:
    for name, rate in (("tts-hifigan-libritts-16kHz", 16000), ("tts-hifigan-ljspeech", 22050)):
        folder = written("speechbrain", tmp_path / name)
        yaml = folder / "hyperparams.yaml"
        sizes = {"in_channels: 12": "in_channels: 80", "[4, 2]": "[16, 16]", "[8, 4]": "[32, 32]"}
        text = yaml.read_text()
        for old, new in sizes.items():
            text = text.replace(old, new)
        yaml.write_text(text)
        config = HifiGanConfig(
            upsample_rates=(16, 16), upsample_kernel_sizes=(32, 32), upsample_initial_channel=16, resblock="2",
            resblock_kernel_sizes=(3, 5), resblock_dilation_sizes=((1, 2), (2, 6)),
        )  # fmt: skip
        state = {n: torch.randn(shape) for n, shape in config.tensors()}
        named = {f"{n.rpartition('.')[0]}.conv.{n.rpartition('.')[2]}": t for n, t in state.items()}
        torch.save(named, folder / "generator.ckpt")
        assert fastvoc.load(folder, backend="torch").mel_config == replace(TACOTRON2_22K, sample_rate=rate)


def test_a_name_of_another_owner_says_nothing(tmp_path: Path) -> None:
    folder = written("speechbrain", tmp_path / "models--someone--tts-hifigan-libritts-16kHz" / "snapshots" / "0123")
    assert list(detect_and_load(folder).assumed) == ["sample_rate"]


def test_encodecs_name_says_its_rate(tmp_path: Path) -> None:
    written("encodec mono", tmp_path)
    (tmp_path / "model.th").rename(tmp_path / "encodec_24khz.th")
    checkpoint = detect_and_load(tmp_path)
    assert {origin.kind for origin in checkpoint.origins.values()} == {"name"}
    (tmp_path / "encodec_24khz.th").rename(tmp_path / "encodec_48khz.th")  # of one channel: not that model
    assert "sample_rate" in detect_and_load(tmp_path).assumed


def test_espnets_rate(tmp_path: Path) -> None:
    written("espnet", tmp_path)
    config = tmp_path / "config.yaml"
    text = config.read_text().replace("  sampling_rate: 22050\n", "")
    config.write_text(text)
    assert list(detect_and_load(tmp_path).assumed) == ["sample_rate"]
    config.write_text(text + "feats_extract_conf:\n  fs: 44100\n")
    checkpoint = detect_and_load(tmp_path)
    assert (checkpoint.config.sample_rate, checkpoint.origins) == (44100, {})


def test_a_front_end_without_its_upper_bound_is_not_known(tmp_path: Path) -> None:
    for dialect in ("jik876", "bigvgan", "hiftnet"):
        folder = written(dialect, tmp_path / dialect)
        config = folder / "config.json"
        assert detect_and_load(folder).config.mel is not None
        config.write_text(config.read_text().replace('"fmax"', '"x"'))
        assert detect_and_load(folder).config.mel is None


def test_the_callers_rate(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = written("speecht5", tmp_path / "fixed")
    for rate in (True, 0, -3, 16000.0, "16000"):
        with pytest.raises(ArgumentError, match="sample_rate: expected a positive integer"):
            fastvoc.load(folder, sample_rate=rate)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match=r"sample_rate: got 22050, the checkpoint has 16000 Hz \(its files say so"):
        fastvoc.load(folder, sample_rate=22050)
    with pytest.raises(ArgumentError, match=r"24000 Hz \(a constant of Chatterbox"):
        fastvoc.load(written("chatterbox", tmp_path / "constant"), sample_rate=22050)
    folder = written("univnet without its extractor", tmp_path / "open")
    with pytest.warns(AssumptionWarning, match="sample_rate 24000 is assumed"):
        fastvoc.load(folder, backend="torch")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert fastvoc.load(folder, sample_rate=16000, backend="torch").sample_rate == 16000
    assert "sample_rate" not in "".join(str(w.message) for w in caught)
    assert run(capfd, "convert", folder, tmp_path / "o.safetensors", "--sample-rate", 16000)[0] == 0
    again = detect_and_load(tmp_path / "o.safetensors")
    assert again.config.sample_rate == 16000
    assert "sample_rate" not in again.assumed
    with pytest.raises(ArgumentError, match="sample_rate"):
        fastvoc.load(tmp_path / "o.safetensors", sample_rate=24000)


def test_an_encodec_at_the_callers_rate(tmp_path: Path) -> None:
    folder = written("encodec mono", tmp_path)
    codec = fastvoc.load(folder, sample_rate=16000, backend="torch")
    assert codec.sample_rate == 16000
    assert codec.config.codebooks(codec.config.bandwidths[-1]) <= codec.config.n_q
    assert not codec.assumed
    with pytest.raises(ArgumentError, match=r"EncodecConfig\.sample_rate"):
        fastvoc.load(folder, sample_rate=1 << 30)


def test_the_callers_front_end(tmp_path: Path) -> None:
    folder = written("speecht5", tmp_path / "x")
    mine = replace(SPEECHT5_16K, f_min=0.0, f_max=None)
    voc = fastvoc.load(folder, mel=mine, backend="torch")
    assert (voc.mel_config, voc.assumed) == (mine, {})
    for wrong, named in (
        (replace(mine, sample_rate=22050), "mel.sample_rate: got 22050, the model has 16000"),
        (replace(mine, hop_length=128), "mel.hop_length: got 128, the model has 256"),
        (replace(mine, n_mels=40), "mel.n_mels: got 40, the model has 80"),
        (80, "mel: expected a fastvoc.sound.mel.MelConfig, got int"),
    ):
        with pytest.raises(ArgumentError, match=named):
            fastvoc.load(folder, mel=wrong)  # type: ignore[arg-type]
    stated = written("jik876", tmp_path / "y")
    read = detect_and_load(stated).config.mel
    assert isinstance(read, MelConfig)
    assert fastvoc.load(stated, mel=read, backend="torch").mel_config == read
    with pytest.raises(ArgumentError, match=r"mel: got .*, the checkpoint has"):
        fastvoc.load(stated, mel=replace(read, f_min=20.0))
    for dialect in ("encodec transformers", "vocos on codes"):
        with pytest.raises(ArgumentError, match="has no mel front end"):
            fastvoc.load(written(dialect, tmp_path / dialect), mel=mine)
    # A front end says its rate, too, where the files leave it open.
    folder = written("univnet without its extractor", tmp_path / "z")
    config = detect_and_load(folder).config
    mel = MelConfig(16000, 64, 64, config.hop, config.num_mels)
    voc = fastvoc.load(folder, mel=mel, backend="torch")
    assert (voc.sample_rate, voc.mel_config, voc.assumed) == (16000, mel, {})


def test_the_front_end_follows_the_callers_rate(tmp_path: Path) -> None:
    folder = written("speecht5 without a rate", tmp_path)
    with pytest.raises(ArgumentError, match="the default of model_type"):
        fastvoc.load(folder, sample_rate=8000)
    origins = {fact: Origin("assumed", "x") for fact in ("sample_rate", "mel")}
    open_ = Checkpoint(HifiGanConfig(mel=replace(TACOTRON2_22K, f_min=5000.0)), {}, "x", origins=origins)
    for rate, bounds in ((16000, (5000, 8000)), (12000, (5000, 6000)), (48000, (5000, 8000))):
        mel = with_given(open_, rate).config.mel
        assert (mel.sample_rate, mel.f_min, mel.f_max) == (rate, *bounds)
    assert with_given(open_, 8000).config.mel is None


@pytest.mark.parametrize("value", [3, [], {"sample_rate": 3}])
def test_a_native_file_with_broken_assumptions(value: object, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_checkpoint(detect_and_load(written("speechbrain", tmp_path / "x")), path)
    with safe_open(path, "pt") as file:
        text = json.loads(file.metadata()["fastvoc"])
    tensors = load_file(path)
    save_file(tensors, path, {"fastvoc": json.dumps({**text, "assumed": value})})
    with pytest.raises(LoadError, match=r"fastvoc\.assumed"):
        detect_and_load(path)
