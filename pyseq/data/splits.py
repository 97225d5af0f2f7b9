"""Train, validation and test as contiguous ranges of a stream."""

from dataclasses import dataclass

from pyseq.errors import UserError


@dataclass(frozen=True)
class Splits:
    """Half-open ranges [start, stop) of symbols."""

    train: tuple[int, int]
    validation: tuple[int, int]
    test: tuple[int, int]


def split_stream(
    symbols: int, window: int, fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
) -> Splits:
    """Cut a stream in three, with a gap of one window between neighbours.

    The gap keeps what a model saw at the end of one range from being the context of the next.

    Args:
        symbols (int): length of the stream.
        window (int): symbols per window; also the length of each gap.
        fractions (tuple of 3 floats): shares of train, validation and test; they sum to 1.

    Returns:
        Splits: each range holds at least one window.

    Raises:
        UserError: the fractions do not sum to 1, or a range is shorter than one window.
    """
    if len(fractions) != 3 or not (min(fractions) > 0 and abs(sum(fractions) - 1) <= 1e-6):
        raise UserError(f"split fractions are {fractions}; three positive ones that sum to 1 fit")
    first = round(symbols * fractions[0])
    second = round(symbols * (fractions[0] + fractions[1]))
    splits = Splits((0, first), (first + window, second), (second + window, symbols))
    for name, (start, stop) in vars(splits).items():
        if stop - start < window:
            raise UserError(
                f"the stream has {symbols} symbols, which leaves {max(stop - start, 0)} for"
                f" {name}, less than one window of {window}; use a longer stream or a smaller"
                " --seq_len"
            )
    return splits
