"""Temperatures and weights, fitted on predictions of objects that were not trained on."""

from collections.abc import Sequence

import numpy as np

TINY = 1e-300  # the logarithm of a probability that has rounded to 0 is taken of this
WIDEST = 8.0  # a temperature lies between 1/8 and 8


def tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities after their logarithms are divided by a temperature.

    Args:
        probabilities (array (N, C), float64): rows sum to 1.
        temperature (float): above 1 flattens, below 1 sharpens; positive.

    Returns:
        array (N, C), float64: rows sum to 1; the most likely class stays.
    """
    logits = np.log(np.maximum(probabilities, TINY)) / temperature
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def fit_temperature(probabilities: np.ndarray, label: np.ndarray) -> float:
    """The temperature that gives labels the highest likelihood.

    Of N objects each counts as though 1 / (N + 1) of it were of an unknown class: otherwise a few
    objects that are all recognised would ask for certainty.

    Args:
        probabilities (array (N, C), float64): of objects that were not trained on.
        label (array (N,), int64): their classes.

    Returns:
        float: 1/8 to 8; 1 where there are no objects.

    Source: Guo et al. 2017, On Calibration of Modern Neural Networks, section 4.2; the targets
        short of 1: Platt 1999, Probabilistic outputs for support vector machines, section 2.2.
    """
    if len(label) == 0:
        return 1.0
    from scipy.optimize import minimize_scalar

    unknown = 1 / (len(label) + 1)
    targets = np.full(probabilities.shape, unknown / probabilities.shape[1])
    targets[np.arange(len(label)), label] += 1 - unknown

    def loss(logarithm: float) -> float:
        found = np.maximum(tempered(probabilities, float(np.exp(logarithm))), TINY)
        return float(-(targets * np.log(found)).sum(1).mean())

    # The loss is convex in the inverse temperature, which the logarithm keeps single-dipped.
    ends = (-np.log(WIDEST), np.log(WIDEST))
    found = minimize_scalar(loss, bounds=ends, method="bounded")
    return float(np.exp(found.x)) if loss(found.x) < loss(0.0) else 1.0


def mixture(predictions: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    """Weighted mean of several predictors' probabilities, of those that say something of an object.

    Args:
        predictions (sequence of array (N, C), float64): a row of NaN where a predictor was trained
            on the object and so may say nothing.
        weights (sequence of float): 0 or more.

    Returns:
        array (N, C), float64: rows sum to 1; NaN where nobody with a weight says anything.
    """
    total = np.zeros_like(predictions[0])
    weighed = np.zeros(len(total))
    for each, weight in zip(predictions, weights, strict=True):
        known = ~np.isnan(each[:, 0])
        total[known] += weight * each[known]
        weighed += weight * known
    with np.errstate(invalid="ignore"):
        return total / weighed[:, None]


def fit_weights(predictions: Sequence[np.ndarray], label: np.ndarray) -> list[float]:
    """Weights of predictors whose mixture gives labels the highest likelihood.

    Each predictor is given the credit of one object that it alone would have known, which keeps the
    weights near each other where few objects speak.

    Args:
        predictions (sequence of array (N, C), float64): out of fold: a row is NaN where the
            predictor was trained on the object. Every object needs a row of somebody.
        label (array (N,), int64): classes of the objects.

    Returns:
        list of float: 0 or more, sum 1; equal weights where nothing better is found.

    Raises:
        ValueError: an object has no prediction.
    """
    count = len(predictions)
    rows = np.arange(len(label))
    chosen = np.stack([each[rows, label] for each in predictions])  # (M, N)
    known = ~np.isnan(chosen)
    if not known.any(0).all():
        missing = int(np.argmin(known.any(0)))
        raise ValueError(
            f"fit_weights: object {missing} has no out-of-fold prediction; one of {count} fits"
        )
    chosen = np.where(known, chosen, 0.0)

    def loss_and_slope(weights: np.ndarray) -> tuple[float, np.ndarray]:
        given, weighed = weights @ chosen + TINY, weights @ known + TINY
        loss = (np.log(weighed) - np.log(given)).sum() - np.log(weights).sum()
        slope = (known / weighed - chosen / given).sum(1) - 1 / weights
        return float(loss) / len(label), slope / len(label)

    from scipy.optimize import minimize

    equal = np.full(count, 1 / count)
    found = minimize(
        loss_and_slope, equal, jac=True, method="SLSQP", bounds=[(1e-6, 1.0)] * count,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like},
    )  # fmt: skip
    weights = np.clip(found.x, 0, None)
    weights /= weights.sum()
    if not loss_and_slope(weights)[0] < loss_and_slope(equal)[0]:
        weights = equal
    return [float(weight) for weight in weights]
