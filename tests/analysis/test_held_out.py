"""Which symbols of a stream a model has not seen."""

from dataclasses import replace

import numpy as np
import pytest

from pyseq.analysis.held_out import ranges, unseen_range
from pyseq.data.binning import Binning
from pyseq.errors import UserError
from pyseq.models.checkpoint import ModelCard

SYMBOLS = np.random.default_rng(0).integers(0, 9, 1000)


@pytest.fixture
def card(stream_of):
    """Of a model with 10 symbols of context, trained on 0 to 599 and chosen by 611 to 699."""
    stream = stream_of(SYMBOLS)
    return ModelCard(
        "baseline", {}, Binning(9), "tokens", 10,
        {
            "fingerprint": stream.fingerprint,
            "trained": [0, 600],
            "trained_print": stream.range_fingerprint(0, 600),
            "splits": {"train": [0, 600], "validation": [611, 700], "test": [711, 1000]},
        },
    )  # fmt: skip


def test_on_its_own_stream_only_what_it_was_not_chosen_by_is_unseen(card, stream_of):
    stream = stream_of(SYMBOLS)
    assert unseen_range(stream, card)[0] == (711, 1000)
    assert ranges("auto", stream, card) == ((0, 600), (711, 1000), True)


def test_a_stream_that_grew_is_recognised(card, stream_of):
    stream = stream_of(np.append(SYMBOLS, SYMBOLS[:50]))
    found, why = unseen_range(stream, card)
    assert found == (711, 1050)
    assert "trained on 0 to 599" in why
    assert ranges("auto", stream, card) == ((0, 600), (711, 1050), True)


def test_training_on_fewer_symbols_does_not_free_the_validation_range(card, stream_of):
    stream = stream_of(SYMBOLS)
    shorter = stream.range_fingerprint(0, 200)
    card = replace(card, data=card.data | {"trained": [0, 200], "trained_print": shorter})
    assert unseen_range(stream, card)[0] == (711, 1000)


def test_another_stream_is_unseen_as_a_whole(card, stream_of):
    changed = SYMBOLS.copy()
    changed[300] += 1
    found, why = unseen_range(stream_of(changed), card)
    assert found == (0, 1000)
    assert "another stream" in why


def test_a_stream_without_more_is_refused(card, stream_of):
    with pytest.raises(UserError, match="nothing beyond"):
        unseen_range(stream_of(SYMBOLS[:712]), card)
    with pytest.raises(UserError, match="too short"):
        unseen_range(stream_of([1]), card)
