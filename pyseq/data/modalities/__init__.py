"""Several views of each object: data sets, files, splits, standardising, corruption."""

from pyseq.data.modalities.catalogue import DATA_SETS, find_data
from pyseq.data.modalities.corruption import corrupted
from pyseq.data.modalities.digit_views import digits
from pyseq.data.modalities.modality import Batch, Graph, Kind, Modality, ModalityData
from pyseq.data.modalities.npz import load_npz, save_npz
from pyseq.data.modalities.splits import folds, locked_split
from pyseq.data.modalities.standardiser import Standardiser
from pyseq.data.modalities.synthetic_law import SyntheticLaw, synthetic
from pyseq.data.modalities.tables import breast_cancer, wine

__all__ = [
    "DATA_SETS",
    "Batch",
    "Graph",
    "Kind",
    "Modality",
    "ModalityData",
    "Standardiser",
    "SyntheticLaw",
    "breast_cancer",
    "corrupted",
    "digits",
    "find_data",
    "folds",
    "load_npz",
    "locked_split",
    "save_npz",
    "synthetic",
    "wine",
]
