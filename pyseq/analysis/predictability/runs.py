"""Runs of successes in independent trials: how long they get by chance."""

import math

# NIST's program stops there too, converged or not, so that its figures are met in all cases.
_ITERATIONS = 66


def log_chance_of_no_run(p: float, length: int, trials: int) -> float:
    """Natural logarithm of the chance that independent trials show no run of so many successes.

    A close approximation: the largest of the terms that add up to the chance.

    Args:
        p (float): chance of a success, in (0, 1).
        length (int): of the run; >= 1.
        trials (int): how many; >= 1.

    Returns:
        float: at most about 0; -inf where the chance is too small for the approximation.

    Source: Feller 1968, An Introduction to Probability Theory and Its Applications, vol. 1, XIII.7,
        as SP 800-90B, 6.3.7, step 6, uses it.
    """
    q = 1 - p
    # The root x of 1 - x + q p^r x^(r + 1) is so close to 1 that x - 1 is what is computed.
    excess = 0.0
    for _ in range(_ITERATIONS):
        exponent = length * math.log(p) + (length + 1) * math.log1p(excess)
        before, excess = excess, q * math.exp(min(exponent, 0.0))
        if excess == before:
            break
    if p * excess >= q or length * excess >= 1:
        return -math.inf
    return (
        math.log1p(-p * excess / q)
        - math.log1p(-length * excess)
        - (trials + 1) * math.log1p(excess)
    )


def likeliest_p(length: int, trials: int, confidence: float) -> float:
    """The chance of a success for which a run of so many fails to occur with this confidence.

    Args:
        length (int): of the run; >= 1.
        trials (int): how many; >= 1.
        confidence (float): chance that there is no such run, in (0, 1).

    Returns:
        float: in (0, 1]; 1 if the run is longer than the trials.
    """
    if length > trials:
        return 1.0
    target = math.log(confidence)
    low, high = 0.0, 1.0
    while True:  # until no number lies between
        middle = (low + high) / 2
        if not low < middle < high:
            return high
        if log_chance_of_no_run(middle, length, trials) > target:
            low = middle
        else:
            high = middle


def chance_of_run(p: float, length: int, trials: int) -> float:
    """The chance that independent trials show a run of at least so many successes.

    Args:
        p (float): chance of a success, in (0, 1].
        length (int): of the run; >= 0.
        trials (int): how many; >= 1.
    """
    if length == 0:
        return 1.0
    if length > trials:
        return 0.0
    if p >= 1:
        return 1.0
    return min(1.0, max(0.0, -math.expm1(log_chance_of_no_run(p, length, trials))))
