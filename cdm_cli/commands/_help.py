"""What `--help` shows: flags under headings, each with its range and its default."""

from dataclasses import MISSING
from typing import Any, get_origin

from typer.core import TyperCommand

from cdm_cli.options.flag import HEADINGS, OUTPUT, WHAT, Flagged
from cdm_cli.sentences import range_in_words

GIVEN = " [default: "
ORDER = (WHAT, *HEADINGS.values(), OUTPUT)


class Grouped(TyperCommand):
    """A command whose `--help` lists flags under the headings of their groups."""

    def get_short_help_str(self, limit: int = 0) -> str:
        """Return the whole first sentence: a list of commands folds what is longer than a line."""
        return (self.help or "").partition("\n")[0]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, then each group of flags; what belongs to none is output."""
        params = [(param, _write_record(param, ctx)) for param in self.get_params(ctx)]
        known = [(param, record) for param, record in params if record is not None]
        with_names = [(_find_heading(param), record) for param, record in known]
        for heading in ("Arguments", *ORDER):
            records = [record for name, record in with_names if name == heading]
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)


def _write_record(param: Any, ctx: Any) -> tuple[str, str] | None:
    """Return a flag and its help; an argument without its type, which is one of Python's."""
    record = param.get_help_record(ctx)
    if record is None or param.param_type_name != "argument":
        return record
    many = "..." if param.nargs == -1 else ""
    return f"{param.metavar}{many}", record[1]


def _find_heading(param: Any) -> str:
    if param.param_type_name == "argument":
        return "Arguments"
    return getattr(param, "rich_help_panel", None) or OUTPUT


def write_help(item: Flagged) -> str:
    """Return what `--help` says of a flag: "How many images [default: all; 1 or more]."""
    text, _, words = item.flag.help.partition(GIVEN)
    words = words.rstrip(".").removesuffix("]") or _name_default(item)
    env = f"${item.flag.env} or " if item.flag.env else ""
    notes = [f"default: {env}{words}"] if words else []
    notes += [limits] if (limits := range_in_words(item.limits)) else []
    return f"{text.rstrip('.')} [{'; '.join(notes)}]." if notes else text


def _name_default(item: Flagged) -> str:
    """Return the default in a word, "" where something must be given."""
    if item.default is MISSING:
        return ""
    if isinstance(item.default, bool):
        on, _, off = item.names[0].partition("/")
        return (on if item.default else off or "off").removeprefix("--")
    if item.default is None or item.default in ((), ""):
        return "none"
    if get_origin(item.kind) is tuple:
        return ",".join(map(str, item.default))
    return str(item.default)
