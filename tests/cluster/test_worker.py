"""What a worker does with a block, and where its rows go; without a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from codec_models import MONO, STEREO, lively

from fastvoc.codec import Codec
from fastvoc.errors import ArgumentError, DecodeError, FastvocError
from fastvoc.ray.coding import Decoding, Encoding
from fastvoc.ray.output import Output
from fastvoc.ray.report import Report
from fastvoc.ray.vocoding import Vocoding
from fastvoc.ray.work import Source, Work
from fastvoc.ray.worker import Worker
from fastvoc.runtime.io import create
from fastvoc.sound.audio import read_audio
from fastvoc.vocoder import Vocoder

pa: Any = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
pq: Any = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")

MELS = [torch.randn(80, n, generator=torch.Generator().manual_seed(n)) * 2 - 5 for n in (7, 31, 12, 31, 8)]


@pytest.fixture(autouse=True)
def _threads() -> Any:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def worker(work: Work, output: Output | None = None, frames: int = 60) -> Worker:
    return Worker(work, 1, frames, output, None if output is None else output.written())


def mels(values: list[Any]) -> Any:
    return pa.array([v if v is None else np.asarray(v).tolist() for v in values], pa.list_(pa.list_(pa.float32())))


def block(ids: list[Any] | None = None) -> Any:
    """Rows of which one has NaN, one is null and one is transposed."""
    bad = [torch.full((80, 5), float("nan")), None, torch.zeros(7, 80)]
    ids = list("abcdefgh") if ids is None else ids
    return pa.table({"id": ids, "mel": mels([*MELS, *bad]), "n": [1, None, 3, 4, 5, 6, 7, 8]})


def vocoding(voc: Vocoder) -> Vocoding:
    return Vocoding(Source.of(voc, "cpu", None, None))


def test_good_rows_are_made_and_others_tell_why(voc: Vocoder) -> None:
    made = worker(vocoding(voc))(block())
    assert made.column_names == ["id", "n", "wav", "sample_rate", "error", "warning"]
    assert made.column("n").to_pylist() == [1, None, 3, 4, 5, 6, 7, 8]
    for found, wav in zip(made.column("wav").to_pylist()[:5], voc.each(MELS, check=False), strict=True):
        assert np.array_equal(np.array(found, np.float32), wav.numpy())
    assert made.column("wav").to_pylist()[5:] == [None] * 3
    errors = made.column("error").to_pylist()
    assert errors[:5] == [None] * 5
    assert errors[5].startswith("ArgumentError: mel: holds NaN")
    assert errors[6].startswith("DtypeError: mel: expected an array of numbers, got None")
    assert "it is transposed" in errors[7]


def test_a_strange_mel_is_made_with_a_warning(voc: Vocoder) -> None:
    made = worker(vocoding(voc))(pa.table({"mel": mels([torch.rand(80, 90).pow(9)])}))
    assert made.column("warning")[0].as_py().startswith("the mel looks linear magnitudes")
    assert made.column("error")[0].as_py() is None


def test_a_batch_that_fails_is_tried_row_by_row(voc: Vocoder, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Vocoder.each

    def each(self: Vocoder, items: Any, **more: Any) -> Any:
        if any(item.shape[1] == 12 for item in items):
            raise RuntimeError("out of memory")
        return whole(self, items, **more)

    monkeypatch.setattr(Vocoder, "each", each)
    made = worker(vocoding(voc), frames=1000)(block())
    assert [error is None for error in made.column("error").to_pylist()[:5]] == [True, True, False, True, True]
    assert made.column("error")[2].as_py() == "RuntimeError: out of memory"


@pytest.mark.parametrize("format", ["parquet", "wav", "flac"])
def test_rows_written_are_not_made_again(voc: Vocoder, tmp_path: Path, format: str) -> None:
    work = vocoding(voc)
    output = Output(tmp_path / "out", "id", format).begin(work.facts())
    first = worker(work, output)(block()).to_pylist()[0]
    output.end()
    assert (first["written"], first["there"], len(first["failed"])) == (5, 0, 3)
    assert first["seconds"] == pytest.approx(sum(mel.shape[1] for mel in MELS) * 256 / 22050)
    assert [pair["id"] for pair in first["failed"]] == ["f", "g", "h"]
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("[!_]*")}
    again = output.begin(work.facts())
    second = worker(work, again)(block()).to_pylist()[0]
    again.end()
    assert (second["written"], second["there"], len(second["failed"])) == (0, 5, 3)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("[!_]*")} == files
    failed = pq.read_table(tmp_path / "out" / "_failed")
    assert failed.column("id").to_pylist() == ["f", "g", "h"]
    assert failed.column("n").to_pylist() == [6, 7, 8]


def test_blocks_with_nothing_to_do(voc: Vocoder, tmp_path: Path) -> None:
    work, good = vocoding(voc), block().slice(0, 5)
    for format in ("parquet", "wav"):
        output = Output(tmp_path / format, "id", format).begin(work.facts())
        worker(work, output)(good)
        output.end()
        again = output.begin(work.facts())
        for table, there in ((good, 5), (good.slice(0, 0), 0)):
            told = worker(work, again)(table).to_pylist()[0]
            assert told == {"written": 0, "there": there, "seconds": 0.0, "failed": [], "warned": [], "ids": []}
    assert worker(work)(good.slice(0, 0)).num_rows == 0


def test_parquet_has_the_samples(voc: Vocoder, tmp_path: Path) -> None:
    work = vocoding(voc)
    output = Output(tmp_path, "id", "parquet").begin(work.facts())
    for _ in range(2):  # as by a worker that was lost when it had written
        Worker(work, 1, 60, output, None)(block())
    table = pq.read_table(sorted(tmp_path.glob("part-*.parquet")))
    assert table.column("id").to_pylist() == list("abcde")
    for found, wav in zip(table.column("wav").to_pylist(), voc.each(MELS, check=False), strict=True):
        assert np.array_equal(np.array(found, np.float32), wav.numpy())


def test_audio_files_are_named_by_ids(voc: Vocoder, tmp_path: Path) -> None:
    work = vocoding(voc)
    output = Output(tmp_path, "id", "wav", True).begin(work.facts())
    ids = ["a", "deep/er/b", "../c", "/d", "a", "x", "y", "z"]
    report = worker(work, output)(block(ids)).to_pylist()[0]
    assert report["written"] == 2
    told = {pair["id"]: pair["text"] for pair in report["failed"]}
    assert told["../c"].startswith("ArgumentError: id: expected a name of a file inside the output, got '../c'")
    assert told["a"] == "ArgumentError: id: 'a' comes twice"
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.wav")) == ["a.wav", "deep/er/b.wav"]
    wav, rate = read_audio(tmp_path / "deep" / "er" / "b.wav")
    assert rate == 22050
    assert torch.equal(wav[0], voc.each([MELS[1]], check=False)[0])


@pytest.mark.parametrize("format", ["parquet", "wav", "flac"])
def test_no_block_loses_the_rows_of_another_with_its_ids(voc: Vocoder, tmp_path: Path, format: str) -> None:
    """Audio files keep the first sound and the row that came later is told to have failed; Parquet files have both."""
    work, report = vocoding(voc), Report()
    output = Output(tmp_path, "id", format).begin(work.facts())
    for n in (0, 1, 0):  # the first one again, as after a worker that was lost
        rows = pa.table({"id": ["a"], "mel": mels([MELS[n]]), "n": [n]})
        report.add(Worker(work, 1, 60, output, None)(rows).to_pylist()[0])
    wanted = voc.each(MELS[:2], check=False)
    if format == "parquet":
        table = pq.read_table(sorted(tmp_path.glob("part-*.parquet"))).sort_by("n")
        assert table.column("n").to_pylist() == [0, 1]
        for found, wav in zip(table.column("wav").to_pylist(), wanted, strict=True):
            assert np.array_equal(np.array(found, np.float32), wav.numpy())
        assert "comes twice" in report.warnings["a"]
        return
    assert (report.written, report.failed) == (2, 1)
    assert report.errors["a"].startswith("ArgumentError: id: 'a' comes twice, with another sound")
    assert len(read_audio(tmp_path / f"a.{format}")[0][0]) == len(wanted[0])
    assert pq.read_table(tmp_path / "_failed").column("n").to_pylist() == [1]
    assert not list(tmp_path.glob(f".*.{format}"))


def test_a_new_file_takes_no_other_ones_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise PermissionError("no links here")

    for links in (True, False):
        if not links:
            monkeypatch.setattr("os.link", none)
        path = tmp_path / f"{links}.wav"
        assert [create(path, data) for data in (b"one", b"two")] == [True, False]
        assert path.read_bytes() == b"one"
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    "name", [None, "", ".", "..", "a/../b", "/a", "a//b", ".a", "_failed/a", "a\0b", "a\\b", 1.5, True]
)
def test_ids_that_name_no_file(tmp_path: Path, name: object) -> None:
    with pytest.raises(ArgumentError, match="id: expected a"):
        Output(tmp_path, "id", "wav").place(name)


def test_a_folder_takes_the_rows_of_one_job(voc: Vocoder, tmp_path: Path) -> None:
    facts = vocoding(voc).facts()
    Output(tmp_path / "out", "id", "wav").begin(facts).end()
    for other, message in (
        (Output(tmp_path / "out", "id", "parquet"), "has rows made with format 'wav', not 'parquet'"),
        (Output(tmp_path / "out", "name", "wav"), "has rows made with id 'id', not 'name'"),
    ):
        with pytest.raises(ArgumentError, match=message):
            other.begin(facts)
    with pytest.raises(ArgumentError, match="has rows made with model"):
        Output(tmp_path / "out", "id", "wav").begin({**facts, "model": "other"})
    (tmp_path / "file").write_text("")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "x").write_text("")
    for output, message in (
        (Output(tmp_path / "file", "id", "wav"), "expected a folder"),
        (Output(tmp_path / "foreign", "id", "wav"), "expected a new or empty folder"),
        (Output(tmp_path / "new", "id", "mp3"), "format: expected one of parquet, wav, flac, got 'mp3'"),
        (Output(tmp_path / "new", "id", "flac", True), "float32: of .wav files"),
    ):
        with pytest.raises(ArgumentError, match=message):
            output.begin(facts)
    assert not (tmp_path / "new").exists()
    (tmp_path / "out" / "_fastvoc.json").write_text("[")
    with pytest.raises(ArgumentError, match="is damaged"):
        Output(tmp_path / "out", "id", "wav").begin(facts)


def test_a_damaged_parquet_file_is_named(voc: Vocoder, tmp_path: Path) -> None:
    output = Output(tmp_path, "id", "parquet").begin(vocoding(voc).facts())
    (tmp_path / "part-0.parquet").write_text("no")
    with pytest.raises(DecodeError, match=r"part-0\.parquet: no Parquet file of a job"):
        output.written()


def test_a_node_without_the_folder_is_refused(voc: Vocoder, tmp_path: Path) -> None:
    output = Output(tmp_path / "out", "id", "wav").begin(vocoding(voc).facts())
    output.end()
    with pytest.raises(FastvocError, match="is not the folder that the job began with"):
        worker(vocoding(voc), output)


def codec(stereo: bool) -> Codec:
    config = STEREO if stereo else MONO
    return Codec(lively(config), config)


@pytest.mark.parametrize("stereo", [False, True])
def test_codes_there_and_back(stereo: bool) -> None:
    one = codec(stereo)
    source = Source.of(one, "cpu", None, None)
    sizes = (700, 2500, 1300, 5)
    wavs = [torch.rand(one.channels, n) - 0.5 for n in sizes]
    lists = pa.list_(pa.list_(pa.float32()))
    table = pa.table({"id": list("abcd"), "wav": pa.array([wav.tolist() for wav in wavs], lists)})
    coded = worker(Encoding(source), frames=40)(table)
    assert coded.column("error").to_pylist() == [None] * 4, coded
    assert coded.column("samples").to_pylist() == list(sizes)
    alone = [one.encode(wav) for wav in wavs]
    for found, codes in zip(coded.column("codes").to_pylist(), alone, strict=True):
        assert torch.equal(torch.tensor(found), codes.codes if codes.codes.dim() == 2 else codes.codes[0])
    decoding = Decoding(source, scale="scale", samples="samples")
    back = worker(decoding, frames=40)(coded.drop_columns(["error", "warning", "sample_rate"]))
    assert back.column("error").to_pylist() == [None] * 4
    for found, codes in zip(back.column("wav").to_pylist(), alone, strict=True):
        wav = torch.tensor(found)
        assert torch.equal(wav if stereo else wav[None], one.decode(codes).reshape(one.channels, -1))


def test_codes_that_do_not_fit() -> None:
    one = codec(False)
    kind = pa.list_(pa.list_(pa.int64()))
    table = pa.table({"codes": pa.array([[[1, 2]], [[1, 99999]], None, [[1]]], kind), "samples": [600, 600, 3, 0]})
    made = worker(Decoding(Source.of(one, "cpu", None, None), samples="samples"))(table)
    errors = made.column("error").to_pylist()
    assert all(error is not None for error in errors[1:]), errors
    plain = worker(Decoding(Source.of(one, "cpu", None, None)))(table.drop_columns(["samples"]))
    assert [error is None for error in plain.column("error").to_pylist()] == [True, False, False, True]


def test_waveforms_of_other_rates() -> None:
    one = codec(False)
    wav = (torch.rand(2000) - 0.5).tolist()
    table = pa.table({"wav": pa.array([wav, wav], pa.list_(pa.float32())), "hz": [one.sample_rate, 16000]})
    made = worker(Encoding(Source.of(one, "cpu", None, None), rate="hz"))(table)
    assert made.column("samples").to_pylist() == [2000, 2000 * one.sample_rate // 16000]


def test_sources(voc: Vocoder, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model.parent)
    source = Source.of(model.name, "cpu", None, "torch")
    monkeypatch.chdir(tmp_path)
    assert source.vocoder().backend == "torch"
    assert Source.of(voc, "cpu", None, None).vocoder() is voc
    with pytest.raises(ArgumentError, match="model: expected a Codec"):
        Source.of(voc, "cpu", None, None).codec()
    with pytest.raises(ArgumentError, match="dtype, backend"):
        Source.of(voc, "cpu", "fp16", None)
