"""The command ``voxelrt``: one line for an error, an exit code for scripts (see ``voxelrt.errors``)."""

from __future__ import annotations

import functools
import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Annotated, Any

import typer

from voxelrt import environment
from voxelrt.errors import CancelledError, VoxelRTError

EPILOGUE = (
    "Exit codes: 0 done; 2 usage; 3 study or output; 4 model; 5 plan; 6 parity; 7 an extra is missing; 8 native "
    "library; 9 download; 10 GPU; 11 TensorRT; 12 out of time; 130 stopped. --debug shows where an error came from."
)

COMMANDS = {
    "run": ("run", "run"),
    "compile": ("compile", "compile_command"),
    "convert": ("convert", "convert_command"),
    "denoise": ("denoise", "denoise_command"),
    "info": ("info", "info"),
    "warp": ("warp", "warp_command"),
    "verify": ("verify", "verify_command"),
    "bench": ("bench", "bench"),
    "fetch": ("fetch", "fetch_command"),
    "doctor": ("doctor", "doctor"),
    "cache": ("cache", "cache_command"),
}


def application(wanted: str | None = None) -> typer.Typer:
    """The commands. Only the file of the one that is ``wanted`` is imported if it is known: start-up is felt."""
    app = typer.Typer(
        name="voxelrt",
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        epilog=EPILOGUE,
        help="Inference engine for medical volumes. Research software, not a medical device.",
    )
    app.callback()(_options)
    names = () if wanted == "--version" else (wanted,) if wanted in COMMANDS else COMMANDS
    for name in names:
        app.command(name, epilog=EPILOGUE)(_function(name))
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    # A polite kill ends like Ctrl-C: the step in hand is finished and no half file stays.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        environment.check_names()
        code = application(given[0] if given else None)(given, standalone_mode=False)
    except (KeyboardInterrupt, CancelledError, typer.Abort):
        code = _say("stopped; what was not finished was not written", 130)
    except BrokenPipeError:
        # The reader of our output has gone (| head); nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except VoxelRTError as error:
        if debug:
            raise
        code = _say(f"error: {error}", error.exit_code)
    except MemoryError:
        if debug:
            raise
        code = _say("error: there is not enough memory for this", 1)
    except Exception as error:
        if debug or not hasattr(error, "format_message"):
            raise
        code = _say(f"error: {error.format_message()} (voxelrt --help shows how)", 2)
    sys.exit(code if isinstance(code, int) else 0)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"voxelrt {version('voxelrt')}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", is_eager=True, callback=_version)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error came from.")] = False,
) -> None:
    del version, debug  # the first has its callback; the second main takes out, wherever it stands


def _function(name: str) -> Callable[..., None]:
    module, function = COMMANDS[name]
    found: Callable[..., None] = getattr(importlib.import_module(f"voxelrt.commands.{module}"), function)

    @functools.wraps(found)
    def stoppable(*arguments: Any, **options: Any) -> None:
        try:
            found(*arguments, **options)
        except KeyboardInterrupt as error:
            # Typer would leave without a word.
            raise CancelledError("stopped by Ctrl-C") from error

    return stoppable


def _say(text: str, code: int) -> int:
    print(text, file=sys.stderr)
    return code


def _interrupt(number: int, frame: FrameType | None) -> None:
    del number, frame
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a background shell leaves it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.raise_signal(signal.SIGINT)


if __name__ == "__main__":
    main()
