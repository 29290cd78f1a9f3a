"""`fastvoc info`: what this installation has and what runs on it, or what a model is and how that is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from fastvoc.errors import BackendError


def info(
    model: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="File, folder, hub id or name of a model to tell of.")
    ] = None,
    ops: Annotated[bool, typer.Option("--ops", help="List all ops, in Markdown: meaning, implementations.")] = False,
) -> None:
    """Show versions, processors, native libraries, the implementation that each op runs with, and settings.

    With a model: what it is, and which of its facts its files say, which are assumed.

    Example: fastvoc info
    Example: fastvoc info path/to/generator.ckpt
    Example: fastvoc info --ops
    """
    if ops:
        if model is not None:
            raise typer.BadParameter("--ops lists the ops of this installation and takes no model")
        from fastvoc.cli.ops import page

        typer.echo(page(), nl=False)
        return
    sections = _installation() if model is None else [(model, _model(model))]
    for title, rows in sections:
        typer.echo(title)
        width = max(len(name) for name, _ in rows)
        for name, text in rows:
            typer.echo(f"  {name:<{width}}  {text}")


def _model(name: str) -> list[tuple[str, str]]:
    from fastvoc.checkpoints.origins import shown
    from fastvoc.loading import read_checkpoint

    checkpoint = read_checkpoint(name)
    config = checkpoint.config

    def told(field: str, text: str) -> str:
        origin = checkpoint.origins.get(field)
        if origin is None:
            return f"{text} (read)"
        kinds = {"format": "fixed by the format", "name": "known by its name", "assumed": "assumed"}
        return f"{text} ({kinds.get(origin.kind, origin.kind)}: {origin.why})"

    rows = [("dialect", checkpoint.format), ("model", config.family)]
    rows.append(("sample rate", told("sample_rate", f"{config.sample_rate} Hz")))
    if hasattr(config, "hop"):
        rows.append(("hop", f"{config.hop} samples"))
    if hasattr(config, "mel"):
        absent = "none, the input is a latent" if getattr(config, "latent", False) else "not known"
        front = absent if config.mel is None else told("mel", shown(config.mel))
        rows += [("input", f"{config.num_mels} channels"), ("mel front end", front)]
    if getattr(config, "gin_channels", 0):
        table = f"{config.num_speakers} in the checkpoint, " if config.num_speakers else ""
        rows.append(("speakers", f"{table}vectors of {config.gin_channels}"))
    rest = [field for field in checkpoint.origins if field not in ("sample_rate", "mel")]
    rows += [(field.replace("_", " "), told(field, str(getattr(config, field)))) for field in rest]
    count = sum(tensor.numel() for tensor in checkpoint.state.values())
    rows.append(("parameters", f"{count / 1e6:.2f} million in {len(checkpoint.state)} tensors"))
    rows += [("precision", checkpoint.quantization)] if checkpoint.quantization else []
    return rows + [(key, text) for key, text in checkpoint.metadata.items()]


def _installation() -> list[tuple[str, list[tuple[str, str]]]]:
    return [
        ("versions", _versions()),
        ("processors", _processors()),
        ("built", _built()),
        ("native libraries", _libraries()),
        ("ops on the CPU", _ops()),
        ("choice on GPUs", _tables()),
        ("embedded voices", _voices()),
        ("environment", _environment()),
    ]


def _versions() -> list[tuple[str, str]]:
    import platform

    import torch

    from fastvoc import __version__

    rows = [("fastvoc", __version__), ("python", platform.python_version()), ("torch", torch.__version__)]
    packages = ("numpy", "soundfile", "soxr", "safetensors", "huggingface_hub")
    optional = ("triton", "onnx", "onnxruntime", "matplotlib")
    return rows + [(package, _version(package)) for package in (*packages, *optional)]


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _processors() -> list[tuple[str, str]]:
    import os
    import platform
    from pathlib import Path

    import torch

    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    rows = [("CPU", f"{name}, {os.cpu_count()} threads, torch uses {torch.get_num_threads()}")]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        memory = properties.total_memory / 2**30
        rows.append((f"cuda:{index}", f"{properties.name}, sm_{properties.major}{properties.minor}, {memory:.0f} GiB"))
    return rows if len(rows) > 1 else [*rows, ("GPU", "none that this torch can use")]


def _libraries() -> list[tuple[str, str]]:
    from fastvoc.ecdc import coder
    from fastvoc.runtime import library as _library

    cpu, cuda = _problem(_library.cpu_problem), _problem(_library.cuda_problem)
    return [
        ("CPU", f"loaded, instruction set {_library.cpu_isa()}" if cpu is None else cpu),
        ("CUDA", "loaded" if cuda is None else cuda),
        ("coder", "loaded" if coder.problem() is None else f"{coder.problem()}; .ecdc files are coded in Python"),
    ]


def _problem(library: Callable[[], str | None]) -> str | None:
    """Why a library is not loaded, a refusal included."""
    try:
        return library()
    except BackendError as error:
        return str(error)


def _built() -> list[tuple[str, str]]:
    """What the build made, and why it left the rest out."""
    from fastvoc.runtime import library as _library

    record = _library.build_record()
    if record is None:
        return [("nothing", "these are the sources; `pip install` builds the libraries")]
    version = _version("fastvoc")
    rows = [("as", f"{version}, FASTVOC_BUILD={record['mode']}, revision {record['git'] or 'unknown'}")]
    for name, facts in record["libraries"].items():
        if "left_out" in facts:
            rows.append((name, f"left out: {facts['left_out'].splitlines()[0]}"))
            continue
        made = [facts["compiler"]]
        made += [f"CUDA {facts['cuda']} for {facts['archs']}"] if "cuda" in facts else []
        made += [f"for {', '.join(facts['isas'])}"] if "isas" in facts else []
        made += [f"with {kind} {facts[kind]}" for kind in ("torch", "pybind11") if kind in facts]
        rows.append((name, ", ".join(made)))
    return rows


def _ops() -> list[tuple[str, str]]:
    from fastvoc.explanation import explain

    rows = {}
    for layer in explain():
        refused = [f"not {v.impl}: {v.reason}" for v in layer.verdicts if v.reason]
        others = [f"also {v.impl}" for v in layer.verdicts if v.reason is None and not v.chosen]
        rows[layer.op] = "; ".join([layer.chosen or "none", *others, *refused])
    return list(rows.items())


def _tables() -> list[tuple[str, str]]:
    """The tables by which a GPU's implementations are chosen, and which of them each GPU goes by."""
    import torch

    from fastvoc.runtime import choice

    rows = [(f"sm_{number}", table.note) for number in choice.known() if (table := choice.table(number)) is not None]
    for index in range(torch.cuda.device_count()):
        here = choice.of(torch.device("cuda", index))
        rows.append((f"cuda:{index}", "by priority" if here is None else here.note))
    return rows or [("none", "by priority")]


def _voices() -> list[tuple[str, str]]:
    from fastvoc.loading import EMBEDDED, list_models

    if absent := [name for name, path in EMBEDDED.items() if not path.exists()]:
        return [(name, "not in this installation") for name in absent]
    return [(m.name, f"{m.family}, {m.sample_rate} Hz, {m.licence}") for m in list_models() if m.name in EMBEDDED]


def _environment() -> list[tuple[str, str]]:
    import os

    from fastvoc.runtime import env

    return [(v.name, f"{os.environ.get(v.name) or '(not set)'}  {v.purpose}") for v in env.VARIABLES]
