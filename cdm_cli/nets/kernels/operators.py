"""Operators made of Triton kernels, which torch's compiler sees through once it is asked to.

`torch.library.triton_op` and `custom_op` do the same, and load the compiler, needed or not: two to
five seconds of every start.
"""

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from cdm_cli.nets.kernels.rehearsal import when_ready

TAG = "TORCH_COMPILE_CACHE_KEY_TAG"  # which a user may set

LIBRARY = torch.library.Library("cdm", "FRAGMENT")

_unseen: list["Operator"] = []
_called = threading.local()


class Operator:
    """The operator "cdm::NAME": launch on CUDA, where it names kernels by `launcher`; in_torch.

    launch has types, from which the operator has its schema, and writes to no argument. in_torch
    does the same on a CPU.
    """

    def __init__(self, name: str, launch: Callable[..., Any], in_torch: Callable[..., Any]) -> None:
        self.name, self.launch, self.in_torch = f"cdm::{name}", launch, in_torch
        schema = torch.library.infer_schema(launch, mutates_args=())
        LIBRARY.define(name + schema, tags=torch.Tag.pt2_compliant_tag)
        LIBRARY.impl(name, self._launch, "CUDA")
        LIBRARY.impl(name, self._compute, "CPU")
        torch.library.register_fake(self.name, self._trace, lib=LIBRARY)
        self._call: Any = getattr(torch.ops.cdm, name).default
        _unseen.append(self)

    def __call__(self, *args: Any) -> Any:
        """Return what launch or in_torch returns."""
        return self._call(*args)

    def differentiate_by(self, backward: Callable[..., Any], save: Callable[..., None]) -> None:
        """Let backward have gradients, of what save keeps, as `torch.library.register_autograd`."""
        torch.library.register_autograd(self.name, backward, setup_context=save, lib=LIBRARY)

    def _launch(self, *args: Any) -> Any:
        _called.depth = getattr(_called, "depth", 0) + 1
        try:
            return self.launch(*args)
        finally:
            _called.depth -= 1

    def _compute(self, *args: Any) -> Any:
        return self.in_torch(*args)

    def _trace(self, *args: Any) -> Any:
        return self.launch(*args)

    def decompose(self, mode: Any, op: Any, types: Any, args: Any, more: Any) -> Any:
        """Be the kernels that it is made of, to the compiler."""
        with mode:
            return self.launch(*args, **more)


def launcher(kernel: Any) -> Any:
    """Return what launches a kernel as `launcher(kernel)[grid](…)`; torch's own while it traces."""
    if getattr(_called, "depth", 0):
        return when_ready(kernel)
    return torch.library.wrap_triton(kernel)


def show_to_compiler() -> None:
    """Let the compiler see the kernels of all operators that there are, and fuse around them.

    What it keeps is of these kernels: it would find programs of an earlier version by the names of
    operators alone.
    """
    from torch._subclasses.functional_tensor import FunctionalTensorMode

    config: Any = torch.compiler.config
    config.cache_key_tag = f"{os.environ.get(TAG, '')} cdm {_digest()}"
    while _unseen:
        seen = _unseen.pop()
        torch.library.register_torch_dispatch(
            seen.name, FunctionalTensorMode, seen.decompose, lib=LIBRARY
        )


def _digest() -> str:
    """Return the SHA-256 of the sources of all kernels."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(map(Path.read_bytes, sources))).hexdigest()
