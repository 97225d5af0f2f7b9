"""The checks that the configs of the models share."""

import dataclasses
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pyseq.errors import UserError


def check_sizes(config: Any, *names: str) -> None:
    """Fields that are numbers from 1 up."""
    for name in names:
        if getattr(config, name) < 1:
            raise UserError(f"{name} is {getattr(config, name)}; at least 1 fits")


def check_shares(config: Any, *names: str) -> None:
    """Fields that are shares of what training drops."""
    for name in names:
        if not 0 <= getattr(config, name) < 1:
            raise UserError(f"{name} is {getattr(config, name)}; 0 to below 1 fits")


def check_choices(config: Any) -> None:
    """Every field that is a Literal holds one of its values."""
    hints = get_type_hints(type(config))
    for field in dataclasses.fields(config):
        hint, x = hints[field.name], getattr(config, field.name)
        if get_origin(hint) is Literal and x not in get_args(hint):
            known = ", ".join(map(str, get_args(hint)))
            raise UserError(f"{field.name} is {x}; one of {known} fits")
