"""The supercharged model: exact likelihood through patches, and a past that no switch changes."""

import itertools
import math

import pytest
import torch

from pyseq.errors import UserError
from pyseq.models.supercharged import Supercharged, SuperchargedConfig
from tests.correctness import undocumented_parameters

SMALL = {
    "classes": 50,
    "d_model": 32,
    "nlayers": 3,
    "nhead": 4,
    "nhead_kv": 2,
    "dim_ff": 48,
    "patch": 8,
    "local_width": 32,
    "local_layers": 1,
    "memory": 3,
    "scale_bins": (10, 25),
}


def make(**options):
    torch.manual_seed(0)
    return Supercharged(SuperchargedConfig(**SMALL | options)).eval()


def symbols(*shape, classes=50, seed=0):
    return torch.randint(classes, shape, generator=torch.Generator().manual_seed(seed))


MEMORIES = [{"memory": 0}, {"memory_read": "prefix"}, {"memory_read": "gate"}]
HARD = [{"hard": False}] + [
    {"hard_train": train, "hard_serve": serve}
    for train in ("soft", "straight_through")
    for serve in ("hard", "adaptive", "soft")
]
SWITCHES = [
    {"kind": kind, "fourier": fourier, "smoothing": smoothing} | memory | hard
    for kind, fourier, smoothing, memory, hard in itertools.product(
        ("tokens", "values"), (False, True), (False, True), MEMORIES, HARD
    )
]
REACHES = [{"local_reach": 1}, {"local_reach": 2, "patch": 1}, {"local_reach": 11, "patch": 3}]


@pytest.mark.parametrize(
    "options", SWITCHES + REACHES, ids=lambda x: "-".join(map(str, x.values()))
)
def test_the_future_does_not_matter(options):
    """Within patches of 8, at their borders, in training and in serving."""
    model = make(dropout=0.0, **options)
    x = symbols(2, 37)
    for mode in (model.eval(), model.train()):
        with torch.no_grad():
            before = mode(x)
            for t in (0, 3, 6, 7, 8, 15, 16, 35):
                changed = x.clone()
                changed[:, t + 1 :] = symbols(2, 36 - t, seed=1)
                changed[:, t + 1] = (x[:, t + 1] + 7) % 50
                after = mode(changed)
                assert torch.equal(after[:, : t + 1], before[:, : t + 1])
                assert not torch.equal(after[:, t + 1], before[:, t + 1])


@pytest.mark.parametrize(
    "options", [{}, {"kind": "values"}, {"memory": 0}, {"local_reach": 1}, {"local_reach": 9}]
)
def test_probabilities_of_all_continuations_sum_to_one(options):
    """Every sequence of 6 symbols after a first one, across two borders of patches of 3."""
    model = make(classes=3, patch=3, scale_bins=(), **options)
    everything = torch.cartesian_prod(*[torch.arange(3)] * 6)  # (729, 6)
    windows = torch.cat((torch.ones(729, 1, dtype=torch.int64), everything), 1)
    with torch.no_grad():
        logp = torch.log_softmax(model(windows[:, :-1]).double(), -1)
    total = logp.gather(-1, windows[:, 1:, None]).sum((1, 2))
    assert math.isclose(float(total.exp().sum()), 1.0, rel_tol=1e-5)


@pytest.mark.parametrize("T", [1, 7, 8, 9, 16, 17])
def test_every_position_of_any_window_has_its_distribution(T):
    model, x = make(), symbols(2, 17)
    with torch.no_grad():
        logits = model(x[:, :T])
        assert logits.shape == (2, T, 50)
        # A longer window does not change what a shorter one says.
        assert torch.allclose(logits, model(x)[:, :T], atol=1e-5)


@pytest.mark.parametrize(
    "options", [{}, {"label_smoothing": 0.2}, {"horizons": 1, "scale_bins": ()}]
)
def test_loss_and_objective_by_hand(options):
    model = make(kind="values", **options)
    window = symbols(2, 30)
    with torch.no_grad():
        logp = torch.log_softmax(model(window[:, :-1]), -1)
        targets = window[:, 1:, None]
        loss = -logp.gather(-1, targets).mean()
        expected = loss
        if options.get("label_smoothing"):
            expected = 0.8 * loss - 0.2 * logp.mean()
        if "horizons" not in options:
            p = logp.exp()
            for width in (5, 2):  # 50 classes in 10 and 25 bins
                own = p.unflatten(-1, (-1, width)).sum(-1).gather(-1, targets // width)
                expected = expected - 0.1 * own.log().mean() / 2
            hidden = model.hidden(window[:, :-1])
            for steps, ahead in enumerate(model.look_ahead(hidden), start=2):
                later = torch.log_softmax(model.head(ahead[:, : 30 - steps]), -1)
                expected = expected - 0.03 * later.gather(-1, window[:, steps:, None]).mean() / 3
        found, beside = model.objective(window)
        assert torch.allclose(model.loss(window), loss, atol=1e-5)
        assert torch.allclose(beside, loss, atol=1e-5)
        assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    "options", [{}, {"kind": "values", "smoothing": True}, {"memory_read": "gate"}]
)
def test_every_parameter_learns(options):
    model = make(hard_train="straight_through", **options).train()
    model.objective(symbols(2, 60))[0].backward()
    still = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


