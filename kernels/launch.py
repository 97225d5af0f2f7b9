"""What every launch asks of the device and of PyTorch's settings, told without Triton."""

import os

import torch
from torch import Tensor

OPTIONS = {"enable_fp_fusion": True}  # of every launch; Triton's default is about to change
SMALLEST_DOT = 16  # tl.dot takes no tile narrower


def interpreted() -> bool:
    """Whether Triton was told to run kernels in its interpreter, on tensors on the CPU."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes", "y")


def capability(x: Tensor) -> int:
    """Of the GPU that x is on, 10 * major + minor; 80 on the CPU, for the interpreter."""
    if x.device.type != "cuda":
        return 80
    major, minor = torch.cuda.get_device_capability(x.device)
    return 10 * major + minor


def multiprocessors(x: Tensor) -> int:
    """Of the GPU that x is on; few on the CPU, so that the interpreter has many tiles for each."""
    if x.device.type != "cuda":
        return 2
    return torch.cuda.get_device_properties(x.device).multi_processor_count


def roomy(capability: int) -> bool:
    """Whether a block can have the 227 KiB of shared memory of Hopper; others have 99 or more."""
    return 90 <= capability < 120


def dot_precision(dtype: torch.dtype) -> str:
    """How float32 operands are multiplied: rounded to tf32 only where PyTorch was told to."""
    # Not allow_tf32, which raises once anybody has used the newer setting.
    allowed = torch.backends.cuda.matmul.fp32_precision == "tf32"
    return "tf32" if allowed and dtype == torch.float32 else "ieee"


def padded(width: int) -> int:
    """The power of two, at least `SMALLEST_DOT`, that holds `width` columns."""
    return max(SMALLEST_DOT, 1 << (width - 1).bit_length())


def refuse(x: Tensor) -> str | None:
    """Why no kernel can take a tensor like x, wherever it is; None if one may."""
    if x.dtype == torch.float64:
        return "float64 is not served; float32, bfloat16 and float16 are"
    if x.device.type == "cuda":
        if capability(x) < 80:
            return f"{x.device} has compute capability {capability(x) / 10}; 8.0 or newer fits"
        return None
    if not (interpreted() and x.device.type == "cpu"):
        return f"the tensors are on {x.device}, not on cuda"
    if x.dtype == torch.bfloat16:
        return "Triton's interpreter multiplies bfloat16 wrongly"
    return None
