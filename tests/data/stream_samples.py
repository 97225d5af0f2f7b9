"""Samples of streams, and how far a mean of them may lie from the truth."""

import math

import numpy as np

SIGMAS = 5.0  # seeds are fixed; another generator would fail by chance once in 1.7 million


def sample(stream, count, seed=0):
    return stream.generate(count, seed).numpy()


def batch_error(scores, batches=100):
    """Mean of a stationary sequence and its standard error, by the means of long batches."""
    means = scores[: len(scores) // batches * batches].reshape(batches, -1).mean(axis=1)
    return means.mean(), means.std(ddof=1) / math.sqrt(batches)


def likeliest_growth(first, extend, steps):
    """log2 of the likeliest path, per step, over `steps` steps after as many to forget the start.

    first (n,): log2 probabilities of the states at the start; extend maps the best log2
    probabilities per state to those one step later.
    """
    best = first
    for _ in range(steps):
        best = extend(best)
    before = best.max()
    for _ in range(steps):
        best = extend(best)
    return (best.max() - before) / steps


def block_entropy(symbols, length, alphabet):
    """Entropy in bits of `length` neighbouring symbols, by counting."""
    codes = np.zeros(len(symbols) - length + 1, np.int64)
    for offset in range(length):
        codes = codes * alphabet + symbols[offset : offset + codes.size]
    share = np.unique(codes, return_counts=True)[1] / codes.size
    return float(-(share * np.log2(share)).sum())
