"""Adam with decoupled weight decay (Loshchilov & Hutter 2019, Algorithm 2), by one fused kernel."""

from typing import Any

import torch
from torch import Tensor, nn

BETAS, EPSILON = (0.9, 0.999), 1e-8


class AdamW:
    """`torch.optim.AdamW(fused=True)`, bit by bit, without its class, which loads the compiler.

    param_groups: dictionaries of "params", "weight_decay" and "lr". state: "step", "exp_avg" and
    "exp_avg_sq" of each parameter that has taken a step. found_inf: 1 where the next step is to
    change nothing, a number on the device.
    """

    def __init__(self, param_groups: list[dict[str, Any]], lr: float) -> None:
        self.param_groups: list[dict[str, Any]] = [{"lr": lr, **group} for group in param_groups]
        self.state: dict[nn.Parameter, dict[str, Tensor]] = {}
        self.found_inf: Tensor | None = None

    @torch.no_grad()
    def step(self) -> None:
        """Take a step by the gradients that there are."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                self._update(parameters, group["lr"], group["weight_decay"])

    def _update(self, parameters: list[nn.Parameter], lr: float, weight_decay: float) -> None:
        states = [self.state.setdefault(p, {}) or self._begin(p) for p in parameters]
        first, second, steps = (
            [state[name] for state in states] for name in ("exp_avg", "exp_avg_sq", "step")
        )
        grads = [p.grad for p in parameters if p.grad is not None]
        torch._foreach_add_(steps, 1)  # pyright: ignore
        torch._fused_adamw_(  # pyright: ignore
            [*parameters], grads, first, second, [], steps, amsgrad=False, maximize=False,
            lr=lr, beta1=BETAS[0], beta2=BETAS[1], weight_decay=weight_decay, eps=EPSILON,
            found_inf=self.found_inf,
        )  # fmt: skip
        if self.found_inf is not None:
            torch._foreach_sub_(steps, [self.found_inf] * len(steps))  # pyright: ignore

    def _begin(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        state = self.state[parameter] = {
            "step": torch.zeros((), device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
        return state
