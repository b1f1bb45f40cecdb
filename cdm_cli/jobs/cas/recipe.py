"""How the classifiers of a Classification Accuracy Score are trained: the same for all images.

The paper (Table 1b) takes the score of Ravuri & Vinyals (2019) without a recipe of its own. Ours
is that of Goyal et al. (2017) for ResNet-50: SGD with momentum 0.9, weight decay 1e-4 on all
but gains and biases, a rate of 0.1 for each 256 images of a step after a linear warm-up over
five of 90 epochs; but with a cosine to 0, label smoothing 0.1 and batch norm over 64 images.
From 64 pixels on, training sees random crops of 8 % to 100 % of the area, resized to 7/8 of the
side (224 of 256), and the test the centre of that size; below, images padded by an eighth and
cropped to their own size, and the test the whole image. Half of all training images are mirrored.
"""

import hashlib
import json
import math
from typing import Literal

from pydantic import Field

from cdm_cli.names import CasNet, Precision
from cdm_cli.nets.resnet import SMALL_IMAGE
from cdm_cli.options.cas import CasOptions
from cdm_cli.settings import Settings

LR, LR_BATCH = 0.1, 256
WARMUP = 5 / 90
NORM_IMAGES = 64  # half of them take twice the time on a GPU; more leave few GPUs a share


class CasRecipe(Settings):
    """All that decides the weights of a classifier, given its images; lengths are in pixels."""

    network: CasNet
    resolution: int
    channels: int
    num_classes: int
    crop: int
    pad: int
    augmentation: Literal["random-resized-crop", "pad-crop"]
    steps: int
    batch_size: int
    lr: float
    warmup: int
    momentum: float = 0.9
    weight_decay: float = 1e-4
    label_smoothing: float
    norm_images: int = Field(default=NORM_IMAGES)
    precision: Precision
    seed: int

    @property
    def digest(self) -> str:
        """SHA-256 of all of it."""
        return hashlib.sha256(json.dumps(self.model_dump(), sort_keys=True).encode()).hexdigest()

    def describe_crop(self) -> str:
        """Say how images are cropped in training and in the test."""
        if self.augmentation == "pad-crop":
            return f"padded by {self.pad} and cropped, mirrored; tested whole"
        return f"random resized crop to {self.crop}, mirrored; tested on the centre of {self.crop}"


def choose_recipe(
    options: CasOptions,
    *,
    resolution: int,
    channels: int,
    num_classes: int,
    num: int,
    precision: Precision,
    seed: int,
) -> CasRecipe:
    """Return the recipe for num training images of these shapes.

    The steps are --steps, or what it takes to see num images --epochs times. resolution decides
    the augmentation.
    """
    large = resolution >= SMALL_IMAGE
    steps = options.steps or math.ceil(options.epochs * num / options.batch_size)
    return CasRecipe(
        network=options.net,
        resolution=resolution,
        channels=channels,
        num_classes=num_classes,
        crop=resolution * 7 // 8 if large else resolution,
        pad=0 if large else resolution // 8,
        augmentation="random-resized-crop" if large else "pad-crop",
        steps=steps,
        batch_size=options.batch_size,
        lr=options.lr or LR * options.batch_size / LR_BATCH,
        warmup=round(steps * WARMUP),
        label_smoothing=options.label_smoothing,
        precision=precision,
        seed=seed,
    )
