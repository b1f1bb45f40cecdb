"""What `cdm eval cas` is asked: a classifier that learns from samples, tested on real images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt

from cdm_cli.names import CAS, DATA, MOST_BATCH, MOST_STEPS, SAMPLES, CasNet
from cdm_cli.options.flag import Flag, Without
from cdm_cli.options.judging import AtLeastTwo, Ref
from cdm_cli.options.outputs import FolderOut
from cdm_cli.options.sampling import Compute, Resolution


@dataclass(frozen=True)
class CasOptions:
    """`cdm eval cas`. epochs: how often each sample is seen; steps: of both trainings, instead.

    batch_size: the images of a step, of all processes together. lr None: 0.1 for each 256 of them.
    """

    store: Annotated[Path, Flag("Store to judge.", "STORE", argument=True)] = Path(SAMPLES)
    ref: Ref = Path(DATA)
    split: Annotated[str | None, Flag("Part of a prepared STORE [default: train].", "train")] = None
    resolution: Resolution = None
    num: AtLeastTwo = None
    net: Annotated[CasNet, Flag("Classifier to train; small is for a CPU.")] = "resnet50"
    epochs: Annotated[float, Gt(0), Le(MOST_STEPS), Flag("How often to see every sample.", "N")] = (
        90
    )
    steps: Annotated[int | None, Ge(1), Le(MOST_STEPS), Flag("Steps, instead of epochs.", "N")] = (
        None
    )
    batch_size: Annotated[
        int, Ge(2), Le(MOST_BATCH), Flag("Images of a step, over all GPUs.", "N")
    ] = 256
    lr: Annotated[
        float | None, Gt(0), Le(1000), Flag("Highest rate [default: 0.1 for each 256 images].", "X")
    ] = None
    label_smoothing: Annotated[
        float, Ge(0), Lt(1), Flag("Share of the label given to all.", "X")
    ] = 0.1
    seed: Annotated[int, Ge(0), Lt(2**63), Flag("Seed of weights, data order and crops.", "N")] = 0
    out: FolderOut = Path(CAS)
    compute: Annotated[Compute, Without("compile")] = Compute()
