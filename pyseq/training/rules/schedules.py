"""Learning-rate schedules of rule training, as factors of the base rate."""

import math


def rule_rate_factor(schedule: str, units: float, warmup: int, progress: float) -> float:
    """Factor of the base rate after so many steps or epochs.

    It rises linearly from 0 over `warmup` units. "inverse_sqrt" then falls as
    sqrt(warmup / units), "cosine" along a half cosine to 0 at the training's end, "constant" stays.

    Args:
        schedule (str): one of these three.
        units (float): steps or epochs that are over.
        warmup (int): units of the rise.
        progress (float): share of the training that is over, 0 to 1.

    Returns:
        float: 0 to 1.

    Source: inverse_sqrt: Vaswani et al. 2017, Attention Is All You Need, section 5.3, scaled so
        that the peak is 1.
    """
    if units < warmup:
        return units / warmup
    match schedule:
        case "inverse_sqrt":
            return math.sqrt(warmup / units)
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * progress))
        case "constant":
            return 1.0
    raise ValueError(f"schedule {schedule!r}; inverse_sqrt, cosine and constant fit")
