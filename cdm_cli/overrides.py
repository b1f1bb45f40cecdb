"""`--set model.base_channels=64`: one setting of a plan, named as `stage.json` names it."""

import json
from collections.abc import Iterator
from typing import Any

from cdm_cli.errors import UsageError
from cdm_cli.plans import Plan
from cdm_cli.sentences import find_near
from cdm_cli.settings import SETTABLE, validate


def with_overrides(plan: Plan, assignments: tuple[str, ...]) -> Plan:
    """Apply `--set model.base_channels=64` style assignments to a plan.

    Paths start at the stage (model.…, schedule.…, conditioning.…, variance, …) or at
    `training.`. Values are JSON where they parse as JSON, else strings; `1,2,4` is a list.
    Raises UsageError naming the nearest field for an unknown one.
    """
    values = plan.model_dump(mode="python", context=SETTABLE)
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise UsageError(
                f"--set {assignment}: expected FIELD=VALUE", next="--set model.dropout=0.1"
            )
        parts = path.strip().split(".")
        target = values if parts[0] == "training" else values["stage"]
        for part in parts[:-1]:
            target = _descend(target, part, path, values)
        _descend(target, parts[-1], path, values, leaf=True)
        target[parts[-1]] = _parse(text)
    return validate(Plan, values, source="--set")


def _descend(target: Any, part: str, path: str, plan: dict[str, Any], *, leaf: bool = False) -> Any:
    if not isinstance(target, dict) or part not in target:
        before, kind = _find_parent(path, part), plan["stage"]["kind"]
        what = f"{before} has no {part!r}{_hint(path, plan)}"
        if target is None:
            what = f"a {kind} stage has no {before}"
        raise UsageError(f"--set {path}: {what}", next="cdm train --list-settings")
    return target if leaf else target[part]


def _find_parent(path: str, part: str) -> str:
    return path.split(part, 1)[0].rstrip(".") or "the stage"


def _hint(path: str, plan: dict[str, Any]) -> str:
    """Return what may have been meant: a setting of that very name elsewhere, or the nearest."""
    paths = [*_list_paths(plan["stage"]), *_list_paths({"training": plan["training"]})]
    last = path.rpartition(".")[2]
    same = [known for known in paths if known.rpartition(".")[2] == last]
    by_name = {known.rpartition(".")[2]: known for known in reversed(paths)}
    found = same or find_near(path, paths) or [by_name[name] for name in find_near(last, by_name)]
    return f"; did you mean {' or '.join(found)}?" if found else ""


def _list_paths(values: Any, prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _list_paths(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _parse(text: str) -> Any:
    for candidate in (text, f"[{text}]"):
        try:
            return json.loads(candidate)
        except json.JSONDecodeError:
            continue
    return text
