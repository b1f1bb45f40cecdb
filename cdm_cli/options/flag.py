"""How a field of options is typed: its flag, and the fields of a dataclass that have one.

Options are frozen dataclasses. A field of type `Annotated[T, Flag(help, metavar)]` is a flag of
every command whose options hold it, directly or in a group (`sampling`, `compute`, `judge`).
Limits beside the Flag (`Ge(1)`) and Checks run when a command line is parsed; what several fields
decide together is checked by `__post_init__`, wherever options are made.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, TypeVar, cast, get_args, get_origin, get_type_hints

M = TypeVar("M")
WHAT, OUTPUT = "What", "Output"
HEADINGS = {"judge": "Who judges", "sampling": "How it samples", "compute": "Where it computes"}
"""The headings of groups of fields in `--help`, by the field that holds the group, in order."""


@dataclass(frozen=True)
class Flag:
    """The flag that sets a field, and what `--help` says of it.

    help: one sentence; it ends in "[default: words]." where the default is not a value. names: as
    typed; by default the field's name with dashes. argument: a word without a name. repeat: the
    flag is typed once for each value; else several values are one word with commas. optional: an
    argument that may be missing as long as the job does not run. instead: "module:function", which
    takes the parsed flags and whose rows are shown, titled by the last word of the field's name,
    in place of a run of the job. group: its heading in `--help`, by default that of the group of
    fields. env: the variable of the environment whose value is taken where the flag is not typed.
    """

    help: str
    metavar: str | None = None
    names: tuple[str, ...] = ()
    argument: bool = False
    repeat: bool = False
    optional: bool = False
    instead: str = ""
    group: str = ""
    env: str = ""


@dataclass(frozen=True)
class Check:
    """A function that returns the value of a field, or raises UsageError for one that cannot be.

    It runs when a command line is parsed, on every value but None. pydantic asks for the method,
    so that options are declared without importing it.
    """

    function: Callable[[Any], Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        """Return the schema of the type, followed by a call of the function."""
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def _check(self, value: Any) -> Any:
        return None if value is None else self.function(value)


@dataclass(frozen=True, init=False)
class Without:
    """Fields of a group, or all of one heading, that have no flag in these options."""

    names: frozenset[str]

    def __init__(self, *names: str) -> None:
        object.__setattr__(self, "names", frozenset(names))


@dataclass(frozen=True)
class Reflag:
    """Another flag for one field of a group in these options."""

    name: str
    flag: Flag


@dataclass(frozen=True)
class Harmless:
    """Stands beside the Flag of a field of `Sampling` that changes no sample, and says why.

    The field is no part of an identity, so that a run with another value continues what is there;
    it is no axis of a sweep.
    """

    why: str


@dataclass(frozen=True)
class Identified:
    """Stands beside the Flag of a field of `Sampling` that identities record in another form.

    by: what is recorded in its place.
    """

    by: str


@dataclass(frozen=True)
class Flagged:
    """A field with a flag.

    path: the names on the way to it from the options. default: MISSING where there is none.
    limits: what stands beside the type of the field, or of each of its values.
    """

    path: tuple[str, ...]
    kind: Any
    default: Any
    flag: Flag
    limits: tuple[Any, ...] = ()

    @property
    def name(self) -> str:
        """The field's own name, which is the name of the parsed parameter."""
        return self.path[-1]

    @property
    def names(self) -> tuple[str, ...]:
        """What is typed: `--keep-s`, or `--out` and `-o`."""
        return self.flag.names or (f"--{self.name.replace('_', '-')}",)

    @property
    def group(self) -> str:
        """The heading that it stands under in `--help`."""
        return self.flag.group or HEADINGS.get(self.path[-2] if len(self.path) > 1 else "", WHAT)

    @property
    def listed(self) -> bool:
        """Whether several values are typed as one word with commas."""
        return get_origin(self.kind) is tuple and not self.flag.repeat


@cache
def list_flags(options: type) -> tuple[Flagged, ...]:
    """Return the fields of options that have a flag, in the order of `--help`.

    Fields of a group take the group's place, fields of a group within a group come last. A field
    hides one of the same name in a group: `tune-schedule --steps` is its own.
    """
    walk = _Walk()
    return (*walk.walk(options, (), frozenset(), {}), *walk.last)


class _Walk:
    """Collects the flags of options and their groups; `last` holds groups within groups."""

    def __init__(self) -> None:
        self.last: list[Flagged] = []

    def walk(
        self, options: type, path: tuple[str, ...], hidden: frozenset[str], flags: dict[str, Flag]
    ) -> Iterator[Flagged]:
        hints = get_type_hints(options, include_extras=True)
        members = fields(options)
        own = hidden | {member.name for member in members}
        for member in members:
            kind, said = split_hint(hints[member.name])
            here = (*path, member.name)
            if is_dataclass(kind):
                inner = self._walk_group(cast(type, kind), said, here, own, flags)
                if path:
                    self.last += inner
                else:
                    yield from inner
            elif member.name not in hidden:
                for flag in (w for w in said if isinstance(w, Flag) and w.group not in hidden):
                    inside = split_hint(get_args(kind)[0])[1] if get_origin(kind) is tuple else ()
                    said = (*said, *inside)
                    yield Flagged(here, kind, member.default, flags.get(member.name, flag), said)

    def _walk_group(
        self, kind: type, said: tuple[Any, ...], path: tuple[str, ...], hidden: frozenset[str],
        flags: dict[str, Flag],
    ) -> Iterator[Flagged]:  # fmt: skip
        for word in said:
            if isinstance(word, Without):
                hidden |= word.names
            elif isinstance(word, Reflag):
                flags = flags | {word.name: word.flag}
        return self.walk(kind, path, hidden, flags)


def find_marks(options: type, kind: type[M]) -> dict[str, M]:
    """Return what stands beside the types of the fields of options, of one kind, by field."""
    hints = get_type_hints(options, include_extras=True)
    pairs = ((name, word) for name, hint in hints.items() for word in split_hint(hint)[1])
    return {name: word for name, word in pairs if isinstance(word, kind)}


def split_hint(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """Split the type hint of a field into the type and what `Annotated` adds to it."""
    if get_origin(hint) is Annotated:
        kind, *said = get_args(hint)
        return kind, tuple(said)
    return hint, ()
