"""Mirrors cdm_cli/cascade/openai*.py; benchmarks/peer_openai.py compares with the packages."""

import pytest
import torch

from cdm_cli.cascade.chain import build_chain
from cdm_cli.cascade.foreign.openai import read_architecture, stage_config
from cdm_cli.cascade.foreign.openai_flags import PUBLISHED, Flags, find_package, parse_flags
from cdm_cli.cascade.foreign.openai_names import convert, name_tensors
from cdm_cli.cascade.stage import Stage, build_net
from cdm_cli.config import SamplingDefaults
from cdm_cli.diffusion.schedules import list_openai_times, space_times, trailing_times
from cdm_cli.errors import BadInputError, MismatchError, UsageError
from cdm_cli.options.sampling import Sampling
from tests.cascade.openai_like import checkpoint, model, sr_stage, stage

BLOCK = (
    "in_layers.0.bias in_layers.0.weight in_layers.2.bias in_layers.2.weight emb_layers.1.bias "
    "emb_layers.1.weight out_layers.0.bias out_layers.0.weight out_layers.3.bias "
    "out_layers.3.weight"
).split()
SKIP = ["skip_connection.bias", "skip_connection.weight"]
ATTENTION = "norm.bias norm.weight qkv.bias qkv.weight proj_out.bias proj_out.weight".split()


def spelled_out() -> set[str]:
    """The tensors of the 16x16 model, written from the packages' own layout."""
    blocks = {
        "input_blocks.1.0": BLOCK, "input_blocks.3.0": BLOCK + SKIP, "middle_block.0": BLOCK,
        "middle_block.2": BLOCK, "output_blocks.0.0": BLOCK + SKIP,
        "output_blocks.1.0": BLOCK + SKIP, "output_blocks.2.0": BLOCK + SKIP,
        "output_blocks.3.0": BLOCK + SKIP, "input_blocks.3.1": ATTENTION,
        "middle_block.1": ATTENTION, "output_blocks.0.1": ATTENTION,
        "output_blocks.1.1": ATTENTION, "input_blocks.2.0": ["op.bias", "op.weight"],
        "output_blocks.1.2": ["conv.bias", "conv.weight"],
    }  # fmt: skip
    single = ["time_embed.0", "time_embed.2", "input_blocks.0.0", "out.0", "out.2"]
    found = {f"{block}.{part}" for block, parts in blocks.items() for part in parts}
    return found | {f"{s}.{p}" for s in single for p in ("bias", "weight")} | {"label_emb.weight"}


def config_of(config, text="--image_size 16", origin=None):
    return stage_config(checkpoint(config), parse_flags([text])[0], origin, "m.pt")


def test_names_are_those_of_the_packages():
    assert set(name_tensors(stage()).values()) == spelled_out()
    assert len(set(name_tensors(stage()).values())) == len(name_tensors(stage()))


def test_names_of_blocks_that_resample():
    table = name_tensors(stage(model=model(resblock_updown=True)))
    assert table["down.1.resize.conv_1.weight"] == "input_blocks.2.0.in_layers.2.weight"
    assert table["up.1.resize.modulation.bias"] == "output_blocks.1.2.emb_layers.1.bias"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"resblock_updown": True},
        {"scale_shift": False},
        {"num_classes": 0},
        {"channels": 1},
        {"num_res_blocks": 3, "channel_mult": (1, 1, 2), "attention_resolutions": (16, 4)},
        {"channel_mult": (1,), "attention_resolutions": ()},
        {"resolution": 32, "channel_mult": (1, 2, 3), "resblock_updown": True},
    ],
)
def test_shapes_and_resolution_give_the_stage_back(changes):
    config = stage(model=model(**changes))
    resolution = config.model.resolution
    assert config_of(config, f"--image_size {resolution} --rescale_learned_sigmas 1") == config


def test_a_super_resolution_checkpoint():
    text = "--large_size 16 --small_size 8 --rescale_learned_sigmas True"
    assert config_of(sr_stage(), text) == sr_stage()
    with pytest.raises(MismatchError, match="large_size and small_size missing"):
        config_of(sr_stage())
    with pytest.raises(UsageError, match="small_size is missing"):
        config_of(sr_stage(), "--large_size 16")


