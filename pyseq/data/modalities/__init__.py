"""Several views of each object: data sets, files, splits, standardising, corruption."""

from pyseq.data.modalities.digits import digits
from pyseq.data.modalities.modality import Batch, Graph, Kind, Modality, ModalityData
from pyseq.data.modalities.npz import load_npz, save_npz

__all__ = [
    "Batch",
    "Graph",
    "Kind",
    "Modality",
    "ModalityData",
    "digits",
    "load_npz",
    "save_npz",
]
