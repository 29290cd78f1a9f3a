"""Vocoding, encoding and decoding whole datasets of Ray Data: actors with a model each, rows in batches by length."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict, overload

from fastvoc.errors import ArgumentError, DtypeError, LoadError, shown
from fastvoc.loaded import LoadedModel
from fastvoc.loading import parse_dtype, read_checkpoint
from fastvoc.models.families import meta_model
from fastvoc.models.whole_codec import CodecModel
from fastvoc.nn.model import Input, Model
from fastvoc.ray.batches import check_frames
from fastvoc.ray.coding import Decoding, Encoding
from fastvoc.ray.columns import check_columns
from fastvoc.ray.output import Output
from fastvoc.ray.package import import_ray, through_actors
from fastvoc.ray.report import Report
from fastvoc.ray.vocoding import Vocoding
from fastvoc.ray.work import Source, Work
from fastvoc.ray.worker import Worker

if TYPE_CHECKING:
    from ray.data import Dataset
    from typing_extensions import Unpack

Form = Literal["parquet", "wav", "flac"]


class Resources(TypedDict, total=False):
    """What every job takes.

    workers: actors, each with its own copy of the model: a number, or (least, most); from 1 to as many as the cluster
    has room for when None. Leave room for the tasks that read the dataset: with none left, nothing runs.
    num_cpus: CPUs, and so threads, of a worker. num_gpus: more than 0 runs the model on the worker's GPU.
    dtype, backend: as `fastvoc.load`. frames: the most of a batch, with its padding, in frames of the model.
    """

    workers: int | tuple[int, int] | None
    num_cpus: float
    num_gpus: float
    dtype: str | None
    backend: str | None
    frames: int


@dataclass(frozen=True)
class _Pool:
    """`Resources`, checked."""

    workers: int | tuple[int, int] | None = None
    num_cpus: float = 1
    num_gpus: float = 0
    dtype: str | None = None
    backend: str | None = None
    frames: int = 8000

    def __post_init__(self) -> None:
        few, many = (self.workers, self.workers) if not isinstance(self.workers, tuple) else self.workers
        if self.workers is not None and not (_counts(few) and _counts(many) and few <= many):  # type: ignore[operator]
            raise ArgumentError(f"workers: expected 1 or more, or (least, most), got {shown(self.workers)}")
        for name in ("num_cpus", "num_gpus"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
                raise ArgumentError(f"{name}: expected 0 or more, got {shown(value)}")
        if not self.num_cpus and not self.num_gpus:
            raise ArgumentError("num_cpus: expected more than 0 where num_gpus is 0, got 0")
        if self.dtype is not None:
            parse_dtype(self.dtype)
        check_frames(self.frames)

    @property
    def device(self) -> str:
        return "cuda" if self.num_gpus else "cpu"

    @property
    def threads(self) -> int:
        return max(1, int(self.num_cpus))

    def source(self, model: str | os.PathLike[str] | LoadedModel) -> Source:
        return Source.of(model, self.device, self.dtype, self.backend)


@overload
def vocode(
    dataset: Dataset,
    model: str | os.PathLike[str] | LoadedModel = ...,
    *,
    column: str = ...,
    inputs: Mapping[str, str] | None = ...,
    options: Mapping[str, Input] | None = ...,
    output: None = ...,
    **resources: Unpack[Resources],
) -> Dataset: ...
@overload
def vocode(
    dataset: Dataset,
    model: str | os.PathLike[str] | LoadedModel = ...,
    *,
    column: str = ...,
    inputs: Mapping[str, str] | None = ...,
    options: Mapping[str, Input] | None = ...,
    output: str | os.PathLike[str],
    id: str = ...,
    format: Form = ...,
    float32: bool = ...,
    **resources: Unpack[Resources],
) -> Report: ...
def vocode(
    dataset: Dataset,
    model: str | os.PathLike[str] | LoadedModel = "hifigan",
    *,
    column: str = "mel",
    inputs: Mapping[str, str] | None = None,
    options: Mapping[str, Input] | None = None,
    output: str | os.PathLike[str] | None = None,
    id: str = "id",
    format: Form = "parquet",
    float32: bool = False,
    **resources: Unpack[Resources],
) -> Dataset | Report:
    """Makes the waveforms of a dataset's mels.

    Args:
        dataset: with a column of mels [n_mels, T], T of any length: arrays or lists of lists, floating-point.
        model: a vocoder: name, file, folder or hub id that every worker loads (a path must be there on all nodes), or
            one that `fastvoc.load` returned, which is sent to them.
        column: the mels' column, which is not kept; all others are.
        inputs: columns of what the model takes besides, by its own names, such as {"f0": "pitch"}: numbers, or arrays
            whose last axis may be of frames.
        options: what it takes besides that is the same for all rows, such as {"seed": 3}.
        output: a folder that all nodes see, where the rows go. Rows whose id is there already are passed over, so that
            a job that was stopped goes on; rows that failed are tried again. One job at a time writes into a folder.
        id: with `output`, the column that names the rows: texts or whole numbers, each only once.
        format: "parquet"; or "wav" or "flac", one file a row, whose name is its id, which may have folders in it.
        float32: 32-bit instead of 16-bit samples in .wav files.
        resources: see `Resources`.

    Returns:
        Without output a dataset with `wav`, float32 samples [S] that are those of `voc.each` bit for bit, `sample_rate`
        in Hz, `error` and `warning`. A row that fails has its `error` there and no `wav`; the others of its block are
        made. With output, when all is done, a `Report`; then failed rows are in the Parquet files of its `_failed`.

    Raises:
        ArgumentError, DtypeError, LoadError: before any worker starts: an argument, a column or a model that does not
            fit; an output that holds something else.
        FastvocError: Ray is not installed.
    """
    pool = _Pool(**resources)
    found = _model(model, pool, codec=False)
    given, same = dict(inputs or {}), dict(options or {})
    for name in (*given, *same):
        if name not in found.inputs:
            takes = ", ".join(found.inputs) or "nothing but the mel"
            raise ArgumentError(f"inputs: {type(found).__name__} has no {name!r}, it takes {takes}")
        if name in given and name in same:
            raise ArgumentError(f"inputs, options: {name!r} is in both")
    work = Vocoding(pool.source(model), column, given, same)
    return _run(dataset, work, pool, _output(output, id, format, float32))


@overload
def encode(
    dataset: Dataset,
    model: str | os.PathLike[str] | LoadedModel = ...,
    *,
    column: str = ...,
    rate: str | None = ...,
    bandwidth: float | None = ...,
    codebooks: int | None = ...,
    output: None = ...,
    **resources: Unpack[Resources],
) -> Dataset: ...
@overload
def encode(
    dataset: Dataset,
    model: str | os.PathLike[str] | LoadedModel = ...,
    *,
    column: str = ...,
    rate: str | None = ...,
    bandwidth: float | None = ...,
    codebooks: int | None = ...,
    output: str | os.PathLike[str],
    id: str = ...,
    **resources: Unpack[Resources],
) -> Report: ...
def encode(
    dataset: Dataset,
    model: str | os.PathLike[str] | LoadedModel = "encodec",
    *,
    column: str = "wav",
    rate: str | None = None,
    bandwidth: float | None = None,
    codebooks: int | None = None,
    output: str | os.PathLike[str] | None = None,
    id: str = "id",
    **resources: Unpack[Resources],
) -> Dataset | Report:
    """Makes the codes of a dataset's waveforms.

    Args:
        dataset: with a column of waveforms [S] (mono models) or [C, S], floating-point samples in -1..1.
        model: a codec, as `vocode` has a vocoder.
        column: the waveforms' column, which is not kept.
        rate: a column of their sample rates in Hz, where they are not all the codec's: those are resampled, and mixed
            to one channel for a mono model.
        bandwidth, codebooks: as `Codec.encode`.
        output, id, resources: as `vocode`; the format is Parquet.

    Returns:
        As `vocode`, with `codes` [K, T], those of `Codec.encode` of the row alone; of a model that cuts signals into
        segments (EnCodec at 48 kHz) one segment after the other; `scale`, their volumes or null; `samples` and
        `sample_rate` of what was encoded: what `decode` takes.

    Raises as `vocode`, and ArgumentError for a bandwidth or number of codebooks that the model does not have.
    """
    pool = _Pool(**resources)
    _model(model, pool, codec=True)
    work = Encoding(pool.source(model), column, rate, bandwidth, codebooks)
    return _run(dataset, work, pool, _output(output, id, "parquet"))


@overload
def decode(
    dataset: Dataset,
    model: str | os.PathLike[str] | LoadedModel = ...,
    *,
    column: str = ...,
    scale: str | None = ...,
    samples: str | None = ...,
    seed: int | None = ...,
    output: None = ...,
    **resources: Unpack[Resources],
) -> Dataset: ...
@overload
def decode(
    dataset: Dataset,
    model: str | os.PathLike[str] | LoadedModel = ...,
    *,
    column: str = ...,
    scale: str | None = ...,
    samples: str | None = ...,
    seed: int | None = ...,
    output: str | os.PathLike[str],
    id: str = ...,
    format: Form = ...,
    float32: bool = ...,
    **resources: Unpack[Resources],
) -> Report: ...
def decode(
    dataset: Dataset,
    model: str | os.PathLike[str] | LoadedModel = "encodec",
    *,
    column: str = "codes",
    scale: str | None = None,
    samples: str | None = None,
    seed: int | None = None,
    output: str | os.PathLike[str] | None = None,
    id: str = "id",
    format: Form = "parquet",
    float32: bool = False,
    **resources: Unpack[Resources],
) -> Dataset | Report:
    """Makes the waveforms of a dataset's codes.

    Args:
        dataset: with a column of codes [K, T], whole numbers.
        model: a codec, as `vocode` has a vocoder.
        column: the codes' column, which is not kept.
        scale: a column of volumes [segments], null where there are none.
        samples: a column of the samples of each row, to which it is cut; what the codes make when None. A model that
            cuts signals into segments needs it for signals of more than one.
        seed: of a model with noise (SNAC), for every row.
        output, id, format, float32, resources: as `vocode`.

    Returns:
        As `vocode`, with `wav` [S], or [C, S] of a model with several channels, as `Codec.decode` of the row alone.

    Raises as `vocode`.
    """
    pool = _Pool(**resources)
    found = _model(model, pool, codec=True)
    assert isinstance(found, CodecModel)
    if seed is not None and "seed" not in found.decode_inputs:
        raise ArgumentError(f"seed: {type(found).__name__} takes none")
    work = Decoding(pool.source(model), column, scale, samples, seed)
    return _run(dataset, work, pool, _output(output, id, format, float32))


def _run(dataset: Dataset, work: Work, pool: _Pool, output: Output | None) -> Dataset | Report:
    """The rows, or when they are all written what became of them."""
    data = import_ray("data")
    if not isinstance(dataset, data.Dataset):
        raise DtypeError(f"dataset: expected a ray.data.Dataset, got {type(dataset).__name__}")
    names = dataset.columns()
    check_columns([*work.columns, *([] if output is None else [output.key])], names or [])
    if output is None:
        return _mapped(dataset, work, pool, None, None)
    output = output.begin(work.facts())
    report = Report()
    try:
        counted = _mapped(dataset, work, pool, output, output.written())
        for table in counted.iter_batches(batch_size=None, batch_format="pyarrow"):
            for row in table.to_pylist():
                report.add(row)
    finally:
        output.end()
    return report


def _mapped(dataset: Dataset, work: Work, pool: _Pool, output: Output | None, written: object) -> Dataset:
    settings = {"work": work, "threads": pool.threads, "frames": pool.frames, "output": output, "written": written}
    cpus, gpus = pool.num_cpus, pool.num_gpus or None
    return through_actors(dataset, Worker, settings, _workers(pool), num_cpus=cpus, num_gpus=gpus)


def _workers(pool: _Pool) -> tuple[int, int]:
    """The least and the most."""
    import ray

    if isinstance(pool.workers, tuple):
        return pool.workers
    if pool.workers is not None:
        return pool.workers, pool.workers
    there = ray.cluster_resources() if ray.is_initialized() else {"CPU": os.cpu_count() or 1}
    wanted = (("CPU", pool.num_cpus), ("GPU", pool.num_gpus))
    room = [int(there.get(name, 0) / count) for name, count in wanted if count]
    return 1, max(1, min(room))


def _model(model: str | os.PathLike[str] | LoadedModel, pool: _Pool, *, codec: bool) -> Model:
    """The model without its weights. Raises LoadError where it cannot be found or is of the other kind."""
    if isinstance(model, LoadedModel):
        found, name = model.model, repr(model)
    else:
        pool.source(model)
        found, name = meta_model(read_checkpoint(model).config), os.fspath(model)
    if isinstance(found, CodecModel) != codec:
        kinds = ("codec", "vocoder") if codec else ("vocoder", "codec")
        raise LoadError(f"{name}: a {kinds[1]} ({type(found).__name__}), expected a {kinds[0]}")
    return found


def _output(output: str | os.PathLike[str] | None, key: str, format: Form, float32: bool = False) -> Output | None:
    if output is None:
        return None
    if not isinstance(output, str | os.PathLike) or not os.fspath(output) or "://" in os.fspath(output):
        raise ArgumentError(f"output: expected a folder that all nodes see, got {shown(output)}")
    return Output(Path(output).resolve(), key, format, float32)


def _counts(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