def test_flags_that_no_tensor_shows():
    text = (
        "--image_size=16 --num_head_channels 8 --use_new_attention_order True --dropout 0.1 "
        "--diffusion_steps 4000 --noise_schedule cosine --timestep_respacing ddim25 --use_fp16 True"
    )
    found = config_of(stage(), text, "guided-diffusion")
    assert (found.model.head_channels, found.model.qkv_order) == (8, "new")
    assert found.model.dropout == 0.1
    assert (found.schedule.kind, found.schedule.T) == ("cosine", 4000)
    assert (found.sampling.sampler, found.sampling.steps) == ("ddim", 25)
    assert (found.loss, found.vlb_weight) == ("hybrid", 1 / 4000)


@pytest.mark.parametrize(
    ("respacing", "steps", "asked", "last"),
    [("10,10,20", None, 40, 4000), ("10,10,20", 100, 100, 4000), ("ddim25", None, 25, 3841)],
)
def test_an_imported_stage_keeps_the_times_of_its_package(respacing, steps, asked, last):
    text = f"--image_size 16 --diffusion_steps 4000 --timestep_respacing {respacing}"
    config = config_of(stage(), text, "guided-diffusion")
    assert config.sampling.respacing == respacing
    times = build_chain(config, Sampling(steps=steps)).schedule.times[1:]
    rule = respacing if steps is None else str(steps)
    assert torch.equal(times, list_openai_times(4000, rule))
    assert (len(times), int(times[-1])) == (asked, last)


def test_other_samplers_and_stages_keep_their_own_times():
    config = config_of(stage(), "--image_size 16 --timestep_respacing 6", "guided-diffusion")
    solver = build_chain(config, Sampling(steps=6, sampler="dpm-solver++")).schedule.times[1:]
    assert torch.equal(solver, trailing_times(1000, 6))
    before = config.model_copy(update={"sampling": SamplingDefaults(steps=6)})
    assert torch.equal(build_chain(before, Sampling()).schedule.times[1:], space_times(1000, 6))


def test_what_tells_stages_apart_is_as_before():
    """The digest of a stage is over this text: a stage that was not imported must not change."""
    assert '"respacing"' not in SamplingDefaults(steps=6).model_dump_json()
    assert "respacing" not in SamplingDefaults(steps=6).model_dump()
    kept = SamplingDefaults(steps=6, respacing="6")
    assert SamplingDefaults.model_validate_json(kept.model_dump_json()) == kept


@pytest.mark.parametrize(
    ("text", "variance", "loss"),
    [("", "large", "simple"), ("--sigma_small True", "small", "simple")],
)
def test_fixed_variances(text, variance, loss):
    found = config_of(stage(variance="large", loss="simple"), f"--image_size 16 {text}")
    assert (found.variance, found.loss) == (variance, loss)


def test_times_are_scaled_by_default_in_one_of_the_packages():
    text = "--image_size 16 --diffusion_steps 4000"
    assert config_of(stage(), text, "improved-diffusion").rescale_time
    assert not config_of(stage(), text, "guided-diffusion").rescale_time
    assert not config_of(stage(), text + " --rescale_timesteps no").rescale_time
    with pytest.raises(UsageError, match="rescale_timesteps is missing"):
        config_of(stage(), text)


@pytest.mark.parametrize(("rescale", "fed"), [(False, [0, 1, 3999]), (True, [0, 0.25, 999.75])])
def test_the_network_is_fed_times_from_0(rescale, fed):
    text = f"--image_size 16 --diffusion_steps 4000 --rescale_timesteps {rescale}"
    config = config_of(stage(), text)
    imported = Stage(config, (), build_net(config))
    schedule = imported.schedule
    t = torch.tensor([1, 2, 4000])
    assert imported.compute_time_input(schedule.alpha_bar[t], schedule.times[t]).tolist() == fed


@pytest.mark.parametrize(
    "flag",
    [
        "num_channels 64", "num_res_blocks 2", "channel_mult 1,3", "attention_resolutions 16",
        "use_scale_shift_norm False", "resblock_updown True", "class_cond False",
        "learn_sigma False",
    ],
)  # fmt: skip
def test_a_flag_that_contradicts_the_tensors(flag):
    with pytest.raises(MismatchError, match=rf"say {flag.split()[0]} = .*the tensors show"):
        config_of(stage(), f"--image_size 16 --{flag}")


