"""The draws of dropout: equal to an oracle, evenly spread, and independent of each other."""

import math

import pytest
import torch

from pyseq.ops import dropout, feed_forward, softmax_attention
from tests.correctness import backends_of
from tests.ops import dropout_oracle

CPU = torch.device("cpu")


def draws(*shape, seed=0):
    return dropout.draws(torch.tensor(seed), shape, CPU)


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**63 - 1, -5])
def test_draws_are_those_of_the_oracle(seed):
    found = draws(2, 3, 70, seed=seed)
    for i in range(2):
        for k in range(3):
            expected = [dropout_oracle.draw(seed, (i, k), j) for j in range(70)]
            assert found[i, k].tolist() == expected


def test_a_draw_depends_on_its_indices_and_on_no_size():
    large = draws(3, 5, 100, seed=8)
    assert torch.equal(draws(2, 4, 33, seed=8), large[:2, :4, :33])


def hidden_factors(F, share, seed, backend):
    """feed_forward of ones through the identity gives what dropout multiplies with, (2, 9, F)."""
    weight_in, bias_in = torch.zeros(2, F, 1), torch.ones(2, F)
    weight_out, bias_out = torch.eye(F).expand(2, F, F), torch.zeros(2, F)
    return feed_forward(
        torch.zeros(2, 9, 1), weight_in, bias_in, weight_out, bias_out,
        dropout=share, seed=seed, backend=backend,
    )  # fmt: skip


def weight_factors(S, share, seed, backend):
    """Even weights of values that are the identity, times their number, (2, 3, 9, S)."""
    query, key = torch.zeros(2, 3, 9, S), torch.zeros(2, 3, S, S)
    value = torch.eye(S).expand(2, 3, S, S)
    return S * softmax_attention(query, key, value, dropout=share, seed=seed, backend=backend)


