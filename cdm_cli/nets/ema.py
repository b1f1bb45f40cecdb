"""Exponential moving average of weights (Ho et al. 2020; Appendix B: 0.9999)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Ema:
    """A float32 shadow of a network's parameters.

    The n-th update uses decay min(decay, (1 + n) / (10 + n)): a constant 0.9999 would leave
    37 % of the initial weights in the average after 10 000 steps.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.net, self.decay, self.num_updates = net, decay, 0
        self._parameters = list(net.parameters())
        self._shadow = {
            name: parameter.detach().float().clone() for name, parameter in net.named_parameters()
        }

    def compute_decay(self) -> float:
        """Return the decay that the next update uses."""
        n = self.num_updates + 1
        return min(self.decay, (1 + n) / (10 + n))

    @torch.no_grad()
    def update(self) -> None:
        """Move the shadow towards the network, in one fused call per device."""
        weight = 1 - self.compute_decay()
        shadow = list(self._shadow.values())
        parameters = [parameter.float() for parameter in self._parameters]
        torch._foreach_lerp_(shadow, parameters, weight)  # pyright: ignore
        self.num_updates += 1

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averaged tensors by parameter name, float32, not copied."""
        return dict(self._shadow)

    @torch.no_grad()
    def load_state_dict(self, tensors: Mapping[str, Tensor], num_updates: int) -> None:
        """Continue from saved averages; raise KeyError unless the names are the same."""
        if tensors.keys() != self._shadow.keys():
            raise KeyError(f"names differ: {sorted(tensors.keys() ^ self._shadow.keys())[:5]}")
        for name, shadow in self._shadow.items():
            shadow.copy_(tensors[name])
        self.num_updates = num_updates

    @torch.no_grad()
    def restart(self) -> None:
        """Begin anew from the network's weights, which somebody has replaced."""
        for name, parameter in self.net.named_parameters():
            self._shadow[name].copy_(parameter)
        self.num_updates = 0

    @torch.no_grad()
    def copy_to(self, net: nn.Module) -> None:
        """Overwrite the parameters of a network of the same layout with the averages."""
        for name, parameter in net.named_parameters():
            parameter.copy_(self._shadow[name])
