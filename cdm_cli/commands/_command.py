"""From a row of the table to a command, and from a parsed command line to the options of a job."""

from collections.abc import Callable
from dataclasses import MISSING
from importlib import import_module
from inspect import Parameter, Signature
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from cdm_cli.commands._help import write_help
from cdm_cli.commands.table import Command
from cdm_cli.jobs.runtime import busy
from cdm_cli.nets.kernels import ahead
from cdm_cli.options.durations import parse_seconds
from cdm_cli.options.flag import OUTPUT, Flag, Flagged, list_flags, split_hint
from cdm_cli.options.sampling import Compute
from cdm_cli.signals import stop_after
from cdm_cli.startup import measure_command, measure_imports

JSON = Flagged(
    ("json",), bool, False, Flag("Print one JSON object and nothing else.", group=OUTPUT)
)
DRY_RUN = Flagged(
    ("dry_run",), bool, False,
    Flag("Print the plan and its cost; compute and write nothing.", group=OUTPUT),
)  # fmt: skip


def make_function(command: Command) -> Callable[..., None]:
    """Return the function of a command as typer wants it: its flags are its parameters."""

    def run(ctx: typer.Context, **_: Any) -> None:
        from cdm_cli.commands._fields import fill_options
        from cdm_cli.commands._render import answer, show
        from cdm_cli.jobs.runtime.ranks import read_ranks

        for item in list_flags(command.options):
            if item.flag.instead and ctx.params[item.name]:
                key = item.name.rpartition("_")[2]
                return show(
                    {key: _import_named(item.flag.instead)(ctx.params)}, as_json=ctx.params["json"]
                )
        job = "plan" if ctx.params.get("dry_run") else "run"
        options = fill_options(command.options, ctx)
        if command.check:
            _import_named(command.check)(options)
        if command.asks and job == "run":
            from cdm_cli.commands._ask import ask_what_to_remove

            options = ask_what_to_remove(ctx, options, _import_named(f"{command.job}:plan"))
        with stop_after(_read_seconds(ctx)), measure_command():
            if job == "run" and _computes_here(options):
                ahead.begin(read_ranks().local_rank)
            busy.begin()
            with measure_imports():
                done = _import_named(f"{command.job}:{job}")
            costs = job == "plan" and not command.asks
            answer(ctx, options, _foretell(done) if costs else done)

    flags = [*list_flags(command.options), JSON, *([DRY_RUN] if command.plans else [])]
    parameters = [_make_parameter("ctx", typer.Context), *map(_make_parameter_of, flags)]
    run.__signature__ = Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
    run.__annotations__ = {item.name: item.annotation for item in parameters}
    run.__doc__ = command.help
    return run


def _computes_here(options: object) -> bool:
    """Return whether a job runs a network in this process, on a GPU if there is one."""
    holder = getattr(options, "judge", options)
    compute = getattr(holder, "compute", None)
    return isinstance(compute, Compute) and compute.device != "cpu" and (compute.gpus or 1) == 1


def _read_seconds(ctx: typer.Context) -> int | None:
    """Return after how many seconds the command is to stop by itself."""
    typed = ctx.params.get("stop_after")
    return parse_seconds(typed) if typed else None


def _foretell(plan: Callable[..., Any]) -> Callable[..., object]:
    """Return what tells the cost of a plan in one line, and then the plan."""
    foretold = _import_named("cdm_cli.jobs.runtime.foretold:Foretold")

    def tell_cost(options: object, report: object) -> object:
        return foretold(plan(options, report))

    return tell_cost


def _import_named(where: str) -> Any:
    """Return what "module:function" names; modules of jobs are imported only when they run."""
    module, _, name = where.partition(":")
    return getattr(import_module(module), name)


def _make_parameter(name: str, annotation: Any, default: Any = Parameter.empty) -> Parameter:
    kind = Parameter.KEYWORD_ONLY
    return Parameter(name, kind, default=default, annotation=annotation)


def _make_parameter_of(item: Flagged) -> Parameter:
    """Return the parameter of a flag: what typer parses, and what it shows as the default."""
    flag, kind, default = item.flag, _choose_type(item), _choose_default(item)
    words: dict[str, Any] = {"help": write_help(item), "show_default": False}
    words |= {"metavar": flag.metavar} if flag.metavar is not None else {}
    words |= {"envvar": flag.env, "show_envvar": False} if flag.env else {}
    if flag.argument:
        said: Any = typer.Argument(**words)
    else:
        said = typer.Option(*item.names, rich_help_panel=item.group, **words)
    return _make_parameter(item.name, Annotated[kind, said], default)


def _choose_type(item: Flagged) -> Any:
    """Return the type that typer parses: one text for values with commas, a list for repeated."""
    if get_origin(item.kind) is not tuple:
        return item.kind | None if item.flag.optional else item.kind
    inner, _ = split_hint(get_args(item.kind)[0])
    if item.listed:
        return str if item.default else str | None
    words = str if get_origin(inner) is Literal else inner
    return list[words] if item.default is MISSING else list[words] | None


def _choose_default(item: Flagged) -> Any:
    if item.flag.optional:
        return None
    if item.default is MISSING:
        return Parameter.empty
    if get_origin(item.kind) is not tuple:
        return item.default
    return ",".join(map(str, item.default)) or None if item.listed else [*item.default] or None
