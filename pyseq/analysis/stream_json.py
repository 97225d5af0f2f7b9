"""A stream's analysis as JSON, for programs that read what `pyseq analyze` found."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pyseq.analysis.evaluation import as_json
from pyseq.analysis.intervals import Interval
from pyseq.analysis.predictability.evidence import Evidence
from pyseq.analysis.stream_analysis import Pictures, StreamAnalysis
from pyseq.data.durable_file import replace_file

FORMAT = "pyseq stream analysis, version 1"


def to_json(analysis: StreamAnalysis) -> dict[str, Any]:
    """Everything that the page shows, in JSON's types.

    Entropies, code lengths and bounds are in bits/symbol, shares and chances from 0 to 1; an
    interval is [value, low, high]; a number that is not finite is None (null). P-values are as
    they were computed: 0 is one below what a double can hold.

    Args:
        analysis (StreamAnalysis): what was found; objects have the keys that its classes name as
            attributes.

    Returns:
        dict: with the keys
            format: the text in `FORMAT`; another version may have other keys;
            symbols, alphabet, level: numbers;
            facts: list of [name, value];
            verdicts: list of question, null, structure, sentence, fired (names);
            tests: list of name, question, p_value, corrected_p_value (Holm's), fired, statistic,
            null, symbols, finding;
            skipped: list of [name, why];
            power: list of question, departure, size, text, chance;
            marginal: entropy and min_entropy of the frequencies;
            entropy_rate: the true one, or None;
            evidence: list of name and the attributes of Evidence, log_e and log_e_max in nats,
            path as symbols and log10_e;
            code_lengths, predictions, compressed: lists of objects;
            predicted_symbols: number; most_common_value: object or None; expected: what a perfect
            source would score, an object by predictor;
            pictures: for each kind a list of name, level, x, y, low, high; low and high are lists
            or one number.
    """
    fired = {(verdict.question, name) for verdict in analysis.verdicts for name in verdict.fired}
    tests = [
        _attributes(test)
        | {"corrected_p_value": adjusted, "fired": (test.question, test.name) in fired}
        for test, adjusted in zip(analysis.tests, analysis.adjusted, strict=True)
    ]
    found: dict[str, Any] = {
        "format": FORMAT,
        "symbols": analysis.symbols,
        "alphabet": analysis.alphabet,
        "level": analysis.level,
        "facts": [[name, value] for name, value in analysis.facts],
        "verdicts": _objects(analysis.verdicts),
        "tests": tests,
        "skipped": [list(pair) for pair in analysis.skipped],
        "power": _objects(analysis.power),
        "marginal": {"entropy": analysis.entropy, "min_entropy": analysis.min_entropy},
        "entropy_rate": analysis.entropy_rate,
        "evidence": [{"name": name} | _evidence(e) for name, e in analysis.evidence],
        "code_lengths": _objects(analysis.code_lengths),
        "predictions": _objects(analysis.predictions),
        "predicted_symbols": analysis.predicted_symbols,
        "most_common_value": None
        if analysis.most_common_value is None
        else _attributes(analysis.most_common_value),
        "expected": dict(analysis.expected),
        "compressed": _objects(analysis.compressed),
        "pictures": _pictures(analysis.pictures),
    }
    plain: dict[str, Any] = as_json(_plain(found))
    return plain


def write_json(path: str | os.PathLike[str], analysis: StreamAnalysis) -> None:
    """Write `to_json` as a file, which replaces what was there when it is complete.

    Args:
        path (path): of the file; its folder must exist.
        analysis (StreamAnalysis): what is written.

    Raises:
        UserError: the file cannot be written; what was there before is left as it was.
    """
    # One line for each key: the curves have thousands of numbers.
    lines = (
        f"{json.dumps(key)}: {json.dumps(value, allow_nan=False, ensure_ascii=False)}"
        for key, value in to_json(analysis).items()
    )
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    replace_file(Path(path), lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _attributes(of: Any) -> dict[str, Any]:
    """The attributes of a dataclass, by name."""
    return {field.name: getattr(of, field.name) for field in fields(of)}


def _objects(found: Iterable[Any]) -> list[dict[str, Any]]:
    return [_attributes(each) for each in found]


def _evidence(evidence: Evidence) -> dict[str, Any]:
    symbols, log10_e = evidence.path
    return _attributes(evidence) | {"path": {"symbols": symbols, "log10_e": log10_e}}


def _pictures(pictures: Pictures) -> dict[str, list[dict[str, Any]]]:
    return {kind: _objects(bands) for kind, bands in _attributes(pictures).items()}


def _plain(x: Any) -> Any:
    """The same without NumPy's types, without tuples, and with text for what JSON does not know."""
    if isinstance(x, Interval):
        return [float(x.value), float(x.low), float(x.high)]
    if isinstance(x, np.ndarray | np.generic):
        return x.tolist()
    if isinstance(x, Mapping):
        return {str(key): _plain(value) for key, value in x.items()}
    if isinstance(x, list | tuple):
        return [_plain(value) for value in x]
    if is_dataclass(x) and not isinstance(x, type):
        return _plain(_attributes(x))
    return x if x is None or isinstance(x, bool | int | float | str) else str(x)
