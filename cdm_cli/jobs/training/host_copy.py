"""A copy of the training state in memory of the host that a CUDA device writes at full speed."""

import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

Parts = Mapping[str, Mapping[str, Tensor]]
ALIGNED = 64  # bytes: where a tensor begins


def count_bytes(parts: Parts) -> int:
    """Return the bytes that a copy of these tensors takes, each beginning at a multiple of 64."""
    return sum(_align_size(tensor) for tensors in parts.values() for tensor in tensors.values())


class HostCopy:
    """Memory of the host for a copy of tensors, by part and name.

    A thread writes zeros first, so that the system provides the pages (some GiB a second). Then
    the pages are locked, after which the device writes them directly.
    """

    def __init__(self, parts: Parts) -> None:
        self._memory = torch.empty(count_bytes(parts), dtype=torch.uint8)
        self._tensors = _cut_views(self._memory, parts)
        self._cleared = threading.Thread(target=self._memory.zero_, daemon=True)
        self._cleared.start()
        self._locked = False

    def copy(self, parts: Parts) -> dict[str, dict[str, Tensor]]:
        """Copy tensors of the same names and shapes, wait for the device, and return the copies.

        The next call overwrites them.
        """
        self._lock()
        for part, tensors in parts.items():
            for name, tensor in tensors.items():
                self._tensors[part][name].copy_(tensor, non_blocking=True)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return self._tensors

    def _lock(self) -> None:
        """Lock the pages once; where the system refuses, copying is slower and nothing else."""
        if self._locked:
            return
        self._cleared.join()
        self._locked = True
        if torch.cuda.is_available() and len(self._memory):
            with suppress(RuntimeError):
                torch.cuda.check_error(
                    _load_runtime().cudaHostRegister(self._memory.data_ptr(), len(self._memory), 0)
                )

    def __del__(self) -> None:
        if self._locked and torch.cuda.is_available() and len(self._memory):
            with suppress(Exception):
                _load_runtime().cudaHostUnregister(self._memory.data_ptr())


def _load_runtime() -> Any:
    return torch.cuda.cudart()


def _align_size(tensor: Tensor) -> int:
    return -(-tensor.numel() * tensor.element_size() // ALIGNED) * ALIGNED


def _cut_views(memory: Tensor, parts: Parts) -> dict[str, dict[str, Tensor]]:
    """Return tensors of the shapes of parts, side by side in memory."""
    views: dict[str, dict[str, Tensor]] = {}
    start = 0
    for part, tensors in parts.items():
        views[part] = {}
        for name, tensor in tensors.items():
            held = memory[start : start + tensor.numel() * tensor.element_size()]
            views[part][name] = held.view(tensor.dtype).reshape(tensor.shape)
            start += _align_size(tensor)
    return views
