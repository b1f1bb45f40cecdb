"""The weights that a seed draws: at once, or in a thread while a GPU rehearses its first step.

792 million numbers take a processor five seconds. What a first step compiles, loads and tries
depends on none of them.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from cdm_cli.cascade.checkpoint import build_empty_net
from cdm_cli.cascade.stage import build_net
from cdm_cli.config import AnyStageConfig, ClassifierConfig
from cdm_cli.nets.classifier import Classifier
from cdm_cli.nets.counting import count_parameters
from cdm_cli.nets.unet import UNet

WORTH_A_THREAD = 10**8  # parameters: half a second of drawing, and one more call of the network
DRAWING = {"uniform_", "normal_", "kaiming_uniform_"}  # functions of torch.nn.init


class GivenUpError(Exception):
    """Ends a thread whose weights nobody wants any more."""


class _Drawing(TorchFunctionMode):
    """Lets the modules that are built meanwhile, in this thread, draw from one generator.

    It has the numbers that torch's default generator has for a seed, which stays as it is.
    """

    def __init__(self, seed: int, given_up: threading.Event) -> None:
        super().__init__()
        self._generator, self._given_up = torch.Generator().manual_seed(seed), given_up

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if self._given_up.is_set():
            raise GivenUpError
        named = kwargs or {}
        if getattr(func, "__name__", "") in DRAWING:
            named = {**named, "generator": self._generator}
        return func(*args, **named)


def draw_net(
    config: AnyStageConfig, seed: int, given_up: threading.Event | None = None
) -> UNet | Classifier:
    """Build a network on the CPU with the weights that a seed draws.

    Raises GivenUpError before its next layer once `given_up` is set.
    """
    with torch.device("cpu"), _Drawing(seed, given_up or threading.Event()):
        return Classifier(config) if isinstance(config, ClassifierConfig) else build_net(config)


class FirstWeights:
    """Weights that a thread draws, for a network whose memory is there and not filled."""

    def __init__(self, config: AnyStageConfig, seed: int) -> None:
        """Start the thread."""
        self._given_up = threading.Event()
        self._pool = ThreadPoolExecutor(1, "first weights")
        self._drawn = [self._pool.submit(draw_net, config, seed, self._given_up)]

    @torch.no_grad()
    def fill(self, net: nn.Module) -> None:
        """Wait for the weights and copy them into a network; raise what ended the thread.

        To be called once: the copy in memory is given back.
        """
        drawn = dict(self._drawn.pop().result().named_parameters())
        for name, parameter in net.named_parameters():
            parameter.copy_(drawn[name])

    def give_up(self) -> None:
        """End the thread; what it has drawn is forgotten."""
        self._given_up.set()
        self._pool.shutdown()
        self._drawn.clear()


def begin_net(
    config: AnyStageConfig, seed: int, device: torch.device, stack: ExitStack
) -> tuple[UNet | Classifier, FirstWeights | None]:
    """Build a network with the weights that a seed draws.

    Where drawing takes long, a thread draws while other things are done, and the stack ends it:
    the network has its memory on the device, and its weights once `FirstWeights.fill` gives them.
    """
    if not is_worth_a_thread(config, device):
        return draw_net(config, seed), None
    weights = FirstWeights(config, seed)
    stack.callback(weights.give_up)
    return build_empty_net(config).to_empty(device=device), weights


def is_worth_a_thread(config: AnyStageConfig, device: torch.device) -> bool:
    """Return whether drawing takes longer than what a GPU computes twice meanwhile."""
    if device.type != "cuda":
        return False
    return count_parameters(build_empty_net(config)) >= WORTH_A_THREAD
