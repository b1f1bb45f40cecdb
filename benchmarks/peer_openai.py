"""The mathematics and imported networks beside openai/guided-diffusion and improved-diffusion.

    python benchmarks/peer_openai.py --guided PATH/guided-diffusion \\
        --improved PATH/improved-diffusion

Both packages are taken from clones; nothing is downloaded. Every row is the largest difference,
relative to the largest value of the peer. Networks are randomly initialised by the peer, with
noise in the weights it starts at zero, imported through `cdm import`'s own functions, and run
in float32 on the same inputs. Their time t is ours minus one. Ends with status 1 if any row is
above its bound.
"""

import argparse
import platform
import sys
import types
from importlib import import_module
from typing import Any

import torch
from peer_openai_process import (
    GUIDED,
    IMPROVED,
    compare_decoder,
    compare_process,
    difference,
    diffusion_of,
    failed,
    row,
    use_exact_cdf,
)
from torch import Tensor, nn

from cdm_cli.cascade.foreign.openai import stage_config
from cdm_cli.cascade.foreign.openai_flags import PUBLISHED, parse_flags
from cdm_cli.cascade.foreign.openai_names import convert
from cdm_cli.cascade.stage import Stage, build_net
from cdm_cli.diffusion import samplers
from cdm_cli.diffusion.schedules import spread_schedule
from cdm_cli.nets.counting import count_parameters

BASE = "--num_channels 64 --num_res_blocks 1 --learn_sigma True"
NETWORKS = [
    (GUIDED, "legacy order", f"--image_size 32 --channel_mult 1,2 {BASE}"),
    (GUIDED, "new order, head channels", f"--image_size 32 --channel_mult 1,2,3 {BASE} "
     "--use_new_attention_order True --num_head_channels 32 --class_cond True"),
    (GUIDED, "resblock up/down, classes", f"--image_size 32 --channel_mult 1,2,2 {BASE} "
     "--resblock_updown True --class_cond True --num_heads 2"),
    (GUIDED, "no scale-shift, fixed variance", "--image_size 32 --channel_mult 1,2 "
     "--num_channels 64 --num_res_blocks 2 --use_scale_shift_norm False"),
    (GUIDED, "no scale-shift, up/down, new", f"--image_size 64 --channel_mult 1,1,2 {BASE} "
     "--use_scale_shift_norm False --resblock_updown True --use_new_attention_order True"),
    (GUIDED, "SR 16 to 64, up/down, classes", f"--large_size 64 --small_size 16 {BASE} "
     "--resblock_updown True --class_cond True --attention_resolutions 32,16"),
    (GUIDED, "SR 64 to 256, as published", "--large_size 256 --small_size 64 --num_channels 32 "
     "--num_res_blocks 2 --learn_sigma True --class_cond True --resblock_updown True "
     "--attention_resolutions 32,16,8 --num_heads 4"),
    (IMPROVED, "cosine, 4000 scaled times", f"--image_size 32 {BASE} --diffusion_steps 4000 "
     "--noise_schedule cosine"),
    (IMPROVED, "no scale-shift, 1 head", f"--image_size 64 {BASE} --use_scale_shift_norm False "
     "--num_heads 1 --attention_resolutions 16"),
    (IMPROVED, "SR 32 to 64, classes", f"--large_size 64 --small_size 32 {BASE} "
     "--class_cond True --diffusion_steps 4000 --rescale_timesteps False"),
]  # fmt: skip


def load_peers(guided: str, improved: str) -> dict[str, Any]:
    """Import what is needed of both packages; their launchers' dependencies are not."""
    for name in ("blobfile", "mpi4py", "mpi4py.MPI"):
        sys.modules.setdefault(name, types.ModuleType(name))
    sys.modules["mpi4py"].MPI = sys.modules["mpi4py.MPI"]  # pyright: ignore
    sys.path[:0] = [guided, improved]
    return {name: import_module(f"{name}.script_util") for name in (GUIDED, IMPROVED)}


def peer_of(peer: Any, text: str) -> tuple[nn.Module, Any]:
    """Build the peer's network and diffusion from flags, as its scripts do."""
    flags, _ = parse_flags([text])
    said = flags.model_dump(exclude_none=True)
    if "large_size" in said:
        values = {**peer.sr_model_and_diffusion_defaults(), **said}
        return peer.sr_create_model_and_diffusion(**values)
    return peer.create_model_and_diffusion(**{**peer.model_and_diffusion_defaults(), **said})


def randomised(net: nn.Module) -> nn.Module:
    """Put noise into all that the peer initialises to zero."""
    for parameter in net.parameters():
        if not bool(parameter.any()):
            nn.init.normal_(parameter, std=0.05)
    return net.eval()


def imported(net: nn.Module, text: str, package: str) -> Stage:
    """Turn the peer's network into a stage through the functions of `cdm import`."""
    tensors = net.state_dict()
    origin = "guided-diffusion" if package == GUIDED else "improved-diffusion"
    config = stage_config(tensors, parse_flags([text])[0], origin, "peer")
    ours = build_net(config).eval()
    ours.load_state_dict(convert(tensors, config, "peer"))
    return Stage(config, (), ours, precision="fp32")


