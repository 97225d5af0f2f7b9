"""Modalities in one .npz file: an array per modality, `label`, and what belongs to them."""

import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pyseq.data.modalities.modality import Kind, Modality, ModalityData
from pyseq.errors import UserError

SUFFIXES = ("adjacency", "nodes", "present", "vocabulary")
RESERVED = ("label", "group", "class_names")


def load_npz(path: str | os.PathLike[str]) -> ModalityData:
    """Read modalities from a file that numpy.savez or save_npz wrote.

    The file holds, with one row per object each:
        NAME: a modality. Two axes of an integer dtype are tokens, two of another dtype a vector
            (N, F), three a sequence (N, T, F), or the node features (N, V, F) of a graph where
            there is a NAME.adjacency (N, V, V).
        NAME.present (N,): False or 0 where this view of the object is missing; its values are not
            looked at. NAME.nodes (N,): how many nodes of the graph are real (V if left out).
            NAME.vocabulary: a number, how many tokens there can be (largest + 1 if left out).
        label (N,): whole numbers or strings; each different one is a class.
        group (N,), optional: whole numbers or strings; equal ones stay together in splits.
        class_names, optional: strings; labels are then 0..len(class_names)-1.

    Args:
        path (path): the file.

    Returns:
        ModalityData: modalities in the file's order, named as the file without its ending.

    Raises:
        UserError: no such file, no npz, labels missing, lengths that differ, a class with one
            member, NaN or infinity, a name that belongs to nothing.
    """
    arrays = _read(path)
    where = os.fspath(path)
    if "label" not in arrays:
        raise UserError(
            f"{where} has no labels; an array named label with one class per object fits, there"
            f" are {', '.join(arrays) or 'no arrays'}"
        )
    label, class_names = _classes(arrays, where)
    names = [name for name in arrays if name not in RESERVED and "." not in name]
    _check_suffixes(arrays, names, where)
    present = {name: _present(name, arrays) for name in names}
    return ModalityData(
        name=Path(path).stem,
        modalities=tuple(_modality(name, arrays, present[name]) for name in names),
        label=label,
        class_names=class_names,
        group=_numbered("group", arrays["group"])[0] if "group" in arrays else None,
        present=_columns(present, len(label)),
    )


def save_npz(path: str | os.PathLike[str], data: ModalityData) -> None:
    """Write modalities so that load_npz reads the same ones; Bayes posteriors are not kept.

    Args:
        path (path): the file; numpy adds .npz where it is not there.
        data (ModalityData): what to write.
    """
    arrays: dict[str, np.ndarray] = {}
    for modality, present in zip(data.modalities, data.present.T, strict=True):
        # the last two are arguments of numpy.savez
        if modality.name in (*RESERVED, "file", "allow_pickle"):
            raise UserError(f"a modality cannot be kept as {modality.name}; another name fits")
        arrays[modality.name] = modality.values
        if modality.kind == "tokens":
            arrays[f"{modality.name}.vocabulary"] = np.array(modality.vocabulary)
        if modality.adjacency is not None and modality.nodes is not None:
            arrays[f"{modality.name}.adjacency"] = modality.adjacency
            arrays[f"{modality.name}.nodes"] = modality.nodes
        if not present.all():
            arrays[f"{modality.name}.present"] = present
    arrays["label"] = data.label
    arrays["class_names"] = np.array(data.class_names)
    if data.group is not None:
        arrays["group"] = data.group
    np.savez(path, **arrays)  # type: ignore[arg-type]


def _read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    where = os.fspath(path)
    try:
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise UserError(f"{where} holds one array; an .npz with names fits")
        with file:
            return {name: file[name] for name in file.files}
    except UserError:
        raise
    except OSError as error:
        reason = error.strerror or "it is no .npz file"
        raise UserError(f"{where} cannot be read: {reason}") from error
    # what zipfile, zlib and NumPy's own reader raise for files that are broken or something else
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"{where} cannot be read; an .npz with arrays of numbers and strings fits, without"
            " Python objects"
        ) from error


