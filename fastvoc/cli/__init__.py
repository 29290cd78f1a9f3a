"""The command `fastvoc`. Each command imports what it needs when it runs, so that `--help` is quick."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import typer

from fastvoc import __version__
from fastvoc.cli.bench import bench
from fastvoc.cli.convert import convert
from fastvoc.cli.decode import decode
from fastvoc.cli.encode import encode
from fastvoc.cli.export import export
from fastvoc.cli.info import info
from fastvoc.cli.models import models
from fastvoc.cli.speak import speak
from fastvoc.cli.stream import stream
from fastvoc.cli.train import train
from fastvoc.cli.vocode import vocode
from fastvoc.errors import FastvocError
from fastvoc.runtime import env

# typer exports the subclasses of the error for a wrong command line, not the error itself.
_CommandLineError: Any = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")

app = typer.Typer(
    help="Fast neural vocoders: speech and mel spectrograms in, speech out.\n\nExample: fastvoc vocode in.wav out.wav",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for _command in (vocode, speak, encode, decode, stream, bench, info, models, convert, export, train):
    app.command()(_command)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fastvoc {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the version and leave."
    ),
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command line, that of the process when None, and leaves with its exit code.

    0: done. 1: some of many files failed. 2: a wrong command line or input, told in one line. 130: interrupted.
    FASTVOC_DEBUG=1 shows the traceback.
    """
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        sys.exit(_run(list(sys.argv[1:] if arguments is None else arguments) or ["--help"]))


def _run(arguments: list[str]) -> int:
    debug = env.DEBUG.get() not in ("", "0")
    try:
        code = (
            typer.main.get_command(app).main(_with_address(arguments), prog_name="fastvoc", standalone_mode=False) or 0
        )
        return _fail("interrupted", code) if code == 130 else int(code)
    except (typer.Abort, KeyboardInterrupt):
        return _fail("interrupted", 130)
    except BrokenPipeError:
        # The reader has gone; what is still buffered must not raise again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except _CommandLineError as error:
        return _fail(error.format_message(), 2)
    except (FastvocError, OSError) as error:
        if debug:
            raise
        return _fail(str(error), 2)


def _with_address(arguments: list[str]) -> list[str]:
    """`--ray` may go without its address, which typer's options do not know: an empty one is put in its place."""
    following = [*arguments[1:], "-"]
    bare = {i for i, one in enumerate(arguments) if one == "--ray" and following[i].startswith("-")}
    return ["--ray=" if i in bare else one for i, one in enumerate(arguments)]


def _fail(message: str, code: int) -> int:
    if message:
        typer.echo(f"error: {' '.join(message.split())}", err=True)
    return code


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    typer.echo(f"warning: {message}", err=True)