def test_stochastic_depth_skips_whole_sequences_and_keeps_the_mean():
    model = make(stochastic_depth=0.5, dropout=0.0, nlayers=1, hard=False, fourier=False).train()
    half = model.blocks[0]
    x = torch.randn(1, 1, 32).expand(4000, 1, 32)
    change = half(x) - x
    kept = (change != 0).any(-1).flatten()
    assert 0.45 < kept.float().mean() < 0.55
    once = half.eval()(x[:1]) - x[:1]
    assert torch.allclose(change[kept], 2 * once, atol=1e-6)


def test_a_patch_costs_less_than_its_symbols():
    """The point of patches: the deep decoder's share falls with their length."""
    costs = [make(patch=p, d_model=64, nhead=4).flops_per_symbol(256) for p in (2, 8, 16)]
    assert costs == sorted(costs, reverse=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nhead": 3}, "--nhead 3 must divide --d_model 32"),
        ({"nhead_kv": 3}, "--nhead_kv 3 must divide --nhead 4"),
        ({"patch": 0}, "--patch is 0; at least 1 fits"),
        ({"local_width": 40}, "--local_width 40; a multiple of 32 fits"),
        ({"memory": -1}, "--memory -1; 0 or more fits"),
        ({"dropout": 1.0}, "--dropout 1.0; 0 to below 1 fits"),
        ({"scale_bins": (0,)}, "--scale_bins .0,.; positive numbers fit"),
        ({"pattern_weight": -1.0}, "--scale_weight and --pattern_weight"),
    ],
)
def test_errors(options, message):
    with pytest.raises(UserError, match=message):
        SuperchargedConfig(**SMALL | options)


def test_docstring_names_every_parameter():
    assert undocumented_parameters(Supercharged) == []


@pytest.mark.parametrize("kind", ["tokens", "values"])
@pytest.mark.parametrize("memory", [{"memory": 0}, {}, {"memory_read": "gate"}], ids=str)
@pytest.mark.parametrize(
    "parts",
    [{}, {"hard": False}, {"hard_serve": "soft", "smoothing": True}, *REACHES],
    ids=str,
)
def test_pieces_with_a_cache_give_what_the_whole_gives(kind, memory, parts):
    """Pieces that end before, at and after borders of patches of 8, some longer than two."""
    model, x = make(kind=kind, nlayers=3, **memory, **parts).eval(), symbols(2, 61)
    with torch.no_grad():
        whole = model(x)
        for sizes in ([1] * 61, [7, 1, 1, 22, 8, 8, 14], [61], [24, 37]):
            cache = model.new_cache()
            pieces = [model(piece, cache=cache) for piece in x.split(sizes, 1)]
            assert torch.allclose(torch.cat(pieces, 1), whole, atol=1e-5)
            assert cache.length == 61


def test_only_values_have_a_scale_term():
    assert make(kind="values").score.scales == (1, 5, 2)
    assert make(kind="tokens").score.scales == (1,)


def test_what_is_seen_is_read_and_what_is_due_stays():
    """Masked and replaced symbols change the hidden rows only."""
    model, window = make(mask_symbol=True, scale_bins=(), horizons=1).eval(), symbols(2, 30)
    seen = window[:, :-1].clone()
    assert torch.equal(model.objective(window, seen)[0], model.objective(window)[0])
    seen[:, 3], seen[:, 10] = 50, (seen[:, 10] + 1) % 50
    with torch.no_grad():
        logp = torch.log_softmax(model(seen), -1)
        expected = -logp.gather(-1, window[:, 1:, None]).mean()
        assert torch.allclose(model.objective(window, seen)[1], expected)
        assert not torch.allclose(model.objective(window)[1], expected)
    with pytest.raises(IndexError):
        make().objective(window, seen)
