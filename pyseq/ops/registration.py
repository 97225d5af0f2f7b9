"""How an op is registered with PyTorch: its schema, its code, its fake and its gradient."""

from collections.abc import Callable
from typing import Any

import torch

_library = torch.library.Library("pyseq", "FRAGMENT")


def define(
    op: str, signature: str, implementation: Callable[..., Any], fake: Callable[..., Any]
) -> None:
    """Register ``torch.ops.pyseq.<op>`` for every device.

    Args:
        op (str): the op's name.
        signature (str): "(Tensor x, ...) -> Tensor", in the language of PyTorch's schemas.
        implementation (Callable): the op; it chooses the backend itself, so that nothing traces
            the choice. Autograd is off inside it, and must not be needed.
        fake (Callable): makes empty outputs of the right shape, dtype and strides.
    """
    _library.define(op + signature)
    _library.impl(op, implementation, "CompositeExplicitAutograd")
    torch.library.register_fake(f"pyseq::{op}", fake, lib=_library)


def differentiate(op: str, keep: Callable[..., None], backward: Callable[..., Any]) -> None:
    """Give a registered op its gradient, once: a second derivative is refused, not left out.

    Args:
        op (str): the op's name.
        keep (Callable): keep(ctx, inputs, output) saves what the gradient needs.
        backward (Callable): backward(ctx, *grads) calls registered ops only, and returns a
            gradient or None for every input.
    """

    def once(ctx, *grads):
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            raise RuntimeError(f"{op}: no second derivative; a backward without create_graph fits")
        return backward(ctx, *grads)

    torch.library.register_autograd(f"pyseq::{op}", once, setup_context=keep, lib=_library)
