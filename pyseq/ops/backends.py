"""Which backend serves a call: the one resolver that every op shares."""

import importlib
import logging
import os
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import overload

import torch
from torch import Tensor

from pyseq.errors import BackendUnavailable
from pyseq.kernels import launch

BACKENDS = ("reference", "native", "triton")
NOT_BUILT = "running from a checkout that was not built: pip install -e ."

# The ops, and which backends beside the reference have code for each; `pyseq doctor` shows it.
SERVED_BY: dict[str, tuple[str, ...]] = {
    "adaptive_attention": ("native", "triton"),
    "cosine_attention": ("native", "triton"),
    "cosine_decode": ("native", "triton"),
    "exponential_smoothing": ("native", "triton"),
    "feed_forward": ("native",),
    "gather_windows": ("native", "triton"),
    "hard_attention": ("native", "triton"),
    "lstm": ("native",),
    "patch_embed": ("native", "triton"),
    "prepare_keys": ("native", "triton"),
    "scale_cross_entropy": ("native", "triton"),
    "softmax_attention": ("native",),
}

logger = logging.getLogger("pyseq")
_reported: set[tuple[str, str, tuple[str, ...]]] = set()

Refusal = Callable[[], str | None]


@lru_cache(maxsize=1)
def _load_core() -> tuple[ModuleType | None, str | None]:
    """``pyseq._core``, or None and the sentence that says why there is none."""
    try:
        module = importlib.import_module("pyseq._core")
        # An editable install elsewhere on the path answers for every checkout of this name.
        ours = Path(module.__file__ or "").parent == Path(__file__).parents[1]
        return (module, None) if ours else (None, NOT_BUILT)
    except ImportError as error:
        if build_error() is not None:
            return None, "building pyseq._core failed; `pyseq doctor` quotes the compiler"
        if any(Path(__file__).parents[1].glob("_core*.so")):
            return None, f"pyseq._core does not load: {error}; rebuild with pip install -e ."
        return None, NOT_BUILT


def core() -> ModuleType:
    """The compiled module; only call it after `refuse_native` returned None."""
    module, reason = _load_core()
    if module is None:
        raise RuntimeError(reason)
    return module


def build_error() -> str | None:
    """The compiler's words from the last failed build of ``_core``, or None."""
    path = Path(__file__).parents[1] / "_core_build_error.txt"
    return path.read_text() if path.exists() else None


def refuse_native() -> str | None:
    """Why no native code can serve on this machine, or None.

    Raises:
        ValueError: PYSEQ_ISA names no instruction set that this machine runs.
    """
    module, reason = _load_core()
    if module is not None and "PYSEQ_ISA" in os.environ:
        module.isa()
    return reason


@overload
def as_float32(x: Tensor) -> Tensor: ...


@overload
def as_float32(x: None) -> None: ...


def as_float32(x: Tensor | None) -> Tensor | None:
    """A parameter as the CPU's kernels read it: without gradient, in consecutive float32."""
    return None if x is None else x.detach().to(torch.float32).contiguous()


def native_refusal(*tensors: Tensor) -> Refusal:
    """Why the CPU's kernels cannot serve a call on such tensors."""

    def refuse() -> str | None:
        for x in tensors:
            if x.device.type != "cpu":
                return f"the tensors are on {x.device}, not on the CPU"
            if x.dtype == torch.float64:
                return "float64 is not served; float32, bfloat16 and float16 are"
        return refuse_native()

    return refuse


@lru_cache(maxsize=1)
def refuse_triton() -> str | None:
    """Why no Triton kernel can be launched on this machine, or None."""
    try:
        importlib.import_module("triton")
    except ImportError as error:
        return f"triton does not import: {error}"
    return None


def triton_refusal(x: Tensor, *limits: Refusal) -> Refusal:
    """Why Triton cannot serve a call on tensors like x, the op's own `limits` last."""

    def refuse() -> str | None:
        asked: list[Refusal] = [lambda: launch.refuse(x), refuse_triton, *limits]
        return next((reason for ask in asked if (reason := ask()) is not None), None)

    return refuse


def choose(op: str, backend: str, refusals: Mapping[str, Refusal]) -> str:
    """Return the name of the backend that serves this call.

    Args:
        op (str): the op's name, for messages.
        backend (str): "auto", "reference", "native" or "triton".
        refusals (Mapping): for each other backend that has code for this op, fastest first, a
            function that returns None, or the sentence that says why it cannot serve this call.

    Returns:
        str: one of `BACKENDS`.

    Raises:
        ValueError: `backend`, or PYSEQ_BACKEND in place of "auto", is no backend's name.
        BackendUnavailable: a backend asked for by name cannot serve the call.
    """
    asked = "backend"
    if backend == "auto" and "PYSEQ_BACKEND" in os.environ:
        asked, backend = "PYSEQ_BACKEND", os.environ["PYSEQ_BACKEND"]
    if backend == "reference":
        return backend
    if backend == "auto":
        return _first_that_serves(op, refusals)
    if backend not in BACKENDS:
        raise ValueError(f"{op}: {asked} is {backend!r}; known: auto, {', '.join(BACKENDS)}")
    reason = refusals[backend]() if backend in refusals else f"{op} has no {backend} code"
    if reason is not None:
        raise BackendUnavailable(f"{op}: backend {backend!r} cannot serve this call: {reason}")
    return backend


def _first_that_serves(op: str, refusals: Mapping[str, Refusal]) -> str:
    reasons = []
    choice = "reference"
    for name, refuse in refusals.items():
        # The interpreter is for those who name it: it is slower than any other backend.
        interpreter = name == "triton" and launch.interpreted()
        reason = "TRITON_INTERPRET is set" if interpreter else refuse()
        if reason is None:
            choice = name
            break
        reasons.append(f"{name}: {reason}")
    case = (op, choice, tuple(reasons))
    if case not in _reported:
        _reported.add(case)
        # Only a build that should be there and is not deserves a user's attention.
        repairable = choice == "reference" and "native" in refusals and refuse_native() is not None
        level = logging.WARNING if repairable else logging.INFO
        why = "; ".join(reasons) or "first choice" if refusals else "the op has no faster code"
        logger.log(level, "%s: auto chose %s (%s)", op, choice, why)
    return choice