@pytest.mark.parametrize("backend", backends_of("feed_forward"))
@pytest.mark.parametrize("share", [0.1, 0.5, 0.999])
@pytest.mark.parametrize("length", [1, 16, 17, 64, 71])
def test_an_op_drops_what_the_oracle_drops(length, share, backend):
    hidden = hidden_factors(length, share, 12345678901, backend)
    weights = weight_factors(length, share, 12345678901, backend)
    for n in range(9):
        expected = dropout_oracle.factors(12345678901, (1, n), length, share)
        torch.testing.assert_close(hidden[1, n].double(), expected, rtol=1e-6, atol=0)
        expected = dropout_oracle.factors(12345678901, (1, 2, n), length, share)
        torch.testing.assert_close(weights[1, 2, n].double(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("share", [0.0, 1e-6, 0.1, 0.4, 1 - 1e-9])
def test_the_share_of_zeros_and_the_expectation(share):
    count = 1 << 22
    factors = dropout.factors(torch.tensor(4), share, (count // 512, 512), CPU, torch.float64)
    zeros = dropout.dropped(share)
    if zeros == 0:
        assert factors == 1.0
        return
    exact = zeros / 65536
    assert abs(exact - share) <= 2**-16
    spread = math.sqrt(exact * (1 - exact) / count)
    assert abs(float((factors == 0).double().mean()) - exact) < 4 * spread
    assert abs(float(factors.mean()) - 1) < 4 * spread / (1 - exact)
    assert factors.unique().tolist() == [0.0, pytest.approx(1 / (1 - exact))]


def test_draws_are_even():
    found = draws(4, 64, 4096, seed=6).flatten()
    for part in (found & 0xFF, found >> 8, found >> 4 & 0xFF):
        counts = torch.bincount(part, minlength=256).double()
        expected = found.numel() / 256
        chi_square = float(((counts - expected) ** 2 / expected).sum())
        assert abs(chi_square - 255) < 5 * math.sqrt(2 * 255)


def shifted(axis, by):
    def pair(x):
        return x.narrow(axis, 0, x.shape[axis] - by), x.narrow(axis, by, x.shape[axis] - by)

    return pair


# Neighbours in a row, those that share a word, those of neighbouring words, rows, heads, entries.
NEIGHBOURS = {
    **{f"column+{by}": shifted(3, by) for by in (1, 2, 4, 8, 15, 16, 17, 32, 48, 256)},
    **{f"row+{by}": shifted(2, by) for by in (1, 2, 16, 32)},
    **{f"head+{by}": shifted(1, by) for by in (1, 2)},
    "entry+1": shifted(0, 1),
    "row and head": lambda x: (x[:, :-1, 1:], x[:, 1:, :-1]),
    "row and column": lambda x: (x[:, :, :-1, 1:], x[:, :, 1:, :-1]),
}


@pytest.mark.parametrize("pair", NEIGHBOURS.values(), ids=NEIGHBOURS)
def test_neighbours_are_independent(pair):
    check_independent(*pair(draws(4, 4, 64, 512, seed=9)))


@pytest.mark.parametrize("step", [1, 2, 1 << 16, 1 << 32, 0x1E3779B97F4A7C15])
def test_seeds_are_independent(step):
    check_independent(draws(64, 4096, seed=77), draws(64, 4096, seed=77 + step))


def check_independent(x, y):
    """Neither the draws nor whether they are kept are correlated beyond 5 standard deviations."""
    for a, b in [(x, y), (x < 6554, y < 6554), (x & 1, y & 1), (x & 255, y >> 8)]:
        a, b = (z.double().flatten() - z.double().mean() for z in (a, b))
        correlation = float((a * b).mean() / (a.square().mean() * b.square().mean()).sqrt())
        assert abs(correlation) * math.sqrt(a.numel()) < 5


def test_the_check_of_independence_sees_dependence():
    x, noise = draws(64, 4096, seed=1), draws(64, 4096, seed=2)
    mixed = torch.where(noise < 2048, x, noise)  # a share of 1/32
    with pytest.raises(AssertionError):
        check_independent(x, mixed)


def test_rows_share_no_stretch_of_words():
    """Of 2 million pairs of neighbouring words, 64 bits each, no two are equal."""
    x = draws(640, 257, 256, seed=3).unflatten(-1, (8, 2, 16)).long()
    words = (x[:, :, :, 0] | x[:, :, :, 1] << 16)[..., :2]  # of every block
    pairs = words[..., 0] | words[..., 1] << 32
    assert pairs.unique().numel() == pairs.numel()


BAD = [
    ({"dropout": 1.0}, ValueError, "dropout is 1.0; at least 0 and below 1 fits"),
    ({"dropout": -0.1}, ValueError, "dropout is -0.1"),
    ({"dropout": math.nan}, ValueError, "dropout is nan"),
    ({"dropout": "no"}, TypeError, "dropout is a str; a float fits"),
    ({"dropout": True}, TypeError, "dropout is a bool; a float fits"),
    ({"seed": -1}, ValueError, "seed is -1; at least 0 fits"),
    ({"seed": 2**63}, ValueError, r"seed is \d+; less than 2\^63 fits"),
    ({"seed": 1.5}, TypeError, "seed is a float; an int fits"),
    ({"seed": torch.tensor(1.5)}, TypeError, "seed is torch.float32; int64 fits"),
    ({"seed": torch.tensor([1])}, ValueError, r"seed has shape \(1,\); \(\) fits"),
    ({"seed": torch.tensor(1, device="meta")}, ValueError, "seed on meta; the CPU or cpu fits"),
]


@pytest.mark.parametrize(("options", "error", "message"), BAD)
def test_bad_options_are_errors(options, error, message):
    x, y = torch.ones(1, 1, 2, 4), torch.ones(1, 2, 2)
    with pytest.raises(error, match=f"^softmax_attention: {message}"):
        softmax_attention(x, x, x, **options)
    with pytest.raises(error, match=f"^feed_forward: {message}"):
        feed_forward(y, y, y[:, 0], y, y[:, 0], **options)
