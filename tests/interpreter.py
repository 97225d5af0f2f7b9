"""Triton's interpreter, faster: a third of its time went into looking for its builtins."""

import functools
import inspect
from typing import Any


def remember_builtins() -> None:
    """Let the interpreter look through the modules of Triton's language once.

    It replaces their builtins at every launch and at every call of a function inside a kernel,
    where they are replaced already, and searches all members of each module for them every time.
    """
    from triton.runtime import interpreter

    core, patch_one = interpreter.tl.core, interpreter._patch_attr

    @functools.cache
    def builtins_of(package: Any) -> list[str]:
        return [name for name, member in inspect.getmembers(package) if core.is_builtin(member)]

    def patch(package: Any, builder: Any, scope: Any) -> None:
        for name in builtins_of(package):
            member = getattr(package, name)
            if not core.is_builtin(member):  # replaced already, with all others
                break
            patch_one(package, name, member, builder, scope)

    interpreter._patch_builtin = patch
