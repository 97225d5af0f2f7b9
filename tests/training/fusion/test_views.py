"""Test-time views differ from each other and change what they say they change."""

import numpy as np
import pytest
import torch

from pyseq.data.modalities import Graph
from pyseq.models.fusion import DataShape, build_fusion_model
from pyseq.training.fusion.module import forward_rows
from pyseq.training.fusion.views import CHANGES, dropout_on, views


@pytest.fixture
def batch(four_kinds):
    return four_kinds.batch(np.arange(40), "cpu")


@pytest.fixture
def model(four_kinds, quick):
    return build_fusion_model(quick.model, DataShape.of(four_kinds), 0).eval()


def same(one, other) -> bool:
    """Whether two batches hold the same, missing values aside."""
    if not torch.equal(one.present, other.present):
        return False
    for number, name in enumerate(one.values):
        there = one.present[:, number]
        left, right = one.values[name], other.values[name]
        pairs = zip(left, right, strict=True) if isinstance(left, Graph) else [(left, right)]
        if not all(torch.equal(a[there], b[there]) for a, b in pairs):
            return False
    return True


def test_five_views_are_five_different_inputs(batch):
    seen = list(views(batch, 5, 0))
    assert len(seen) == 5
    assert not any(same(seen[i], seen[j]) for i in range(5) for j in range(i))
    assert same(seen[0], batch)


def test_five_views_give_five_different_predictions(batch, model):
    found = [forward_rows(model, view).softmax(1) for view in views(batch, 5, 0)]
    for i in range(5):
        for j in range(i):
            assert float((found[i] - found[j]).abs().max()) > 1e-4
    alike = [forward_rows(model, batch) for _ in range(2)]
    assert torch.equal(*alike)  # passes in eval mode over one view are one pass


def test_later_rounds_have_new_draws(batch):
    seen = list(views(batch, 15, 0))
    assert not any(same(seen[i], seen[j]) for i in range(15) for j in range(i))


def test_a_drop_hides_one_modality_and_never_the_last(batch):
    dropped = [view for n, view in enumerate(views(batch, 20, 0)) if CHANGES[n % 5] == "drop"]
    has = batch.present.sum(1)
    for view in dropped:
        assert not (view.present & ~batch.present).any()
        assert torch.equal(view.present.sum(1), torch.where(has > 1, has - 1, has))
    assert batch.present[0].all()
    hidden = {tuple(view.present[0].tolist()) for view in dropped}
    assert len(hidden) > 1  # not always the same modality


def test_the_given_batch_stays_as_it_is(batch, four_kinds):
    list(views(batch, 5, 0))
    assert same(batch, four_kinds.batch(np.arange(40), "cpu"))


def test_graphs_keep_their_padding_and_edges_and_tokens_their_alphabet(batch, four_kinds):
    for view in views(batch, 5, 0):
        for modality in four_kinds.modalities:
            value = view.values[modality.name]
            if isinstance(value, Graph):
                places = torch.arange(value.features.shape[1])
                assert not value.features[places >= value.nodes[:, None]].any()
                assert torch.equal(value.adjacency, batch.values[modality.name].adjacency)
            elif modality.kind == "tokens":
                assert value.dtype == torch.int64
                assert 0 <= int(value.min()) <= int(value.max()) < modality.vocabulary


def test_a_seed_gives_the_same_views(batch):
    pairs = zip(views(batch, 5, 3), views(batch, 5, 3), strict=True)
    assert all(same(one, other) for one, other in pairs)
    assert not same(list(views(batch, 2, 3))[1], list(views(batch, 2, 4))[1])


def test_mc_dropout_passes_differ_and_leave_eval_mode_behind(batch, model):
    before = torch.get_rng_state()
    with dropout_on(model, 0):
        first, second = forward_rows(model, batch), forward_rows(model, batch)
        assert not model.training  # modalities are not hidden
    assert not torch.allclose(first, second)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(forward_rows(model, batch), forward_rows(model, batch))


def test_no_view_is_refused(batch):
    with pytest.raises(ValueError, match="views: count 0"):
        list(views(batch, 0, 0))