def test_flags_that_agree_with_the_tensors():
    text = (
        "--image_size 16 --num_channels 32 --num_res_blocks 1 --channel_mult 1,2 "
        "--attention_resolutions 8 --use_scale_shift_norm True --resblock_updown False "
        "--class_cond True --learn_sigma True --num_heads_upsample -1 --num_head_channels -1"
    )
    assert config_of(stage(), text).model == model()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("--num_classes 3", "unknown flag num_classes"),
        ("--imagesize 16", "did you mean image_size"),
        ("--image_size", "has no value"),
        ("--image_size --lr 3", "image_size has no value"),
        ("--image_size big", "image_size"),
        ("--noise_schedule quadratic", "noise_schedule"),
        ("--image_size '16", "No closing quotation"),
        ("--image_size 16 --predict_xstart True", "predict_xstart"),
        ("--image_size 16 --num_heads 4 --num_heads_upsample 2", "num_heads_upsample"),
        ("--image_size 16 --num_heads 5", "do not divide"),
        ("--image_size 16 --attention_resolutions eight", "no list of numbers"),
        ("--lr 1e-4", "image_size is missing"),
        ("--image_size 16 --timestep_respacing 500,600", "600 steps do not fit into a section"),
        ("--image_size 16 --timestep_respacing ddim999", "no whole stride leaves 999"),
        ("--image_size 16 --timestep_respacing fast", "expected 250, 10,10,20 or ddim25"),
    ],
)
def test_flags_that_cannot_be_used(text, message):
    with pytest.raises(UsageError, match=message):
        config_of(stage(), text)


def test_a_later_flag_wins_and_spellings_are_free():
    flags, said = parse_flags(["--image_size 32 -num_heads=2", "image_size=64"])
    assert flags == Flags(image_size=64, num_heads=2)
    assert said == {"image_size", "num_heads"}


def test_origin_by_the_flags_that_only_one_package_has():
    assert find_package(frozenset(["use_fp16"]), None) == "guided-diffusion"
    assert find_package(frozenset(["sigma_small"]), None) == "improved-diffusion"
    assert find_package(frozenset(["lr"]), None) is None
    assert find_package(frozenset(["use_fp16"]), "improved-diffusion") == "improved-diffusion"


def test_flags_of_the_published_models_are_read():
    for _, text in PUBLISHED.values():
        flags, _ = parse_flags([text])
        assert flags.noise_schedule
        assert flags.image_size or flags.large_size


@pytest.mark.parametrize("order", ["legacy", "new"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_arrive_as_float32_under_our_names(order, dtype):
    config = stage(model=model(qkv_order=order))
    tensors = {name: t.to(dtype) for name, t in checkpoint(config).items()}
    weights = convert(tensors, config, "m.pt")
    build_net(config).load_state_dict(weights)
    assert all(w.dtype == torch.float32 and w.is_contiguous() for w in weights.values())
    for ours, theirs in name_tensors(config).items():
        assert torch.equal(weights[ours].flatten(), tensors[theirs].float().flatten())


def test_tensors_missing_unknown_or_of_another_shape():
    tensors = checkpoint(stage())
    tensors["extra.weight"] = tensors.pop("out.0.bias")
    with pytest.raises(MismatchError, match=r"lacks 1 \(out.0.bias\) and has 1 too many \(extra"):
        convert(tensors, stage(), "m.pt")
    tensors = checkpoint(stage())
    tensors["out.0.bias"] = torch.zeros(7)
    with pytest.raises(MismatchError, match=r"out.0.bias is torch.float32 \[7\].*\[32\]"):
        convert(tensors, stage(), "m.pt")
    tensors["out.0.bias"] = torch.zeros(32, dtype=torch.int64)
    with pytest.raises(MismatchError, match=r"out.0.bias is torch.int64"):
        convert(tensors, stage(), "m.pt")
    tensors["out.0.bias"] = torch.full((32,), torch.nan)
    with pytest.raises(BadInputError, match=r"out.0.bias is not finite"):
        convert(tensors, stage(), "m.pt")


def test_what_is_no_unet_at_all():
    with pytest.raises(MismatchError, match="has no weight time_embed"):
        read_architecture({"fc.weight": torch.zeros(2, 2)}, "m.pt")
    tensors = {k: v for k, v in checkpoint(stage()).items() if not k.startswith("output_blocks")}
    with pytest.raises(MismatchError, match="no output_blocks"):
        read_architecture(tensors, "m.pt")
