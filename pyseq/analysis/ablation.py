"""What a model is made of, and one row of it that stands beside the rows of other runs.

Everything is read off the config's fields and the model's modules: a field that no component of
the list below names is shown as a size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from torch import nn

from pyseq.analysis.evaluation import Evaluation
from pyseq.models.checkpoint import MODELS, ModelCard
from pyseq.models.sequence_model import SequenceModel
from pyseq.nn import (
    CosineAttention,
    ExponentialSmoothingAttention,
    FourierAttention,
    HardAttention,
    SwiGLU,
)


@dataclass(frozen=True)
class Component:
    """A part of a model or of its training.

    Attributes:
        name (str): as people call it.
        on (bool or None): whether the model has it; None where it cannot be switched off.
        settings (dict name -> value): the config's fields about it; empty where the model has none.
        parameters (int): trained numbers in it.
    """

    name: str
    on: bool | None
    settings: dict[str, Any]
    parameters: int


@dataclass(frozen=True)
class _Kind:
    """Which fields of a config describe a component, and their values that switch it off."""

    name: str
    fields: tuple[str, ...] = ()
    off: Mapping[str, Any] = field(default_factory=dict)

    def switched_on(self, settings: Mapping[str, Any]) -> bool | None:
        """Whether these settings switch it on; None where there is no switch."""
        if self.fields and not settings:  # the model knows nothing of it
            return False
        # JSON knows no tuples.
        plain = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
        return not any(plain[k] == v for k, v in self.off.items()) if self.off else None


_KINDS = (
    _Kind("embedding", ("mask_symbol",)),
    _Kind("patch reader", ("patch",), {"patch": 1}),
    _Kind("memory tokens", ("memory", "memory_read"), {"memory": 0}),
    _Kind("hard attention", ("hard", "hard_train", "hard_serve"), {"hard": False}),
    _Kind("cosine attention", ("nhead", "nhead_kv")),
    _Kind("Fourier mixing", ("fourier",), {"fourier": False}),
    _Kind("exponential smoothing", ("smoothing",), {"smoothing": False}),
    _Kind("feed-forward", ("dim_ff",)),
    _Kind("local decoder", ("local_width", "local_layers", "local_reach")),
    _Kind("head"),
    _Kind("scale term", ("scale_bins", "scale_weight"), {"scale_bins": (), "scale_weight": 0}),
    _Kind("pattern term", ("horizons", "pattern_weight"), {"horizons": 1, "pattern_weight": 0}),
    _Kind("label smoothing", ("label_smoothing",), {"label_smoothing": 0}),
    _Kind("stochastic depth", ("stochastic_depth",), {"stochastic_depth": 0}),
    _Kind("dropout", ("dropout",), {"dropout": 0}),
)
_REST = "the rest"
BUDGET = ("steps", "symbols", "seconds", "symbols_per_second", "mflop_per_symbol", "memory_mib")

# Attributes of a model whose parameters all belong to one component; elsewhere the layer decides.
_ATTRIBUTES = {
    "embedding": "embedding",
    "patches": "patch reader",
    "memory": "memory tokens",
    "context": "local decoder",
    "reach": "local decoder",
    "local_blocks": "local decoder",
    "local_norm": "local decoder",
    "head": "head",
    "ahead": "pattern term",
}
_LAYERS: dict[type[nn.Module], str] = {
    HardAttention: "hard attention",
    CosineAttention: "cosine attention",
    FourierAttention: "Fourier mixing",
    ExponentialSmoothingAttention: "exponential smoothing",
    SwiGLU: "feed-forward",
}


def components(model: SequenceModel, card: ModelCard) -> list[Component]:
    """The parts of a model, each with its switch, its settings and its number of parameters.

    Args:
        model (SequenceModel): whose parameters are counted.
        card (ModelCard): with its config.

    Returns:
        list of Component: the same names in the same order for every model; the parameters add up
        to the model's, the settings to its config's fields.
    """
    config = dict(card.config)
    parameters = _parameters(model)
    parts = []
    for kind in _KINDS:
        settings = {name: config.pop(name) for name in kind.fields if name in config}
        count = parameters.pop(kind.name, 0)
        on = kind.switched_on(settings)
        if on and not _is_there(kind.name, model, count):
            on = False
        parts.append(Component(kind.name, on, settings, count))
    return [*parts, Component(_REST, None, config, sum(parameters.values()))]


def _is_there(name: str, model: SequenceModel, parameters: int) -> bool:
    """Whether a component that the config asks for has found a place in the model.

    Fourier mixing waits for a third block, and the scale term for an alphabet that has neighbours
    and is larger than its bins.
    """
    if name == "scale term":
        return len(model.score.scales) > 1  # type: ignore[union-attr, arg-type]
    return parameters > 0 or name not in _LAYERS.values()


def ablation_row(
    card: ModelCard,
    parts: Sequence[Component],
    evaluation: Evaluation,
    *,
    stream: str,
    budget: Mapping[str, float | None],
) -> dict[str, Any]:
    """One run as one flat row, whose columns are the same for every model.

    Args:
        card (ModelCard): what the model is.
        parts (sequence of Component): of the model.
        evaluation (Evaluation): its metrics.
        stream (str): the path of what was scored.
        budget (mapping name -> number or None): what the training took, of `training_budget`;
            empty where that is not known.

    Returns:
        dict: column -> number, str, list or None; None where the model has no such field.
    """
    known = {name: value for part in parts for name, value in part.settings.items()}
    return {
        "ckpt": card.training.get("ckpt"),
        "stream": stream,
        "model": card.model,
        **{name: known.get(name) for name in _fields()},
        "parameters": sum(part.parameters for part in parts),
        **{f"parameters_{_column(part.name)}": part.parameters for part in parts},
        **{name: budget.get(name) for name in BUDGET},
        "seed": card.training.get("seed"),
        "device": card.training.get("device"),
        **evaluation.flat(),
    }


def training_budget(
    curve: Sequence[Mapping[str, Any]], steps: int, flops_per_symbol: int
) -> dict[str, float | None]:
    """What a training took, from its rows.

    Args:
        curve (sequence of mappings): rows of metrics.jsonl.
        steps (int): optimiser steps.
        flops_per_symbol (int): floating-point operations of training on one symbol.

    Returns:
        dict: `BUDGET` -> number; seconds hold validations too, symbols_per_second only training.
    """
    last = curve[-1] if curve else {}
    timed = [row for row in curve if row.get("symbols_per_second")]
    symbols = np.diff([row["symbols"] for row in timed], prepend=0)
    seconds = sum(n / row["symbols_per_second"] for n, row in zip(symbols, timed, strict=True))
    return {
        "steps": steps,
        "symbols": last.get("symbols"),
        "seconds": last.get("seconds"),
        "symbols_per_second": float(symbols.sum() / seconds) if seconds else None,
        "mflop_per_symbol": flops_per_symbol / 1e6,
        "memory_mib": last.get("memory_mib"),
    }


def to_tsv(row: Mapping[str, Any]) -> str:
    """A heading and one line, tabs between the columns.

    Args:
        row (mapping column -> value): of `ablation_row`.

    Returns:
        str: two lines; None is an empty cell, and white space in a value becomes a space.
    """
    return "\n".join("\t".join(cells) for cells in (row, map(_cell, row.values())))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:.8g}"
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return " ".join(str(value).split())


def _fields() -> list[str]:
    """Fields of every model's config, in the order in which they are declared."""
    configs = [config for config, _ in MODELS.values()]
    return list(dict.fromkeys(f.name for config in configs for f in dataclasses.fields(config)))


def _column(name: str) -> str:
    return name.lower().replace(" ", "_").replace("-", "_")


def _parameters(model: SequenceModel) -> dict[str, int]:
    """Parameters by component; what belongs to none is under its own name."""
    modules = dict(model.named_modules())
    found: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        path = name.split(".")
        above = [type(modules[".".join(path[:depth])]) for depth in range(1, len(path))]
        layers = [_LAYERS[kind] for kind in above if kind in _LAYERS]
        component = _ATTRIBUTES.get(path[0]) or (layers or [_REST])[0]
        found[component] = found.get(component, 0) + parameter.numel()
    return found


def to_json(parts: Sequence[Component]) -> dict[str, dict[str, Any]]:
    """The components as JSON's types, by name.

    Args:
        parts (sequence of Component): of a model.

    Returns:
        dict: name -> on, settings, parameters.
    """
    found = {part.name: asdict(part) for part in parts}
    for entry in found.values():
        del entry["name"]
    return found
