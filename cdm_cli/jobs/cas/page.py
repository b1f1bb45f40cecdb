"""What a page says of a Classification Accuracy Score: the score, each class, plot and images."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from cdm_cli.cascade.stagefile import read_settings
from cdm_cli.config import Settings
from cdm_cli.errors import MissingError
from cdm_cli.jobs.cas.files import BEST, CLASSES, PLOT, WORST, read_cas_file
from cdm_cli.jobs.judging.kept import LIMIT, read_numbers
from cdm_cli.jobs.pictures import page
from cdm_cli.jobs.pictures.page import Html
from cdm_cli.jobs.runtime.identity import advise_remaking
from cdm_cli.names import CAS_TABLE

PICTURES = {
    PLOT: "accuracy of each class, trained on real images and on samples",
    BEST: "classes that gain most by samples: samples left, real images right",
    WORST: "classes that lose most by samples: samples left, real images right",
}


class ClassLine(BaseModel):
    """What `classes.json` has of one class; it may have more."""

    model_config = ConfigDict(frozen=True, extra="allow")


class ClassesFile(Settings):
    """The contents of `classes.json`."""

    classes: tuple[ClassLine, ...]


def tell_score(out: Path) -> Iterator[Html]:
    """Yield the sections of a score. Raises MissingError where it is not there yet."""
    if not (out / CAS_TABLE).is_file():
        raise MissingError(f"{out} has no score yet", next="cdm eval cas, which continues it")
    file = read_cas_file(out)
    table = read_numbers(out / CAS_TABLE)
    scores = {row.extra.get("trained_on"): row for row in table.rows if row.metric == "cas_top1"}
    told = [f"{row.value:.1%} trained on {name}" for name, row in scores.items()]
    yield page.paragraph(f"Top-1 accuracy on real validation images: {', '.join(told)}.", "lead")
    yield page.section(
        "Numbers", page.table(table.header(), table.lines()), page.notes(table.gather_notes())
    )
    lines = _read_classes(out)
    yield page.section(
        "Classes",
        page.paragraph(say_gains(lines)) if lines else Html(""),
        *_read_pictures(out),
        page.fold("every class", _tell_classes(lines)) if lines else Html(""),
    )
    digests = {"samples": file.samples_digest, "real": file.real_digest, "val": file.val_digest}
    yield page.section(
        "Where it comes from",
        page.facts({"samples": file.samples, "ref": file.ref, "cdm": file.cdm_version}),
        page.facts({f"digest of {name}": digest for name, digest in digests.items()}),
        page.fold("recipe", page.facts(file.recipe.model_dump(mode="json"))),
    )


def _read_pictures(out: Path) -> Iterator[Html]:
    for name, caption in PICTURES.items():
        yield page.picture(page.read_picture(out / name), caption)


def _read_classes(out: Path) -> list[dict[str, Any]]:
    if not (out / CLASSES).is_file():
        return []
    again = advise_remaking(out, CLASSES)
    lines = read_settings(ClassesFile, out / CLASSES, LIMIT, next=again).classes
    return [line.model_extra or {} for line in lines]


def say_gains(lines: Sequence[Mapping[str, Any]]) -> str:
    """Return how many classes gain and lose by samples, and of how many that is certain.

    lines: of `classes.json`, one for each class.
    """
    gains = [line.get("gain") or 0 for line in lines]
    verdicts = [line.get("verdict") for line in lines]
    gain, lose = sum(x > 0 for x in gains), sum(x < 0 for x in gains)
    return (
        f"By samples instead of real images accuracy rises in {gain} of {len(lines)} classes, "
        f"certainly in {verdicts.count('better')}; it falls in {lose}, "
        f"certainly in {verdicts.count('worse')}."
    )


def _tell_classes(lines: list[dict[str, Any]]) -> Html:
    header = list(dict.fromkeys(name for line in lines for name in line))
    return page.table(header, [[_shorten(line.get(name)) for name in header] for line in lines])


def _shorten(value: object) -> object:
    return f"{value:.3g}" if isinstance(value, float) else value
