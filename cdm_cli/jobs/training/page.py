"""What a page says of a run: losses, samples, weights, configuration, and where it comes from."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from cdm_cli.cascade.head import read_metadata
from cdm_cli.cascade.saved import EMA, list_checkpoints
from cdm_cli.config import AnyStageConfig, StageConfig
from cdm_cli.errors import CdmError
from cdm_cli.jobs.pictures import page
from cdm_cli.jobs.pictures.page import Html
from cdm_cli.jobs.sampling.defaults import describe_applied
from cdm_cli.jobs.training.grid import SAMPLES
from cdm_cli.jobs.training.plot import draw_loss_plot
from cdm_cli.plans import StageFile
from cdm_cli.units import format_count

GRIDS = 4  # pictures besides the last
CLASSES = 30  # names that are listed

Weights = Mapping[str, Mapping[str, str]]


def read_weights_metadata(directory: Path) -> dict[str, dict[str, str]]:
    """Return the metadata of each file of weights of a stage, by the name that `--weights` takes.

    Files whose metadata cannot be read are left out.
    """
    found = {path.stem: path for path in sorted(directory.glob("*.safetensors"))}
    found |= {saved.name: saved / EMA for saved in list_checkpoints(directory)}
    said: dict[str, dict[str, str]] = {}
    for name, path in found.items():
        try:
            said[name] = read_metadata(path)
        except CdmError:
            continue
    return said


def draw_stage_sections(
    directory: Path, file: StageFile, weights: Weights, curves: Iterator[Html]
) -> Iterator[Html]:
    """Yield the sections of a stage directory; curves: of its checkpoints."""
    step = weights.get("ema", {}).get("step", "0")
    steps = file.plan.training.steps
    yield page.paragraph(f"{name_kind(file.plan.stage)}, at step {step} of {steps}.", "lead")
    yield page.facts(_tell_facts(file))
    plot = page.picture(draw_loss_plot(directory), "loss of the steps that were logged")
    yield page.section("Loss", plot)
    yield page.section("Samples", *_draw_grids(directory))
    yield from curves
    yield page.section("Defaults", *_draw_defaults(file))
    yield page.section("Weights", _draw_weights(weights))
    config = file.plan.model_dump(mode="json")
    yield page.section("Configuration", page.facts(config))


def name_kind(stage: AnyStageConfig) -> str:
    """Describe a stage in words: what it makes or judges, with its resolutions."""
    if not isinstance(stage, StageConfig):
        return f"A classifier of {stage.resolution}×{stage.resolution}"
    side, conditioning = stage.model.resolution, stage.conditioning
    if conditioning is None:
        return f"A base stage of {side}×{side}"
    z_side = conditioning.resolution
    return f"A super-resolution stage from {z_side}×{z_side} to {side}×{side}"


def _tell_facts(file: StageFile) -> dict[str, object]:
    data = file.data
    known: dict[str, object] = {"preset": file.plan.preset, "cdm": file.cdm_version}
    if data is None:
        return known
    more = ", …" if len(data.classes) > CLASSES else ""
    return {
        **known,
        "data": f"{data.name}: {format_count(data.num_train, 'image')} to train on, "
        f"{data.num_val} to validate",
        "digest of the data": data.digest,
        "classes": f"{len(data.classes)}: {', '.join(data.classes[:CLASSES])}{more}",
    }


def _draw_grids(directory: Path) -> Iterator[Html]:
    """Yield the last grid of samples, and some of those before it, folded."""
    found = sorted((directory / SAMPLES).glob("step-*.png"))
    if found:
        *before, last = found
        places = (round(at * (len(before) - 1) / (GRIDS - 1)) for at in range(GRIDS))
        some = dict.fromkeys(before[place] for place in places if before)
        yield _draw_grid(last)
        yield page.fold("earlier", *map(_draw_grid, some))


def _draw_grid(path: Path) -> Html:
    return page.picture(page.read_picture(path), path.stem)


def _draw_defaults(file: StageFile) -> Iterator[Html]:
    """Yield what searches found and `--apply` made the default, and which of it is in force."""
    rows = [
        [at, "yes" if at == file.in_force else "", describe_applied(one), one.by, one.found]
        for at, one in enumerate(file.applied, 1)
    ]
    good = [at == file.in_force for at, _ in enumerate(file.applied, 1)]
    yield page.table(["number", "in force", "applied", "found by", "which said"], rows, good)


def _draw_weights(weights: Weights) -> Html:
    rows = [[name, said.get("step", ""), said.get("sha256", "")] for name, said in weights.items()]
    return page.table(["weights", "step", "sha256"], rows)
