"""What predictions must be before they are judged, and what each costs at each object."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

# A probability of zero for what came would cost infinitely much: scikit-learn's log_loss has the
# same floor.
LEAST_PROBABILITY = float(np.finfo(np.float64).eps)
_OFF_ONE = 1e-4  # how far a row's sum may be from one: sums of float32 are nearer


def checked(
    probabilities: ArrayLike, label: ArrayLike, *, who: str
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Probabilities and labels that fit each other.

    Args:
        probabilities (array (..., N, C), float): of each class; rows sum to one.
        label (array (N,), int): in 0..C-1.
        who (str): whose error it is.

    Returns:
        tuple of array (..., N, C), float64, rows divided by their sums, and array (N,), int64.

    Raises:
        ValueError: shapes do not fit, a label is none of the classes, or a row is no distribution.
    """
    given, came = np.asarray(probabilities, dtype=np.float64), np.asarray(label)
    if given.ndim < 2 or came.ndim != 1 or given.shape[-2] != came.size or came.size == 0:
        raise ValueError(
            f"{who}: probabilities {given.shape}, label {came.shape}; (..., N, classes) and (N,) "
            "with N >= 1 fit"
        )
    if not np.issubdtype(came.dtype, np.integer):
        raise ValueError(f"{who}: label holds {came.dtype}; integers of 0 to classes - 1 fit")
    classes = given.shape[-1]
    if came.min() < 0 or came.max() >= classes:
        raise ValueError(
            f"{who}: labels from {came.min()} to {came.max()} for {classes} classes; 0 to "
            f"{classes - 1} fit"
        )
    sums = given.sum(-1)
    if not (np.isfinite(given).all() and given.min() >= 0 and np.abs(sums - 1).max() <= _OFF_ONE):
        raise ValueError(
            f"{who}: rows that are no distributions, values from {given.min():.6g} to "
            f"{given.max():.6g}, sums from {sums.min():.6g} to {sums.max():.6g}; give "
            "probabilities, not logits"
        )
    return given / sums[..., None], came.astype(np.int64)


def hits(probabilities: NDArray[np.float64], label: NDArray[np.int64]) -> NDArray[np.float64]:
    """Whether the likeliest class came.

    Args:
        probabilities (array (..., N, C), float64): of `checked`; of equal ones the first counts.
        label (array (N,), int64): what came.

    Returns:
        array (..., N), float64: 1 or 0.
    """
    return (probabilities.argmax(-1) == label).astype(np.float64)


def nats(probabilities: NDArray[np.float64], label: NDArray[np.int64]) -> NDArray[np.float64]:
    """Negative log-likelihood of what came.

    Args:
        probabilities (array (..., N, C), float64): of `checked`.
        label (array (N,), int64): what came.

    Returns:
        array (..., N), float64: nats, 36.04 at the most: probabilities below 2.2e-16 count as that.
    """
    of_label = np.take_along_axis(
        probabilities, np.broadcast_to(label[:, None], (*probabilities.shape[:-1], 1)), axis=-1
    )[..., 0]
    return -np.log(np.maximum(of_label, LEAST_PROBABILITY))


def brier(probabilities: NDArray[np.float64], label: NDArray[np.int64]) -> NDArray[np.float64]:
    """Squared distance of the probabilities from what came, summed over the classes.

    Args:
        probabilities (array (..., N, C), float64): of `checked`.
        label (array (N,), int64): what came.

    Returns:
        array (..., N), float64: 0 to 2.

    Source: Brier 1950, Verification of forecasts expressed in terms of probability.
    """
    of_label = np.eye(probabilities.shape[-1])[label]
    return np.square(probabilities - of_label).sum(-1)
