"""Loading a stage for use, from a stage directory that may come from strangers."""

from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from cdm_cli.cascade.classifier import ClassifierStage
from cdm_cli.cascade.saved import BEST, CHECKPOINTS, EMA, STEP_NAME, list_checkpoints
from cdm_cli.cascade.stage import Stage, build_net
from cdm_cli.cascade.stagefile import (
    compute_stage_digest,
    find_stage,
    other_kind_error,
    read_stage_file,
)
from cdm_cli.cascade.weights import read_weights
from cdm_cli.config import AnyStageConfig, ClassifierConfig
from cdm_cli.errors import MissingError, UsageError, quote
from cdm_cli.names import Precision
from cdm_cli.nets.classifier import Classifier
from cdm_cli.nets.unet import UNet
from cdm_cli.sentences import suggest_near


class _Unset(TorchFunctionMode):
    """Skips the random initialisation of weights while modules are built.

    On the meta device there is nothing to draw, and torch would load its compiler for that.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs or {})


def build_empty_net(config: AnyStageConfig) -> UNet | Classifier:
    """Build the network of a stage without memory for its weights (on the meta device)."""
    with torch.device("meta"), _Unset():
        return Classifier(config) if isinstance(config, ClassifierConfig) else build_net(config)


def find_weights_file(directory: Path, weights: str = "ema") -> Path:
    """Return the file of "ema", "best" or "step-…" weights of a stage directory.

    Raises UsageError for another word and MissingError where that file is not there.
    """
    if weights in ("ema", "best"):
        path = directory / (EMA if weights == "ema" else BEST)
    elif STEP_NAME.fullmatch(weights):
        path = directory / CHECKPOINTS / weights / EMA
    else:
        told = f"--weights {weights}: expected ema, best or a checkpoint, as step-00001000"
        there = ["ema", "best", *(found.name for found in list_checkpoints(directory))]
        raise UsageError(suggest_near(told, weights, there), next="--weights ema")
    if not path.is_file():
        steps = [found.name for found in list_checkpoints(directory)]
        raise MissingError(
            f"{path} does not exist; {directory} has {', '.join(steps) or 'no checkpoint'}",
            next=f"--weights {quote(steps[-1])}" if steps else f"cdm train {quote(directory.name)}",
        )
    return path


def load_stage(
    name_or_path: str | Path,
    runs: Path,
    weights: str = "ema",
    device: torch.device | str = "cpu",
    *,
    precision: Precision = "auto",
) -> Stage | ClassifierStage:
    """Load a stage for use: weights checked, on the device, in evaluation mode.

    weights: "ema", "best" or the name of a checkpoint, "step-00001000". Memory is set aside
    only once the header of the weights fits `stage.json` and the file has their size. Raises
    MissingError, BadInputError, UnsafeInputError and MismatchError.
    """
    directory = find_stage(name_or_path, runs)
    file = read_stage_file(directory)
    config, net = file.plan.stage, build_empty_net(file.plan.stage)
    loaded = read_weights(find_weights_file(directory, weights), net.state_dict())
    net.load_state_dict(loaded.tensors, assign=True)
    net.requires_grad_(False).eval()
    name = directory.resolve().name
    digest = compute_stage_digest(config, loaded.digest)
    classes = file.data.classes if file.data else ()
    if isinstance(config, ClassifierConfig):
        assert isinstance(net, Classifier)
        judge = ClassifierStage(config, classes, net, name=name, digest=digest)
        return judge.eval().to(device)
    assert isinstance(net, UNet)
    stage = Stage(config, classes, net, name=name, digest=digest, precision=precision)
    return stage.to(device)


def load_diffusion_stage(
    name_or_path: str | Path,
    runs: Path,
    weights: str = "ema",
    device: torch.device | str = "cpu",
    *,
    precision: Precision = "auto",
) -> Stage:
    """Load a base or super-resolution stage as `load_stage`; MismatchError for a classifier."""
    stage = load_stage(name_or_path, runs, weights, device, precision=precision)
    if isinstance(stage, ClassifierStage):
        raise other_kind_error(find_stage(name_or_path, runs), "classifier", "diffusion stage")
    return stage
