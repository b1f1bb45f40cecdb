"""What training does to its images, drawn for a whole batch from (seed, step) alone.

Images go in as uint8 [B, C, H, W] and come out in [-1, 1], [B, C, crop, crop]. The numbers are
drawn on the CPU, so neither the device nor the number of processes changes them.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cdm_cli.data.pixels import from_uint8
from cdm_cli.diffusion.augment import flip
from cdm_cli.jobs.cas.recipe import CasRecipe
from cdm_cli.jobs.training.keys import derive_seed
from cdm_cli.jobs.training.objective import crop_shifted
from cdm_cli.nets.kernels.recorded import map_tensors

AREA = (0.08, 1.0)  # of the image, and the ratio of width to height, as torchvision draws them
RATIO = (3 / 4, 4 / 3)
TRIES = 10


class CropDraws(NamedTuple):
    """boxes [B, 4]: centre x, y, width, height as parts of the image, where they are cut out.

    shifts [2, B]: of windows of the padded image; coins [B]: which are mirrored.
    """

    boxes: Tensor | None
    shifts: Tensor
    coins: Tensor

    def take_rows(self, rows: slice) -> "CropDraws":
        """Return the draws of some rows of the batch."""
        boxes = None if self.boxes is None else self.boxes[rows]
        return CropDraws(boxes, self.shifts[:, rows], self.coins[rows])

    def to(self, device: torch.device) -> "CropDraws":
        """Return the draws on a device."""
        pin = device.type == "cuda"  # a copy from other memory may wait for the step before
        return map_tensors(
            lambda x: (x.pin_memory() if pin else x).to(device, non_blocking=True), self
        )


def draw_crops(recipe: CasRecipe, step: int) -> CropDraws:
    """Draw boxes, shifts and coins for all images of a step, the same in every process."""
    generator = torch.Generator().manual_seed(derive_seed(recipe.seed, "cas", step))
    B = recipe.batch_size
    shifts = torch.randint(0, 2 * recipe.pad + 1, (2, B), generator=generator)
    coins = torch.rand(B, generator=generator) < 0.5
    boxes = None if recipe.augmentation == "pad-crop" else draw_boxes(B, generator)
    return CropDraws(boxes, shifts, coins)


def draw_boxes(num: int, generator: torch.Generator) -> Tensor:
    """Draw boxes [num, 4] of random area and ratio that lie inside the image.

    Of ten tries the first that fits is taken, and the whole image where none does (Szegedy et
    al. 2015, as in torchvision).
    """
    area = torch.empty(TRIES, num).uniform_(*AREA, generator=generator)
    low, high = (torch.tensor(ratio).log().item() for ratio in RATIO)
    ratio = torch.empty(TRIES, num).uniform_(low, high, generator=generator).exp()
    sides = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], dim=2)
    fits = (sides <= 1).all(dim=2)
    first = fits.int().argmax(dim=0)
    size = torch.where(fits.any(dim=0)[:, None], sides[first, torch.arange(num)], 1.0)
    centre = size / 2 + (1 - size) * torch.rand(num, 2, generator=generator)
    return torch.cat([centre, size], dim=1)


def augment(x_0: Tensor, draws: CropDraws, recipe: CasRecipe) -> Tensor:
    """Crop and mirror images uint8 [B, C, H, W], each by its own draws, to [B, C, crop, crop]."""
    x = from_uint8(x_0)
    if draws.boxes is None:
        x = crop_shifted(x, draws.shifts, recipe.pad)
    else:
        x = resize_crop(x, draws.boxes, recipe.crop)
    return flip(draws.coins, x)[0]


def resize_crop(x: Tensor, boxes: Tensor, crop: int) -> Tensor:
    """Cut out a box [B, 4] of each image and bring it to crop × crop pixels, bilinearly."""
    centre, size = boxes[:, :2], boxes[:, 2:]
    theta = torch.cat([torch.diag_embed(size), (2 * centre - 1)[:, :, None]], dim=2)
    grid = F.affine_grid(theta, [*x.shape[:2], crop, crop], align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def crop_centre(x_0: Tensor, crop: int) -> Tensor:
    """Cut crop × crop pixels out of the middle of uint8 images, for the test; return [-1, 1]."""
    top, left = ((side - crop) // 2 for side in x_0.shape[2:])
    return from_uint8(x_0[:, :, top : top + crop, left : left + crop])
