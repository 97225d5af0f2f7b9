"""Two small tables of scikit-learn, their columns in groups that measure one thing each."""

from collections.abc import Mapping, Sequence

import numpy as np

from pyseq.data.modalities.modality import Modality, ModalityData

WINE_COLUMNS = {
    "taste": ["alcohol", "malic_acid", "proline"],
    "minerals": ["ash", "alcalinity_of_ash", "magnesium"],
    "phenols": ["total_phenols", "flavanoids", "nonflavanoid_phenols", "proanthocyanins"],
    "colour": ["color_intensity", "hue", "od280/od315_of_diluted_wines"],
}
NUCLEI = [
    "radius",
    "texture",
    "perimeter",
    "area",
    "smoothness",
    "compactness",
    "concavity",
    "concave points",
    "symmetry",
    "fractal dimension",
]
BREAST_CANCER_COLUMNS = {
    "mean": [f"mean {name}" for name in NUCLEI],
    "error": [f"{name} error" for name in NUCLEI],
    "worst": [f"worst {name}" for name in NUCLEI],
}


def wine() -> ModalityData:
    """Chemistry of 178 wines of three growers.

    Returns:
        ModalityData: vectors taste (3), minerals (3), phenols (4), colour (3), in the table's
        units; no groups, nothing missing.

    Source: S. Aeberhard, M. Forina, Wine, UCI Machine Learning Repository (1992).
    """
    from sklearn.datasets import load_wine

    return _grouped("wine", load_wine(), WINE_COLUMNS)


def breast_cancer() -> ModalityData:
    """Ten measures of the cell nuclei in 569 images of tumours, malignant or benign.

    Returns:
        ModalityData: vectors mean (10), error (10; standard errors) and worst (10; means of the
        three largest values), in the table's units; no groups, nothing missing.

    Source: W. Wolberg, O. Mangasarian, N. Street, W. Street, Breast Cancer Wisconsin
    (Diagnostic), UCI Machine Learning Repository (1995).
    """
    from sklearn.datasets import load_breast_cancer

    return _grouped("breast_cancer", load_breast_cancer(), BREAST_CANCER_COLUMNS)


def _grouped(name: str, table: Mapping, columns: Mapping[str, Sequence[str]]) -> ModalityData:
    """Columns are found by their names, so another order of theirs changes nothing."""
    names = [str(column) for column in table["feature_names"]]
    values = table["data"].astype(np.float32)
    return ModalityData(
        name=name,
        modalities=tuple(
            Modality(group, "vector", values[:, [names.index(column) for column in members]])
            for group, members in columns.items()
        ),
        label=table["target"].astype(np.int64),
        class_names=tuple(str(word) for word in table["target_names"]),
        group=None,
        present=np.ones((len(values), len(columns)), bool),
    )
