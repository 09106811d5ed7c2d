"""The command ``voxelrt``: one line for an error, an exit code for scripts (see ``voxelrt.errors``)."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Annotated

import typer

from voxelrt import environment
from voxelrt.errors import CancelledError, VoxelRTError

EPILOGUE = (
    "Exit codes: 0 done; 2 usage; 3 study or output; 4 model; 5 plan; 6 parity; 7 an extra is missing; 8 native "
    "library; 9 download; 130 stopped. --debug shows where an error came from."
)

COMMANDS = ("run", "compile", "info", "bench", "fetch", "doctor")


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
    for name in (wanted,) if wanted in COMMANDS else COMMANDS:
        app.command(name, epilog=EPILOGUE)(_function(str(name)))
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


def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.", is_eager=True)] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error came from.")] = False,
) -> None:
    del debug  # taken out of the arguments by main, wherever it stands
    if version:
        from importlib.metadata import version as version_of

        print(f"voxelrt {version_of('voxelrt')}")
        raise typer.Exit


def _function(name: str) -> object:
    if name == "run":
        from voxelrt.commands.run import run as function
    elif name == "compile":
        from voxelrt.commands.compile import compile_command as function
    elif name == "info":
        from voxelrt.commands.info import info as function
    elif name == "bench":
        from voxelrt.commands.bench import bench as function
    elif name == "fetch":
        from voxelrt.commands.fetch import fetch_command as function
    else:
        from voxelrt.commands.doctor import doctor as function
    return function


def _say(text: str, code: int) -> int:
    print(text, file=sys.stderr)
    return code


def _interrupt(number: int, frame: FrameType | None) -> None:
    del number, frame
    signal.raise_signal(signal.SIGINT)


if __name__ == "__main__":
    main()
