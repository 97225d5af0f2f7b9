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


def stream_device(io: str, device: torch.device) -> torch.device | None:
    """Which GPU keeps the stream that a model on `device` reads, if one does.

    Args:
        io (str): what `--io` says.
        device (torch.device): where the model runs.

    Raises:
        UserError: `--io gpu`, and the model does not run on a GPU.
    """
    if io != "gpu":
        return None
    if device.type != "cuda" and torch.cuda.is_available():
        raise UserError(f"--io gpu, but --device {device}; cuda fits, or --io mmap, pread or ram")
    return device if device.type == "cuda" else torch.device("cuda")


def mixed_precision(asked: bool, device: torch.device) -> tuple[bool, str | None]:
    """Whether to compute in bfloat16, and a sentence where that was asked for and is not done.

    Args:
        asked (bool): what `--use_amp` says.
        device (torch.device): where the model runs.

    Returns:
        tuple (bool, str | None): no on a CPU for which PyTorch has no products of bfloat16: without
            AVX-512 a training step takes many times as long as in float32.
    """
    if not asked or device.type != "cpu" or _multiplies_bfloat16():
        return asked, None
    return False, (
        "--use_amp: computing in float32, because PyTorch's products of bfloat16 are many times"
        " slower on this CPU"
    )


def _multiplies_bfloat16() -> bool:
    there = torch.backends.mkldnn.is_available()  # else its functions are not there either
    return there and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
