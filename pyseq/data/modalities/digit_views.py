"""Four views of scikit-learn's 1797 handwritten digits, 8 by 8 pixels of 0..16."""

import numpy as np

from pyseq.data.modalities.modality import Modality, ModalityData

CELL = 4  # pixels; four cells cover an image
ORIENTATIONS = 8  # bins, each as wide as an eighth of a turn


def digits() -> ModalityData:
    """The digits as pixels, a k-space, scalars and gradients.

    Returns:
        ModalityData: 1797 objects, ten classes, no groups, nothing missing. All modalities are
        vectors: pixels (64), fourier (34), scalars (25), gradients (32).

    Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine
    Learning Repository (1998), the test part, as scikit-learn ships it.
    """
    from sklearn.datasets import load_digits

    images, label = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8)
    views = {
        "pixels": images.reshape(-1, 64),
        "fourier": fourier_magnitudes(images),
        "scalars": sums_and_moments(images),
        "gradients": orientation_histograms(images),
    }
    return ModalityData(
        name="digits",
        modalities=tuple(
            Modality(name, "vector", view.astype(np.float32)) for name, view in views.items()
        ),
        label=label.astype(np.int64),
        class_names=tuple("0123456789"),
        group=None,
        present=np.ones((len(label), len(views)), bool),
    )


def fourier_magnitudes(images: np.ndarray) -> np.ndarray:
    """ln(1 + magnitude) of the two-dimensional Fourier transform, each different one once.

    Args:
        images (ndarray (N, H, W), float64): real, H and W even, in any unit.

    Returns:
        ndarray (N, H W / 2 + 2), float64: the others are mirror images, |F(-k)| = |F(k)|.
    """
    height, width = images.shape[1:]
    half = np.abs(np.fft.rfft2(images))  # (N, H, W / 2 + 1)
    once = np.ones(half.shape[1:], bool)
    # the first and the last column are their own mirror images
    once[height // 2 + 1 :, [0, width // 2]] = False
    return np.log1p(half[:, once])


def sums_and_moments(images: np.ndarray) -> np.ndarray:
    """Sums of rows and columns, the centre of mass, and central moments of order 2 and 3.

    Args:
        images (ndarray (N, H, W), float64): at least 0, in any unit; an empty image has moments 0.

    Returns:
        ndarray (N, H + W + 9), float64: row sums and column sums (unit of the pixels); centre y
        and x (pixels from the first); moments of (y, x) of orders (2, 0), (1, 1), (0, 2), (3, 0),
        (2, 1), (1, 2), (0, 3), divided by the mass (pixels to the power of the order).
    """
    rows, columns = images.sum(2), images.sum(1)
    mass = rows.sum(1)
    mass = np.where(mass > 0, mass, 1.0)
    y, x = np.arange(images.shape[1]), np.arange(images.shape[2])
    centre_y, centre_x = rows @ y / mass, columns @ x / mass
    dy, dx = y - centre_y[:, None], x - centre_x[:, None]  # (N, H), (N, W)
    moments = [
        np.einsum("nyx,ny,nx->n", images, dy**p, dx**q) / mass
        for p, q in ((2, 0), (1, 1), (0, 2), (3, 0), (2, 1), (1, 2), (0, 3))
    ]
    return np.column_stack([rows, columns, centre_y, centre_x, *moments])


def orientation_histograms(images: np.ndarray) -> np.ndarray:
    """How much gradient points in which direction, per cell of 4 by 4 pixels.

    Gradients are central differences inside an image and one-sided ones at its border. Bin 0 is
    centred on the direction of x, bin 2 on that of y; no gradient of whole pixel values but zero
    lies on an edge between bins, as their slopes are irrational.

    Args:
        images (ndarray (N, H, W), float64): H and W multiples of 4, in any unit.

    Returns:
        ndarray (N, H W / 16 * 8), float64: sums of gradient lengths (unit of the pixels), first
        over cells, row by row, then over the 8 directions.

    Source: the cell histograms of Dalal, Triggs 2005, Histograms of oriented gradients for human
    detection; without interpolation and blocks.
    """
    count, height, width = images.shape
    gradient_y, gradient_x = np.gradient(images, axis=(1, 2))
    turns = np.arctan2(gradient_y, gradient_x) / (2 * np.pi)
    bins = np.floor(turns * ORIENTATIONS + 0.5).astype(int) % ORIENTATIONS
    weighted = np.hypot(gradient_y, gradient_x)[..., None] * np.eye(ORIENTATIONS)[bins]
    cells = weighted.reshape(count, height // CELL, CELL, width // CELL, CELL, ORIENTATIONS)
    return cells.sum((2, 4)).reshape(count, -1)
