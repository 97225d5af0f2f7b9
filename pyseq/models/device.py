"""Where a model runs."""

import torch

from pyseq.errors import UserError


def choose_device(name: str) -> torch.device:
    """The device that `--device` means.

    Args:
        name (str): "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:N".

    Returns:
        torch.device: one that is there.

    Raises:
        UserError: no such device on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"--device {name}; auto, cpu, cuda or cuda:N fits") from error
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"--device {name}; auto, cpu, cuda or cuda:N fits")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"--device {name}, but torch sees {torch.cuda.device_count()} CUDA devices")
    return device
