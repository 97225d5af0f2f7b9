"""Data sets by their names."""

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pyseq.data.modalities.digit_views import digits
from pyseq.data.modalities.modality import ModalityData
from pyseq.data.modalities.npz import load_npz
from pyseq.data.modalities.synthetic_law import synthetic
from pyseq.data.modalities.tables import breast_cancer, wine
from pyseq.errors import UserError

DATA_SETS: dict[str, Callable[..., ModalityData]] = {
    "digits": digits,
    "wine": wine,
    "breast_cancer": breast_cancer,
    "synthetic": synthetic,
}


def find_data(
    name_or_path: str | os.PathLike[str], *, seed: int = 0, **settings: Any
) -> ModalityData:
    """A built-in data set or a file.

    Args:
        name_or_path (str or path): a key of DATA_SETS, or an .npz file (see load_npz).
        seed (int): of data that are drawn; the others are what they are.
        **settings: of synthetic; the others have none.

    Returns:
        ModalityData.

    Raises:
        UserError: neither a known name nor a file, or a setting that the data set does not have.
    """
    name = os.fspath(name_or_path)
    make = DATA_SETS.get(name)
    if make is None and (name.endswith(".npz") or Path(name).is_file()):
        make, has = load_npz, {"path"}
        given: dict[str, Any] = {"path": name}
    elif make is None:
        raise UserError(
            f"there is no data set {name!r}; known are {', '.join(DATA_SETS)} and .npz files"
        )
    else:
        has = set(inspect.signature(make).parameters)
        given = {"seed": seed} if "seed" in has else {}
    free = sorted(has - {"path", "seed"})
    if unknown := [key for key in settings if key not in free]:
        raise UserError(
            f"data {name} has no setting {', '.join(unknown)}; it has {', '.join(free) or 'none'}"
        )
    return make(**given, **settings)
