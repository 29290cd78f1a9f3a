"""`fastvoc vocode`: speech or mel spectrograms in, the model's speech out."""

from __future__ import annotations

import sys
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer

from fastvoc.cli.convert import Precision
from fastvoc.cli.output import check_file, output_path
from fastvoc.errors import ArgumentError, DecodeError

if TYPE_CHECKING:
    from fastvoc.cli.folder import Plan
    from fastvoc.vocoder import Vocoder


def vocode(
    source: Annotated[str, typer.Argument(metavar="IN", help="Audio, .npy or .safetensors mel, folder, or -.")],
    target: Annotated[str, typer.Argument(metavar="OUT", help=".wav or .flac file, folder, or - (WAV).")],
    model: Annotated[str, typer.Option(help="Name, file, folder or hub id of a vocoder.")] = "hifigan",
    device: Annotated[str, typer.Option(help="Where it runs: cpu, cuda, cuda:1.")] = "cpu",
    dtype: Annotated[Precision, typer.Option(help="Type of weights and activations.")] = Precision.fp32,
    backend: Annotated[str | None, typer.Option(help="Force torch, cpp, triton or cuda; best by default.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads, shared by the jobs.")] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Files at a time, for a folder: 1; with --ray all that the cluster has.")
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(metavar="[ADDRESS]", help="Work for a folder by Ray: the cluster at hand, or the one at ADDRESS."),
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="PNG of waveform and mel to write, for one file.")] = None,
    float32: Annotated[bool, typer.Option("--float", help="Write 32-bit float, not 16-bit, samples.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
) -> None:
    """Make speech from audio (by way of its mel spectrogram) or from mel spectrograms.

    A folder is searched to its depth; what is already in OUT is skipped, so that a stopped run goes on.

    Example: fastvoc vocode in.wav out.wav --plot out.png

    Example: fastvoc vocode mels/ wavs/ --model generator_v1 --jobs 2

    Example: fastvoc vocode mels/ wavs/ --ray --jobs 2 --threads 1

    Example: sox in.mp3 -t wav - | fastvoc vocode - - | aplay
    """
    from fastvoc.cli.folder import plan_folder, run_folder
    from fastvoc.loading import load
    from fastvoc.runtime.threads import set_num_threads
    from fastvoc.vocoder import Vocoder

    if source != "-" and not Path(source).exists():
        raise DecodeError(f"IN: {source}: no such file or folder")
    many = source != "-" and Path(source).is_dir()
    if many:
        if plot is not None:
            raise ArgumentError("--plot: draws one file, IN is a folder")
        plan = plan_folder(Path(source), target, force=force)
        if ray is not None:
            _vocode_by_ray(plan, model, ray, jobs, threads, device, dtype.value, backend, float32=float32)
            return
    else:
        if ray is not None:
            raise ArgumentError(f"--ray: works on a folder, IN is {source}")
        output = output_path(source, target, (".wav", ".flac"), force=force)
        if float32 and output is not None and output.suffix.lower() == ".flac":
            raise ArgumentError(f"--float: a FLAC file holds integers, give OUT the suffix .wav, not {output.name!r}")
        if plot is not None:
            from fastvoc.training.plots import need_matplotlib

            check_file("--plot", plot, (".png",), force=force)
            need_matplotlib()
    if threads is not None:
        set_num_threads(threads)
    voc = load(model, device=device, dtype=dtype.value, backend=backend)
    if not isinstance(voc, Vocoder):
        raise ArgumentError(f"--model: {model} is a codec, not a vocoder: {voc}")
    if many:
        run_folder(voc, plan, jobs=jobs or 1, float32=float32)
    else:
        _vocode_one(voc, source, output, plot, float32=float32)


def _vocode_by_ray(
    plan: Plan,
    model: str,
    address: str,
    jobs: int | None,
    threads: int | None,
    device: str,
    dtype: str,
    backend: str | None,
    *,
    float32: bool,
) -> None:
    from fastvoc.cli.folder import follow
    from fastvoc.cli.ray_folder import made_by_ray
    from fastvoc.loading import load
    from fastvoc.ray.work import Source
    from fastvoc.vocoder import Vocoder

    if device not in ("cpu", "cuda"):
        raise ArgumentError(f"--device: with --ray expected cpu or cuda, got {device!r}")
    if device == "cpu" and not isinstance(voc := load(model, dtype=dtype, backend=backend), Vocoder):
        raise ArgumentError(f"--model: {model} is a codec, not a vocoder: {voc}")
    source = Source.of(model, device, dtype, backend)
    if not plan.todo:
        follow(plan, ())
        return
    gpu, count = device == "cuda", threads or 1
    follow(plan, made_by_ray(plan, source, address, workers=jobs, threads=count, gpu=gpu, float32=float32))


def _vocode_one(voc: Vocoder, source: str, output: Path | None, plot: Path | None, *, float32: bool) -> None:
    from fastvoc.cli.synthesis import read_input, speed, synthesise
    from fastvoc.sound.audio import write_audio

    item = read_input(sys.stdin.buffer if source == "-" else Path(source), voc)
    start = perf_counter()
    mel, wav = synthesise(voc, item)
    seconds = perf_counter() - start
    if item.notes:
        typer.echo(f"{item.name}: {', '.join(item.notes)}", err=True)
    write_audio(sys.stdout.buffer if output is None else output, wav, voc.sample_rate, float32=float32)
    if output is None:
        sys.stdout.buffer.flush()
    made = len(wav) / voc.sample_rate
    where = "standard output" if output is None else output
    typer.echo(f"{where}: {speed(made, seconds)}", err=True)
    if plot is not None:
        from fastvoc.training.plots import plot_audio

        plot_audio(plot, wav, mel, voc.sample_rate, voc.hop, title=item.name)
        typer.echo(f"{plot}: waveform and mel spectrogram", err=True)
