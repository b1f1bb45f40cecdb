"""Which cells a U-Net has, as data: down, middle, up (Dhariwal & Nichol 2021, Section 3).

Every level has `num_res_blocks` cells on the way down and one more on the way up. What each
cell of the way down returns, and what the first convolution returns, is concatenated to
the input of a cell on the way up, last in first out.
"""

from typing import Literal, NamedTuple

from cdm_cli.config import ModelConfig


class CellPlan(NamedTuple):
    """One entry of the way down or up."""

    channels_in: int
    channels: int
    has_block: bool
    has_attention: bool
    resize: Literal["up", "down"] | None


def count_heads(config: ModelConfig, channels: int) -> int:
    """Return the number of attention heads at a width."""
    return channels // config.head_channels if config.head_channels else config.num_heads


def find_middle_channels(config: ModelConfig) -> int:
    """Return the width at the lowest resolution."""
    return config.widths[-1]


def plan_down(config: ModelConfig) -> list[CellPlan]:
    """Return the cells of the way down; a change of resolution is a cell of its own."""
    plans: list[CellPlan] = []
    channels = config.widths[0]
    for level, width in enumerate(config.widths):
        attends = config.resolution >> level in config.attention_resolutions
        for _ in range(config.num_res_blocks):
            plans.append(CellPlan(channels, width, True, attends, None))
            channels = width
        if level + 1 < len(config.channel_mult):
            plans.append(CellPlan(width, width, False, False, "down"))
    return plans


def plan_up(config: ModelConfig) -> list[CellPlan]:
    """Return the cells of the way up; channels_in counts the concatenated skip."""
    skips = [config.widths[0], *(plan.channels for plan in plan_down(config))]
    plans: list[CellPlan] = []
    channels = find_middle_channels(config)
    for level, width in reversed(list(enumerate(config.widths))):
        attends = config.resolution >> level in config.attention_resolutions
        for i in range(config.num_res_blocks + 1):
            grows = level > 0 and i == config.num_res_blocks
            channels_in = channels + skips.pop()
            plans.append(CellPlan(channels_in, width, True, attends, "up" if grows else None))
            channels = width
    return plans
