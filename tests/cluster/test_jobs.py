"""Jobs on a local Ray of two workers, one of which is killed in the middle."""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from codec_models import MONO, lively

import fastvoc.ray
from fastvoc.codec import Codec
from fastvoc.errors import ArgumentError, DtypeError, LoadError
from fastvoc.sound.audio import read_audio
from fastvoc.vocoder import Vocoder

pytestmark = pytest.mark.filterwarnings("ignore")  # what Ray warns of is not ours


def mels(sizes: list[int]) -> list[np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    return [(2 * rng.standard_normal((80, n)) - 5).astype(np.float32) for n in sizes]


def workers(ray: Any, name: str) -> list[int]:
    """Processes of this job's actors whose class has this in its name."""
    job = ray.get_runtime_context().get_job_id()
    actors = ray._private.state.actors().values()
    own = [actor for actor in actors if actor["JobID"] == job and actor["State"] == "ALIVE"]
    return [actor["Pid"] for actor in own if name in actor["ActorClassName"]]


@pytest.fixture
def pq(cluster: Any) -> Any:
    """pyarrow's reader, which comes with Ray."""
    return pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")


def test_a_worker_killed_in_the_middle(cluster: Any, model: Path, voc: Vocoder, tmp_path: Path, pq: Any) -> None:
    """Nothing is lost and nothing comes twice; a second job finds all there; the samples are those of `voc.each`."""
    sizes = [100 + 5 * (i % 11) for i in range(48)]
    values = mels(sizes)
    values[9] = np.full((80, 30), np.nan, np.float32)
    items = [{"id": f"row {i}", "mel": value, "n": i} for i, value in enumerate(values)]
    dataset = cluster.data.from_items(items, override_num_blocks=16)
    out, killed = tmp_path / "out", list[tuple[int, int]]()
    over = threading.Event()

    def kill() -> None:
        while not over.is_set():
            there = len(list(out.glob("part-*.parquet")))
            if there >= 3 and (found := workers(cluster, "MapBatches(Worker)")):
                killed.append((found[0], there))
                os.kill(found[0], signal.SIGKILL)
                return
            time.sleep(0.01)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        report = fastvoc.ray.vocode(dataset, model, output=out, workers=2)
    finally:
        over.set()
        thread.join()
    assert killed
    assert killed[0][1] < 16, "too late to be in the middle"
    table = pq.read_table(sorted(out.glob("part-*.parquet"))).sort_by("n")
    good = [i for i in range(48) if i != 9]
    assert table.column("n").to_pylist() == good
    assert table.column("id").to_pylist() == [f"row {i}" for i in good]
    expected = voc.each([values[i] for i in good], check=False)
    for wav, wanted in zip(table.column("wav"), expected, strict=True):
        assert np.array_equal(wav.values.to_numpy(), wanted.numpy())
    assert (report.written, report.there, report.failed) == (47, 0, 1)
    assert report.errors["row 9"].startswith("ArgumentError: mel: holds NaN or infinity")
    assert pq.read_table(out / "_failed").column("id").to_pylist() == ["row 9"]

    items[9]["mel"] = mels([30])[0]
    again = fastvoc.ray.vocode(cluster.data.from_items(items, override_num_blocks=2), model, output=out, workers=1)
    assert (again.written, again.there, again.failed) == (1, 47, 0)
    ids = pq.read_table(sorted(out.glob("part-*.parquet")), columns=["id"]).column(0).to_pylist()
    assert sorted(ids) == sorted(f"row {i}" for i in range(48))
    assert not list((out / "_failed").glob("*"))


@pytest.mark.filterwarnings("default")
def test_no_warning_of_ray_is_ours(cluster: Any, model: Path) -> None:
    """Ray 2.60 warns of arguments of `map_batches`, where they are called from."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fastvoc.ray.vocode(cluster.data.from_items([{"mel": mels([9])[0]}]), model, workers=1)
    own = str(Path(fastvoc.ray.__file__).parents[1])
    assert [str(one.message) for one in caught if one.filename.startswith(own)] == []


def test_datasets_in_both_forms_and_codes(cluster: Any, voc: Vocoder) -> None:
    """A loaded model is sent along; a stacked block beside a ragged one; codes of what was made, and back."""
    values = mels([20, 20, 31, 8])
    items = [{"id": i, "mel": value} for i, value in enumerate(values)]
    made = fastvoc.ray.vocode(cluster.data.from_items(items, override_num_blocks=2), voc, workers=1)
    codec = Codec(lively(MONO), MONO)
    coded = fastvoc.ray.encode(made.materialize(), codec, workers=1).materialize()
    back = fastvoc.ray.decode(coded, codec, samples="samples", workers=1)
    rows = sorted(back.take_all(), key=lambda row: row["id"])
    for wav, row in zip(voc.each(values, check=False), rows, strict=True):
        assert torch.equal(torch.tensor(np.asarray(row["wav"], np.float32)), codec(wav))


def test_the_command(cluster: Any, model: Path, voc: Vocoder, tmp_path: Path, run: Any) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    values = mels([12, 30, 7])
    for name, value in zip(("a", "deep/b", "c"), values, strict=True):
        np.save(tmp_path / "in" / f"{name}.npy", value)
    (tmp_path / "in" / "broken.wav").write_text("no sound")
    arguments = ("vocode", tmp_path / "in", tmp_path / "out", "--model", model, "--float", "--ray")
    code, err = run(*arguments)
    assert (code, "3 written, 0 already there, 1 failed" in err) == (1, True), err
    assert f"error: {tmp_path}/in/broken.wav: " in err
    for name, value in zip(("a", "deep/b", "c"), values, strict=True):
        wav = read_audio(tmp_path / "out" / f"{name}.wav")[0][0]
        assert torch.equal(wav, voc(value, check=False))
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.wav", "c.wav", "deep"]
    (tmp_path / "in" / "broken.wav").unlink()
    code, err = run(*arguments)
    assert (code, "0 written, 3 already there, 0 failed" in err) == (0, True), err


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    from fastvoc.cli import main

    monkeypatch.setenv("TERM", "dumb")

    def run_main(*arguments: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        return int(left.value.code or 0), capsys.readouterr().err

    return run_main


def test_what_the_command_refuses(model: Path, tmp_path: Path, run: Any) -> None:
    np.save(tmp_path / "a.npy", mels([9])[0])
    code, err = run("vocode", tmp_path / "a.npy", tmp_path / "a.wav", "--model", model, "--ray")
    assert (code, "--ray: works on a folder" in err) == (2, True), err
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "a.npy", mels([9])[0])
    code, err = run("vocode", tmp_path / "in", tmp_path / "o", "--model", model, "--ray", "x", "--device", "cuda:1")
    assert (code, "--device: with --ray expected cpu or cuda" in err) == (2, True), err


def test_refusals_before_any_worker(cluster: Any, model: Path, voc: Vocoder, tmp_path: Path) -> None:
    dataset = cluster.data.from_items([{"id": 1, "mel": mels([9])[0]}])
    vocode: Any = fastvoc.ray.vocode
    for arguments, options, error, message in (
        ((dataset, "absent"), {}, LoadError, "absent: no such file or folder"),
        ((dataset, 3), {}, DtypeError, "model: expected a name, a path"),
        ((dataset, Codec(lively(MONO), MONO)), {}, LoadError, "a codec .*, expected a vocoder"),
        (([], model), {}, DtypeError, "dataset: expected a ray.data.Dataset, got list"),
        ((dataset, model), {"column": "x"}, ArgumentError, "no 'x' in the dataset, which has id, mel"),
        ((dataset, model), {"output": tmp_path / "o", "id": "x"}, ArgumentError, "no 'x' in the dataset"),
        ((dataset, model), {"output": "s3://bucket/x"}, ArgumentError, "output: expected a folder that all nodes see"),
        ((dataset, model), {"inputs": {"f0": "n"}}, ArgumentError, "inputs: HifiGan has no 'f0'"),
        ((dataset, model), {"workers": 0}, ArgumentError, "workers: expected 1 or more"),
        ((dataset, model), {"workers": (3, 2)}, ArgumentError, "workers: expected 1 or more"),
        ((dataset, model), {"num_cpus": 0}, ArgumentError, "num_cpus: expected more than 0"),
        ((dataset, model), {"num_gpus": -1}, ArgumentError, "num_gpus: expected 0 or more, got -1"),
        ((dataset, model), {"frames": 0}, ArgumentError, "frames: expected 1 or more"),
        ((dataset, model), {"dtype": "fp8"}, DtypeError, "dtype: expected fp32"),
        ((dataset, voc), {"dtype": "fp16"}, ArgumentError, "dtype, backend: only for a model that workers load"),
    ):
        with pytest.raises(error, match=message):
            vocode(*arguments, **options)
    with pytest.raises(LoadError, match=r"a vocoder .*, expected a codec"):
        fastvoc.ray.encode(dataset, model, column="mel")
    assert not (tmp_path / "o").exists()
