"""Which symbols of a stream a trained model has not seen."""

from __future__ import annotations

from pyseq.data.u16_stream import U16Stream
from pyseq.errors import UserError
from pyseq.models.checkpoint import ModelCard

Range = tuple[int, int]


def ranges(choice: str, stream: U16Stream, card: ModelCard) -> tuple[Range, Range, bool]:
    """What baselines may count, what is scored, and whether the model never saw the latter.

    Ranges are half-open. Symbols that the model was trained on are recognised by the fingerprint of
    its training range, wherever the files were cut or grew since.

    Args:
        choice (str): as for `pyseq evaluate --range`: "auto", "test" or "all".
        stream (U16Stream): the symbols.
        card (ModelCard): of the model.

    Returns:
        tuple (counted, scored, held out): two ranges, and whether the model is known not to have
        seen the second.

    Raises:
        UserError: the stream has no such range; one sentence.
    """
    found = _trained(stream, card)
    if found is None:
        if choice == "test":
            raise UserError(
                "--range test needs the stream the model was trained on, and this is another one;"
                " --range all scores it whole"
            )
        return *_tenth(stream), True
    same = stream.fingerprint == card.data["fingerprint"]
    if choice == "test" or (choice == "auto" and same):
        start, stop = card.data["splits"]["test"]
        if stop > len(stream):
            raise UserError("the stream is shorter than the one the model was trained on")
        return found, (start, stop), True
    if choice == "all":
        return *_tenth(stream), False
    return found, (_beyond(found, stream, card), len(stream)), True


def unseen_range(stream: U16Stream, card: ModelCard) -> tuple[Range, str]:
    """All symbols that played no part in making a model: neither in training nor in its choice.

    The model with the lowest validation loss is the one that is kept, so what it was chosen by
    counts as seen. On these symbols alone are a model's probabilities evidence.

    Limits: a stream is known by the fingerprint of the training range at its old place. A piece cut
    out of that range, or a stream that holds it at another place, passes for one never seen.

    Args:
        stream (U16Stream): the symbols.
        card (ModelCard): of the model.

    Returns:
        tuple (range, str): half-open, and a sentence on why it is this one.

    Raises:
        UserError: there are fewer than 2 such symbols.
    """
    found = _trained(stream, card)
    if found is not None:
        start = _beyond(found, stream, card)
        return (start, len(stream)), (
            f"symbols from {start:,} on: the model was trained on {found[0]:,} to {found[1] - 1:,}"
            " of this stream and chosen by those that follow"
        )
    if len(stream) < 2:
        raise UserError(f"a stream of {len(stream)} symbols is too short to score; 2 or more fit")
    return (0, len(stream)), "all symbols: the training range of the model lies in another stream"


def _trained(stream: U16Stream, card: ModelCard) -> Range | None:
    """The range the model was trained on, where the stream holds it."""
    first, last = card.data.get("trained", (0, len(stream) + 1))
    if len(stream) < last or stream.range_fingerprint(first, last) != card.data["trained_print"]:
        return None
    return first, last


def _beyond(trained: Range, stream: U16Stream, card: ModelCard) -> int:
    """The first symbol a window after all that the model was trained and chosen on."""
    chosen_by = card.data["splits"]["validation"][1]  # the best model was chosen on these
    start = max(trained[1], chosen_by) + card.seq_len + 1
    if len(stream) - start < 2:
        raise UserError(
            "the stream holds nothing beyond the symbols that the model was trained and chosen on"
        )
    return start


def _tenth(stream: U16Stream) -> tuple[Range, Range]:
    tenth = len(stream) // 10
    if tenth < 2:
        raise UserError(f"a stream of {len(stream)} symbols is too short to score; 20 or more fit")
    return (0, tenth), (tenth, len(stream))