def compare_networks(peers: dict[str, Any]) -> None:
    """Same weights, same inputs, same output, at both ends and the middle of time."""
    print("network output after import (float32)")
    for package, name, text in NETWORKS:
        net, diffusion = peer_of(peers[package], text)
        stage = imported(randomised(net), text, package)
        x_t, y, z_s = inputs(stage)
        i = torch.tensor([0, diffusion.num_timesteps // 2, diffusion.num_timesteps - 1])
        known = {"y": y} if y is not None else {}
        known |= {"low_res": z_s} if z_s is not None else {}
        with torch.no_grad():
            theirs = diffusion._wrap_model(net)(x_t, i, **known)
            ours = stage.eps_theta(stage.schedule, y, z_s)(x_t, i + 1)
        parameters = count_parameters(stage.net)
        assert parameters == count_parameters(net)
        note = f"{parameters / 1e6:.2f} M parameters"
        row(f"{package}: {name}", difference(ours, theirs), 1e-5, note)


def inputs(stage: Stage, num: int = 3) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Draw x_t, y and z_s for a stage."""
    model, conditioning = stage.config.model, stage.config.conditioning
    x_t = torch.randn(num, model.channels, model.resolution, model.resolution)
    y = torch.randint(0, model.num_classes, (num,)) if model.num_classes else None
    if conditioning is None:
        return x_t, y, None
    low = conditioning.resolution
    return x_t, y, torch.rand(num, model.channels, low, low) * 2 - 1


def compare_sampling(peers: dict[str, Any], T: int) -> None:
    """Whole chains of 10 respaced steps through an imported network, with the same noise.

    Linear schedules: the first step of a cosine one divides by sqrt(alpha_bar_T) = 5e-5, so the
    rounding of one network output would be seen twenty thousand times larger in x_0.
    """
    said = f"--image_size 32 --channel_mult 1,2 {BASE} --noise_schedule linear "
    said += f"--diffusion_steps {T} --rescale_timesteps True"
    net, _ = peer_of(peers[GUIDED], said)
    stage = imported(randomised(net), said, GUIDED)
    peer = diffusion_of(GUIDED, "linear", T, "learned", respacing=[10])
    peer.rescale_timesteps, schedule = True, spread_schedule(stage.schedule, 10)
    assert (schedule.times[1:] - 1).tolist() == peer.timestep_map
    x_T, eps_theta = torch.randn(2, 3, 32, 32), stage.eps_theta(schedule, None)
    mine = last(samplers.ddim(eps_theta, schedule, x_T, randn_like=torch.randn_like))
    theirs = peer.ddim_sample_loop(net, x_T.shape, noise=x_T, device="cpu")
    row(f"DDIM, T = {T}", difference(mine, theirs), 1e-3)
    torch.manual_seed(7)
    theirs = peer.p_sample_loop(net, x_T.shape, noise=x_T, device="cpu")
    torch.manual_seed(7)
    chain = samplers.ancestral(
        eps_theta, schedule, x_T, randn_like=torch.randn_like, variance="learned"
    )
    row(f"ancestral, T = {T}", difference(last(chain), theirs), 1e-3)


def last(chain: samplers.Steps) -> Tensor:
    """Return x_0 of a chain."""
    with torch.no_grad():
        return [x_t for _, x_t in chain][-1]


def compare_published(peers: dict[str, Any]) -> None:
    """Layout of every published model, built by the peer without memory from its flags."""
    print("published models: built by the peer from its flags, recognised by name and shape")
    for file, (origin, text) in PUBLISHED.items():
        package = GUIDED if origin == "guided-diffusion" else IMPROVED
        widths = WIDTHS.get(file, "")
        with torch.device("meta"):
            net, _ = peer_of(peers[package], f"{text} {widths}")
            config = stage_config(net.state_dict(), parse_flags([text])[0], origin, file)
            ours = build_net(config)
        assert count_parameters(ours) == count_parameters(net), file
        print(f"  {file:40s} {count_parameters(ours) / 1e6:7.1f} M parameters, {config.kind}")


# Widths of the published models (their READMEs): shapes tell them, so `PUBLISHED` does not.
ADM_256 = "--num_channels 256 --num_res_blocks 2"
WIDTHS = {
    "64x64_diffusion.pt": "--num_channels 192 --num_res_blocks 3",
    "64_256_upsampler.pt": "--num_channels 192 --num_res_blocks 2",
    "128_512_upsampler.pt": "--num_channels 192 --num_res_blocks 2",
    "imagenet64_cond_270M_250K.pt": "--num_channels 192",
    "upsample_cond_500K.pt": "--num_channels 192 --num_res_blocks 2",
    "cifar10_uncond_50M_500K.pt": "--num_channels 128 --num_res_blocks 3",
    "cifar10_uncond_vlb_50M_500K.pt": "--num_channels 128 --num_res_blocks 3",
} | dict.fromkeys(
    ["128x128_diffusion.pt", "256x256_diffusion.pt", "256x256_diffusion_uncond.pt",
     "512x512_diffusion.pt", "lsun_bedroom.pt", "lsun_cat.pt", "lsun_horse.pt",
     "lsun_horse_nodropout.pt"], ADM_256,
)  # fmt: skip


def main() -> None:
    """Print every table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--guided", required=True, help="clone of openai/guided-diffusion")
    parser.add_argument("--improved", required=True, help="clone of openai/improved-diffusion")
    arguments = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, "
          f"torch {torch.__version__}, CPU, float32")  # fmt: skip
    torch.manual_seed(0)
    peers = load_peers(arguments.guided, arguments.improved)
    compare_networks(peers)
    compare_published(peers)
    print("chains of 10 respaced steps through an imported network, x_0 clipped")
    for T in (1000, 4000):
        compare_sampling(peers, T)
    compare_decoder((GUIDED, IMPROVED))
    use_exact_cdf((GUIDED, IMPROVED))
    for package in (GUIDED, IMPROVED):
        for name, times in (("cosine", 4000), ("linear", 1000)):
            compare_process(package, name, times)
    if failed:
        sys.exit(f"{len(failed)} rows are above their bounds: {', '.join(failed)}")


if __name__ == "__main__":
    main()