def _numbered(name: str, values: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Rows as numbers 0.. of their sorted different values, and these values as words."""
    if values.ndim != 1:
        raise UserError(f"{name} has shape {values.shape}; (N,) fits")
    if values.dtype.kind == "f":
        # beyond 2^53 not every whole number is a float
        wrong = ~(np.abs(values) <= 2**53) | (values != np.floor(values))
        if wrong.any():
            row = int(np.argmax(wrong))
            raise UserError(f"{name} is {values[row]} at row {row}; a whole number or a word fits")
        values = values.astype(np.int64)
    if values.dtype.kind in "US" and (values == values.dtype.type()).any():
        row = int(np.argmax(values == values.dtype.type()))
        raise UserError(f"{name} is missing at row {row}; a whole number or a word fits")
    if values.dtype.kind not in "biuUS":
        raise UserError(f"{name} is {values.dtype}; whole numbers or words fit")
    different, number = np.unique(values, return_inverse=True)
    words = [value.decode() if isinstance(value, bytes) else str(value) for value in different]
    return number.astype(np.int64), tuple(words)


def _classes(arrays: Mapping[str, np.ndarray], where: str) -> tuple[np.ndarray, tuple[str, ...]]:
    label, names = _numbered("label", arrays["label"])
    found = len(names)
    if "class_names" in arrays:
        names = tuple(str(name) for name in arrays["class_names"].ravel())
        numbers = arrays["label"].dtype.kind in "biuf"
        label = arrays["label"].astype(np.int64) if numbers else label
        if not numbers or not ((label >= 0) & (label < len(names))).all():
            raise UserError(
                f"{where} has {len(names)} class_names; labels 0..{len(names) - 1} fit them"
            )
    if found < 2:
        raise UserError(f"{where} has {found} different labels; at least two classes fit")
    counts = np.bincount(label, minlength=len(names))
    if (counts == 1).any():
        raise UserError(
            f"{where}: class {names[int(np.argmax(counts == 1))]} has one member; at least two"
            " fit, one to learn from and one to test on"
        )
    return label, names


def _check_suffixes(arrays: Mapping[str, np.ndarray], names: list[str], where: str) -> None:
    for key in arrays:
        name, dot, suffix = key.partition(".")
        if dot and (name not in names or suffix not in SUFFIXES):
            raise UserError(
                f"{where} holds {key}, which belongs to no modality; NAME.{{{','.join(SUFFIXES)}}}"
                f" fit for {', '.join(names) or 'the modalities, of which there are none'}"
            )
        if suffix == "nodes" and f"{name}.adjacency" not in arrays:
            raise UserError(f"{where} holds {key}; it fits a graph, with a {name}.adjacency")


def _present(name: str, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    values = arrays[name]
    if f"{name}.present" not in arrays:
        return np.ones(len(values) if values.ndim else 0, bool)
    present = arrays[f"{name}.present"]
    if present.shape != values.shape[:1] or not np.isin(present, (0, 1)).all():
        raise UserError(
            f"{name}.present has shape {present.shape}; {values.shape[:1]} of False and True fits"
        )
    return present.astype(bool)


def _columns(present: dict[str, np.ndarray], count: int) -> np.ndarray:
    """The masks side by side; of a wrong length, which ModalityData tells, they count as there."""
    fitting = [here if len(here) == count else np.ones(count, bool) for here in present.values()]
    return np.stack(fitting, 1) if fitting else np.ones((count, 0), bool)


def _modality(name: str, arrays: Mapping[str, np.ndarray], present: np.ndarray) -> Modality:
    values = arrays[name]
    if values.dtype.kind not in "biuf" or values.ndim not in (2, 3):
        raise UserError(
            f"modality {name} is {values.dtype} of shape {values.shape}; numbers of shape (N, F),"
            " (N, T, F) or, for tokens, whole numbers (N, T) fit"
        )
    adjacency = arrays.get(f"{name}.adjacency")
    kind: Kind
    if adjacency is not None:
        kind = "graph"
    elif values.ndim == 3:
        kind = "sequence"
    else:
        kind = "tokens" if values.dtype.kind in "iu" else "vector"
    if kind == "tokens":
        if values.dtype == np.uint64:  # what is beyond int64 would come out negative
            values = np.minimum(values, np.uint64(np.iinfo(np.int64).max))
        values = _blank(name, values, present, np.int64)
        return Modality(name, kind, values, vocabulary=_vocabulary(name, values, arrays))
    values = _blank(name, values, present, np.float32)
    if adjacency is None:
        return Modality(name, kind, values)
    nodes = arrays.get(f"{name}.nodes", np.full(len(values), values.shape[1]))
    return Modality(
        name,
        kind,
        values,
        adjacency=_blank(f"{name}.adjacency", adjacency, present, np.float32),
        nodes=_blank(f"{name}.nodes", nodes, present, np.int64),
    )


def _vocabulary(name: str, values: np.ndarray, arrays: Mapping[str, np.ndarray]) -> int:
    """What the file says, or the largest token + 1."""
    told = arrays.get(f"{name}.vocabulary")
    if told is None:
        return int(values.max(initial=0)) + 1
    if told.ndim != 0 or told.dtype.kind not in "iu":
        raise UserError(f"{name}.vocabulary is {told.tolist()}; a whole number fits")
    return int(told)


def _blank(name: str, array: np.ndarray, present: np.ndarray, dtype: type) -> np.ndarray:
    """A copy in another dtype with 0, and no NaN that would be complained of, where missing."""
    if array.dtype.kind not in ("biu" if dtype is np.int64 else "biuf"):
        numbers = "whole numbers" if dtype is np.int64 else "numbers"
        raise UserError(f"{name} is {array.dtype}; {numbers} fit")
    if array.shape[:1] != present.shape:
        raise UserError(
            f"{name} has shape {array.shape} and its modality {len(present)} rows; one row per"
            " object in each fits"
        )
    with np.errstate(over="ignore"):  # an overflow is told by its place later
        blank: np.ndarray = array.astype(dtype)
    blank[~present] = 0
    return blank
