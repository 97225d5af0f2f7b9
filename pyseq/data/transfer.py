"""Batches of 16-bit symbols on their way to a device."""

from typing import NamedTuple

import torch
from torch import Tensor

from pyseq.errors import UserError


def usable_device(what: str, asked: torch.device | str, otherwise: str) -> torch.device:
    """The device that was asked for, with its index if it is a GPU.

    Args:
        what (str): who asks, the beginning of the message.
        asked (torch.device | str): "cpu", "cuda" or "cuda:N".
        otherwise (str): what fits where there is no GPU, the end of the message.

    Raises:
        UserError: that is no such device, or torch cannot use it.
    """
    try:
        device = torch.device(asked)
    except (RuntimeError, TypeError) as error:
        raise UserError(f"{what}: {asked!r} is no device; cpu, cuda or cuda:N fits") from error
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"{what}: device is {device}; cpu, cuda or cuda:N fits")
    if device.type == "cpu":
        return device
    if not torch.cuda.is_available():
        raise UserError(f"{what}; no GPU that torch can use; {otherwise}")
    if device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    if device.index >= torch.cuda.device_count():
        raise UserError(f"{what} on {device}; torch sees {torch.cuda.device_count()} CUDA devices")
    return device


class _Sent(NamedTuple):
    widened: Tensor
    done: torch.cuda.Event | None


class Transfer:
    """Copies one tensor at a time to a device, and widens it there, beside what else it computes.

    On a GPU that happens in a CUDA stream of its own. PyTorch keeps the pinned memory of what was
    sent, and the memory of what arrived, from being used anew too early.

    Args:
        device (torch.device): where tensors are sent; if that is no GPU, nothing is asynchronous.
        dtype (torch.dtype): what they become there.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype):
        self.device, self.dtype = device, dtype
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._sent: _Sent | None = None

    def send(self, symbols: Tensor) -> None:
        """Start copying `symbols`, on the CPU and pinned if this is a GPU; drops what was sent.

        Args:
            symbols (Tensor, uint16): nobody else may write to it.
        """
        if self._stream is None:
            self._sent = _Sent(symbols.to(self.device).to(self.dtype), None)
            return
        with torch.cuda.stream(self._stream):
            widened = symbols.to(self.device, non_blocking=True).to(self.dtype)
            self._sent = _Sent(widened, self._stream.record_event())

    def receive(self) -> Tensor:
        """What was sent, for use in the device's current CUDA stream, which waits for the copy."""
        assert self._sent is not None
        (widened, done), self._sent = self._sent, None
        if done is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_event(done)
            widened.record_stream(current)  # it was allocated for our stream
        return widened
