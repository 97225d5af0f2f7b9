"""Triton's interpreter, faster: most of its time went into doing the same things again."""

import dataclasses
import functools
import inspect
from types import ModuleType
from typing import Any


def hasten() -> None:
    """Let the interpreter do once what gives the same every time, and leave out what it drops."""
    remember_builtins()
    patch_languages_once()
    remember_dtypes()
    remember_block_types()
    skip_overflow()


def remember_builtins() -> None:
    """Look through the modules of Triton's language once.

    Their builtins are replaced at every launch and at every call of a function inside a kernel,
    and all members of each module were searched for them every time.
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


def patch_languages_once() -> None:
    """Replace nothing for a function inside a kernel where the kernel's launch has replaced all."""
    from triton.runtime import interpreter

    tl, patch = interpreter.tl, interpreter._patch_lang

    @functools.cache
    def languages_of(function: Any) -> list[ModuleType]:
        members = function.__globals__.values()
        return [member for member in members if member is tl or member is tl.core]

    def patch_lang(function: Any) -> Any:
        languages = languages_of(function)
        samples = [tl.tensor.__add__, *(language.load for language in languages)]
        if languages and not any(map(tl.core.is_builtin, samples)):
            return interpreter._LangPatchScope()
        return patch(function)

    interpreter._patch_lang = patch_lang


def remember_dtypes() -> None:
    """Ask once for NumPy's name of each dtype; all were written down at every operation."""
    from triton.runtime import interpreter

    known: dict[str, Any] = {}
    look_up = interpreter._get_np_dtype

    def numpy_dtype(of: Any) -> Any:
        element = of.scalar  # of a block, what it is a block of
        if element.name not in known:
            known[element.name] = look_up(element)
        return known[element.name]

    interpreter._get_np_dtype = numpy_dtype


def remember_block_types() -> None:
    """Make the type of a block of some shape and dtype once, as nothing ever changes one."""
    from triton.runtime import interpreter

    tl = interpreter.tl
    known: dict[tuple[str, tuple[int, ...]], Any] = {}

    def block_type(element: Any, shape: tuple[int, ...]) -> Any:
        if isinstance(element, tl.pointer_type):  # whose name is not all there is to it
            return tl.block_type(element, shape)
        key = element.name, tuple(shape)
        if key not in known:
            known[key] = tl.block_type(element, shape)
        return known[key]

    tl.block_type.with_element_ty = lambda self, element: block_type(element, self.shape)
    interpreter.InterpreterBuilder.get_block_ty = lambda self, *of: block_type(*of)


def skip_overflow() -> None:
    """Do no sum and no product of integers a second time in 64 bits.

    What comes of it is looked at only with `debug`, which is off.
    """
    from triton.runtime import interpreter

    builder = interpreter.interpreter_builder
    assert not builder.options.debug
    builder.options = dataclasses.replace(builder.options, sanitize_overflow=False)
