"""The tensors of openai/guided-diffusion and openai/improved-diffusion under our names."""

from collections.abc import Mapping

import torch
from torch import Tensor

from cdm_cli.cascade.stage import build_net
from cdm_cli.cascade.weights import describe_odd_names
from cdm_cli.config import ModelConfig, StageConfig
from cdm_cli.errors import BadInputError, MismatchError
from cdm_cli.nets.layout import plan_down, plan_up

MODULES = {
    "embed_t.layer_1": "time_embed.0",
    "embed_t.layer_2": "time_embed.2",
    "embed_y": "label_emb",
    "conv_in": "input_blocks.0.0",
    "middle.block_1": "middle_block.0",
    "middle.attention": "middle_block.1",
    "middle.block_2": "middle_block.2",
    "norm_out": "out.0",
    "conv_out": "out.2",
}
PARTS = {
    "norm_1": "in_layers.0",
    "conv_1": "in_layers.2",
    "modulation": "emb_layers.1",
    "norm_2": "out_layers.0",
    "conv_2": "out_layers.3",
    "skip": "skip_connection",
    "out": "proj_out",
}
KEPT, NEXT = "nothing was written", "check --flags, above all image_size and large_size"


def name_tensors(config: StageConfig) -> dict[str, str]:
    """Return their name of every tensor of a stage's network, by ours."""
    modules = MODULES | _name_cells(config.model)
    with torch.device("meta"):
        ours = build_net(config).state_dict()
    return {name: _rename(name, modules) for name in ours}


def _name_cells(model: ModelConfig) -> dict[str, str]:
    """Return their name of every block, attention and change of resolution, by ours."""
    table: dict[str, str] = {}
    for i in range(len(plan_down(model))):
        table |= {f"down.{i}.{role}": f"input_blocks.{i + 1}.0" for role in ("block", "resize")}
        table[f"down.{i}.attention"] = f"input_blocks.{i + 1}.1"
    for i, plan in enumerate(plan_up(model)):
        block = f"output_blocks.{i}"
        table |= {f"up.{i}.block": f"{block}.0", f"up.{i}.attention": f"{block}.1"}
        table[f"up.{i}.resize"] = f"{block}.{2 if plan.has_attention else 1}"
    return table


def _rename(name: str, modules: Mapping[str, str]) -> str:
    parts = name.split(".")
    length = next(k for k in (3, 2, 1) if ".".join(parts[:k]) in modules)
    theirs, inner = modules[".".join(parts[:length])], parts[length:]
    if inner[0] == "conv":  # between two resolutions: `op` on the way down
        inner = ["op" if parts[0] == "down" else "conv", *inner[1:]]
    return ".".join([theirs, *(PARTS.get(part, part) for part in inner)])


def convert(tensors: Mapping[str, Tensor], config: StageConfig, source: str) -> dict[str, Tensor]:
    """Return the weights of a stage, float32 under our names.

    A 1x1 convolution over positions becomes a matrix. Raises MismatchError naming tensors that
    are missing, too many or of another shape, and BadInputError for entries that are not
    finite.
    """
    table = name_tensors(config)
    if odd := describe_odd_names(tensors.keys(), {*table.values()}):
        told = f"{source}: of the {len(table)} tensors of this network it {odd}"
        raise MismatchError(told, kept=KEPT, next=NEXT)
    with torch.device("meta"):
        expected = build_net(config).state_dict()
    result: dict[str, Tensor] = {}
    for ours, theirs in table.items():
        tensor, shape = tensors[theirs], expected[ours].shape
        if tensor.shape not in (shape, (*shape, 1)) or not tensor.is_floating_point():
            raise MismatchError(
                f"{source}: tensor {theirs} is {tensor.dtype} {list(tensor.shape)}, the flags "
                f"make it float {list(shape)}",
                kept=KEPT,
                next=NEXT,
            )
        result[ours] = tensor.detach().float().reshape(shape).clone()
        if not bool(result[ours].isfinite().all()):
            raise BadInputError(f"{source}: tensor {theirs} is not finite", kept=KEPT)
    return result
