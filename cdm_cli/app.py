"""`cdm`: assembles the commands, and turns every error into one line and an exit code."""

import os
import sys
import traceback
import warnings
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, cast

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from cdm_cli import signals
from cdm_cli.__version__ import __version__
from cdm_cli.commands._command import make_function
from cdm_cli.commands._help import Grouped
from cdm_cli.commands.completions import completions
from cdm_cli.commands.help import show_help
from cdm_cli.commands.table import TABLE
from cdm_cli.names import DATA_ENV, DEVICE_ENV, RUNS_ENV
from cdm_cli.translation import as_cdm_error

if TYPE_CHECKING:
    from pydantic import ValidationError

COMMANDS = {command.name: make_function(command) for command in TABLE} | {
    "help": show_help,
    "completions": completions,
}
EVERYWHERE = {"-q", "--quiet", "-v", "--verbose", "--debug"}
MARKUP: Any = None


class Commands(TyperGroup):
    """The group of all commands: flags that stand anywhere, and errors in one line."""

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        """Run one command line (by default the program's own) and leave with its exit code."""
        words = args[0] if args else extra.pop("args", None)
        words = list(sys.argv[1:] if words is None else words) or ["--help"]
        extra.update(args=_move_common_flags_first(words), prog_name="cdm", standalone_mode=False)
        try:
            code = super().main(**extra)
        except TyperException as error:
            _say(f"{_find_words(error)} — Next: {_help_of(error)}")
            code = error.exit_code
        sys.exit(code)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find a command by its first two words where these name one, as `eval elbo`."""
        if " ".join(args[:2]) in self.commands:
            args = [" ".join(args[:2]), *args[2:]]
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> int:
        """Run the command; return 0, or the exit code of the error that ended it."""
        try:
            super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:  # whoever read our output has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except KeyboardInterrupt:
            _say(f"interrupted; {signals.AGAIN}")
            return signals.INTERRUPTED
        except (TyperException, typer.Exit, typer.Abort):
            raise
        except Exception as error:
            if ctx.params["debug"]:
                traceback.print_exc()
            known = as_cdm_error(error)
            _say(str(known))
            return known.exit_code
        return 0


def _move_common_flags_first(words: list[str]) -> list[str]:
    """Move -q, -v and --debug, which may stand behind the command, to where they are read."""
    end = words.index("--") if "--" in words else len(words)
    moved = [word for word in words[:end] if word in EVERYWHERE]
    return [*moved, *(word for word in words[:end] if word not in EVERYWHERE), *words[end:]]


def _find_words(error: TyperException) -> str:
    """Return what is wrong with the command line; a value that pydantic refused in our words."""
    hint = getattr(getattr(error, "param", None), "get_error_hint", None)
    if not hasattr(error.__cause__, "errors") or hint is None:
        return error.format_message()
    from cdm_cli.sentences import find_fault_in

    fault = find_fault_in(cast("ValidationError", error.__cause__))
    return f"{hint().strip(chr(39))} {fault.value}: {fault.sentence}"


def _help_of(error: TyperException) -> str:
    ctx = getattr(error, "ctx", None)
    return f"{ctx.command_path if ctx else 'cdm'} --help"


def _say(line: str) -> None:
    typer.echo(f"cdm: error: {' '.join(line.split())}", err=True)


app = typer.Typer(
    cls=Commands,
    add_completion=False,
    rich_markup_mode=MARKUP,  # plain help needs no rich, which alone takes 60 ms to import
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
EPILOG = "Everywhere: -q says less, -v shows all, and warnings, --debug where an error arose."
ENVIRONMENT = (
    f"Environment: {RUNS_ENV}, where stages are [default: runs]; {DATA_ENV}, the prepared store "
    f"[default: data.h5]; {DEVICE_ENV}, the device [default: auto]. What is typed counts more."
)
for _name, _command in COMMANDS.items():
    app.command(_name, epilog=EPILOG, cls=Grouped)(_command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"cdm {__version__}")
        raise typer.Exit


@app.callback(epilog=ENVIRONMENT)
def set_common_flags(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show all, and warnings.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error arose.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", "-V", callback=_print_version, is_eager=True, help="Print it."),
    ] = False,
) -> None:
    """Train, sample and judge cascaded diffusion models.

    \b
    Example: cdm demo
    Example: cdm help train
    """


def main() -> NoReturn:
    """Run `cdm` on the words of the command line; `__main__.main` hears signals before this."""
    if not {"-v", "--verbose", "--debug"} & set(sys.argv):
        warnings.simplefilter("ignore")
    app()
    raise AssertionError("Commands.main leaves the program")
