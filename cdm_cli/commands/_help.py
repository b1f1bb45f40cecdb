"""What `--help` shows: flags under headings, each with its range and its default."""

from collections.abc import Sequence
from dataclasses import MISSING
from typing import Any, get_origin

from annotated_types import Ge, Gt, Le, Lt, MinLen
from typer.core import TyperCommand

from cdm_cli.options.flag import HEADINGS, OUTPUT, WHAT, Flagged

GIVEN = " [default: "
ORDER = (WHAT, *HEADINGS.values(), OUTPUT)
LARGE = 2**62  # from here on a limit is said as a power of two


class Grouped(TyperCommand):
    """A command whose flags stand under the headings of their groups."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, then each group of flags; what belongs to none is output."""
        params = [(param, param.get_help_record(ctx)) for param in self.get_params(ctx)]
        known = [(param, record) for param, record in params if record is not None]
        with_names = [(_heading(param), record) for param, record in known]
        for heading in ("Arguments", *ORDER):
            records = [record for name, record in with_names if name == heading]
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)


def _heading(param: Any) -> str:
    if param.param_type_name == "argument":
        return "Arguments"
    return getattr(param, "rich_help_panel", None) or OUTPUT


def help_of(item: Flagged) -> str:
    """Return what `--help` says of a flag: "How many images [default: all; 1 or more]."""
    text, _, words = item.flag.help.partition(GIVEN)
    words = words.rstrip(".").removesuffix("]") or _default(item)
    env = f"${item.flag.env} or " if item.flag.env else ""
    notes = [f"default: {env}{words}"] if words else []
    notes += [limits] if (limits := _limits(item.limits)) else []
    return f"{text.rstrip('.')} [{'; '.join(notes)}]." if notes else text


def _default(item: Flagged) -> str:
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


def _limits(said: Sequence[Any]) -> str:
    """Return a range in words: "1 to 64", "1 or more", "more than 0, less than 1"."""
    low = [f"{limit.ge}" for limit in said if isinstance(limit, Ge)]
    high = [f"{limit.le}" for limit in said if isinstance(limit, Le)]
    above = [f"more than {limit.gt}" for limit in said if isinstance(limit, Gt)]
    below = [f"less than {_power(limit.lt)}" for limit in said if isinstance(limit, Lt)]
    some = ["one or more" for limit in said if isinstance(limit, MinLen)]
    if low and high:
        return f"{low[0]} to {high[0]}"
    least = [f"{limit} or more" for limit in low]
    most = [f"{limit} at most" for limit in high]
    return ", ".join([*least, *above, *below, *most, *some])


def _power(limit: Any) -> str:
    return f"2^{int(limit).bit_length() - 1}" if limit > LARGE else str(limit)
