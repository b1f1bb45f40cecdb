"""What `cdm inspect` and `cdm verify` say in short: one screen, one line."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cdm_cli.jobs.sampling.provenance import list_parents
from cdm_cli.units import format_count, format_disk

Lines = list[str]
WHOLE = "all of it: -v, or --json for machines"
DIGITS = 12  # of a digest; -v has it whole
SHOWN = 12  # classes that are named
KINDS = {"sr": "super-resolution"}
CHAIN = ("sampler", "steps", "s", "augment", "seed")
NUMERICS = ("device", "precision", "batch_size")


class InspectResult(dict[str, Any]):
    """What `cdm inspect` found, as a mapping; `show_in_short` shows it on one screen."""

    def __init__(self, values: Mapping[str, Any], short: Callable[[dict[str, Any]], Lines]) -> None:
        super().__init__(values)
        self._short = short

    def show_in_short(self) -> Lines:
        """Return the lines of one screen; the first says what kind of thing is at the path."""
        return [*self._short(self), WHOLE]


def _align(values: Mapping[str, object]) -> Lines:
    said = {name: value for name, value in values.items() if value not in (None, "", [])}
    width = max(map(len, said), default=0)
    return [f"{name:{width}}  {value}" for name, value in said.items()]


def list_store_lines(told: dict[str, Any]) -> Lines:
    """Return what a store holds, whether it is whole, and how it was made."""
    provenance, parts = told["provenance"], told["parts"]
    undone = sum(part["blocks"] - part["blocks_done"] for part in parts)
    state = (
        "finished"
        if told["finished"]
        else f"unfinished, {format_count(undone, 'block')} to be made"
    )
    size = format_disk(told["bytes"])
    said = {_name_part(part["part"]): _describe_part(part) for part in parts}
    return [
        f"{told['path']}: a store of {_name_kind(told['kind'])}, {state}, {size}",
        *_align({
            **said,
            "classes": _list_classes(told["classes"]),
            "made by": provenance.get("command"),
            "note": provenance.get("note"),
            "from": ", ".join(map(_describe_parent, list_parents(provenance))),
            "sampled": _list_settings(provenance.get("identity")),
            "computed": _list_settings(provenance.get("numerics"), NUMERICS),
            "cdm": provenance.get("cdm"),
            "digest": told["digest"],
        }),
    ]  # fmt: skip


def _name_part(part: str) -> str:
    return "images" if part == "all" else part


def _name_kind(kind: str) -> str:
    return "real images" if kind == "prepared" else kind


def _describe_part(part: dict[str, Any]) -> str:
    kept = f", z_s at s = {', '.join(map(str, part['z_s']))}" if part["z_s"] else ""
    sizes = ", ".join(part["images"]).replace("x", "×")
    return f"{part['num']} of {sizes}{kept}"


def _list_classes(names: Sequence[str]) -> str:
    more = ", …" if len(names) > SHOWN else ""
    return f"{len(names)}: {', '.join(names[:SHOWN])}{more}" if names else ""


def _describe_parent(row: Mapping[str, str]) -> str:
    return f"{row['role']} {row['name']} ({row['digest'][:DIGITS]})"


def _list_settings(values: object, names: Sequence[str] = CHAIN) -> str:
    held: Mapping[str, Any] = values if isinstance(values, dict) else {}
    said = ((name.replace("_", " "), held.get(name)) for name in names)
    return ", ".join(f"{name} {value}" for name, value in said if value is not None)


def list_stage_lines(told: dict[str, Any]) -> Lines:
    """Return what a stage is, how far it is trained, and on what."""
    plan, data = told["plan"], told["data"]
    low = told.get("low_resolution")
    source = f" from {low}×{low}" if low else ""
    weights = {
        name: f"step {held.get('step')}, sha256 {str(held.get('sha256', ''))[:DIGITS]}"
        for name, held in told["weights"].items()
    }
    training, kind = plan.training, KINDS.get(told["kind"], told["kind"])
    size = "×".join(str(told[name]) for name in ("resolution", "resolution", "channels"))
    return [
        f"{told['path']}: a {kind} stage at {size}{source}, {_count_classes(told['num_classes'])}",
        *_align({
            "preset": told["preset"],
            "training": f"{format_count(training.steps, 'step')} of {training.batch_size}, "
            f"learning rate {training.lr:g}, seed {training.seed}",
            "checkpoints": ", ".join(told["checkpoints"]),
            **weights,
            "parameters": f"{told['parameters']:,}",
            "cost": f"{told['flops_per_image'] / 1e9:.3g} GFLOPs an image and evaluation",
            "sampled": _describe_sampling(plan.stage),
            "data": data and f"{data.name} ({data.digest[:DIGITS]}): {data.num_train} train, "
            f"{data.num_val} val",
            "classes": data and _list_classes(data.classes),
            "cdm": told["cdm_version"],
        }),
    ]  # fmt: skip


def _count_classes(num: int) -> str:
    return format_count(num, "class") if num else "unconditional"


def _describe_sampling(stage: Any) -> str:
    chain = getattr(stage, "sampling", None)
    if chain is None:
        return ""
    return (
        f"{chain.sampler}, {chain.steps or stage.schedule.T} of "
        f"{format_count(stage.schedule.T, 'step')}"
    )


def list_checkpoint_lines(told: dict[str, Any]) -> Lines:
    """Return the step and the size of a checkpoint."""
    files = told["files"]
    size = format_disk(sum(row["bytes"] for row in files))
    return [
        f"{told['path']}: the checkpoint of step {told['step']}, "
        f"{format_count(len(files), 'file')}, {size}",
        *_align({row["file"]: format_disk(row["bytes"]) for row in files}),
    ]


def list_weights_lines(told: dict[str, Any]) -> Lines:
    """Return what a file of weights says of itself."""
    rest = {name: value for name, value in told.items() if name not in ("path", "kind", "bytes")}
    return [
        f"{told['path']}: weights, {format_disk(told['bytes'])}",
        *_align({name: _shorten(value) for name, value in rest.items()}),
    ]


def _shorten(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
