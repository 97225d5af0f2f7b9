"""Four modalities whose joint law is known, so that the best possible accuracy is known too."""

from dataclasses import dataclass

import numpy as np

from pyseq.data.modalities.modality import Modality, ModalityData
from pyseq.errors import UserError

CLASSES = 4
FIRST_BIT = np.array([1.0, 1.0, -1.0, -1.0])  # (classes,)
SECOND_BIT = np.array([1.0, -1.0, 1.0, -1.0])  # (classes,)
SIGNS = (1.0, -1.0)

SCALARS = 8
BIT_DIRECTION = np.repeat([0.5, 0.0], 4)  # (SCALARS,), of length 1, as is the next
SIGN_DIRECTION = np.repeat([0.0, 0.5], 4)
BIT_SHIFT = 1.1
SIGN_SHIFT = 1.5

STEPS, CHANNELS = 8, 2
PATTERN_LENGTH = 1.4  # Euclidean, of the whole pattern

TOKENS = 8
# probabilities of the six tokens; reversed for the other sign
TOKEN_LAW = np.array([0.38, 0.24, 0.16, 0.11, 0.07, 0.04])

NODES = (5, 6, 7, 8)  # equally likely
NODE_FEATURES = 2
EDGE_LAW = np.array([0.35, 0.45, 0.55, 0.65])  # (classes,), probability of each edge

COPY_NOISE = 0.1  # share of a copy's deviation, or of its tokens and edges, that is its own


@dataclass(frozen=True)
class SyntheticLaw:
    """Joint law of a class y in 0..3, equally likely, and four modalities.

    With the bits a, b = +-1 of y and a sign s = +-1 that is a fair coin and never shown:
        scalars (8 numbers): normal around 1.1 a u + 1.5 s v, u and v orthogonal, of length 1;
        tokens (8 of 6): independent, of one law if s b = 1 and of the reversed law if s b = -1;
        sequence (8 steps, 2 channels): normal around a cosine and a sine of y + 1 turns;
        graph (5 to 8 nodes): an edge between two nodes with probability .35, .45, .55 or .65 by y;
            the two features of a node are noise.
    Tokens alone say nothing of the class, and scalars alone nothing of b: the sign hides it, and
    only both together tell it. Given y and s the modalities are independent, which makes the
    posterior a sum over two signs, for any subset of them.

    Args:
        noise (float): deviation of scalars, of the sequence and of node features; positive.
        label_noise (float): probability that a label is one of the three other classes instead,
            all three equally likely; 0 or more and less than .75.

    Raises:
        UserError: an argument out of range.
    """

    noise: float = 1.0
    label_noise: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.noise < np.inf:
            raise UserError(f"synthetic: noise is {self.noise}; a positive number fits")
        if not 0 <= self.label_noise < 0.75:
            raise UserError(f"synthetic: label_noise is {self.label_noise}; 0 up to .75 fits")

    def log_likelihoods(self, data: ModalityData) -> np.ndarray:
        """ln p(what is present | class, sign), up to a term that is the same for all of them.

        Args:
            data (ModalityData): of this law, neither standardised nor corrupted.

        Returns:
            ndarray (N, 4, 2), float64, nats: over classes, then signs 1 and -1.
        """
        parts = {
            "scalars": self._scalars(data["scalars"].values),
            "tokens": self._tokens(data["tokens"].values),
            "sequence": self._sequence(data["sequence"].values)[..., None],
            "graph": self._graph(data["graph"])[..., None],
        }
        total = np.zeros((len(data), CLASSES, len(SIGNS)))
        for name, part in parts.items():
            total += part * data.present[:, data.position(name), None, None]
        return total

    def posteriors(self, data: ModalityData) -> np.ndarray:
        """Probabilities of the classes given what is present of each object, by Bayes' rule.

        Args:
            data (ModalityData): of this law, neither standardised nor corrupted; views may be
                missing, or declared so by `without`.

        Returns:
            ndarray (N, 4), float64: they hold for an object of which no copy is known.
        """
        joint = self.log_likelihoods(data)
        joint = np.exp(joint - joint.max((1, 2), keepdims=True)).sum(2)
        posteriors = joint / joint.sum(1, keepdims=True)
        wrong = self.label_noise
        return (1 - wrong) * posteriors + wrong / (CLASSES - 1) * (1 - posteriors)

    def scored(self, data: ModalityData) -> tuple[float, np.ndarray]:
        """Mean of the largest posterior, and the posteriors (N, 4)."""
        posteriors = self.posteriors(data)
        return float(posteriors.max(1).mean()), posteriors

    def _scalars(self, values: np.ndarray) -> np.ndarray:  # (N, classes, signs)
        means = scalar_means()
        return _normal_log(values[:, None, None], means, self.noise)

    def _tokens(self, values: np.ndarray) -> np.ndarray:  # (N, classes, signs)
        evidence = np.log(TOKEN_LAW)[values].sum(1)  # ln p(tokens | s b = 1), (N,)
        reverse = np.log(TOKEN_LAW[::-1])[values].sum(1)
        same = SECOND_BIT[:, None] * np.array(SIGNS) > 0  # (classes, signs)
        return np.where(same, evidence[:, None, None], reverse[:, None, None])

    def _sequence(self, values: np.ndarray) -> np.ndarray:  # (N, classes)
        flat = values.reshape(len(values), 1, -1)
        return _normal_log(flat, patterns().reshape(CLASSES, -1), self.noise)

    def _graph(self, modality: Modality) -> np.ndarray:  # (N, classes)
        assert modality.adjacency is not None
        assert modality.nodes is not None
        edges = modality.adjacency.astype(np.float64).sum((1, 2)) / 2
        pairs = modality.nodes * (modality.nodes - 1) / 2
        return edges[:, None] * np.log(EDGE_LAW) + (pairs - edges)[:, None] * np.log(1 - EDGE_LAW)


def scalar_means() -> np.ndarray:
    """Means of scalars (4, 2, 8), float64: over classes, then signs 1 and -1."""
    bits = BIT_SHIFT * FIRST_BIT[:, None, None] * BIT_DIRECTION
    return bits + SIGN_SHIFT * np.array(SIGNS)[:, None] * SIGN_DIRECTION


def patterns() -> np.ndarray:
    """Means of the sequence (4, 8, 2), float64: orthogonal to each other."""
    turns = np.arange(1, CLASSES + 1)[:, None] * np.arange(STEPS) / STEPS  # (classes, steps)
    waves = np.stack([np.cos(2 * np.pi * turns), np.sin(2 * np.pi * turns)], -1)
    return PATTERN_LENGTH / np.sqrt(STEPS) * waves


def synthetic(
    count: int = 4000,
    *,
    seed: int = 0,
    missing: float = 0.0,
    duplicates: int = 0,
    noise: float = 1.0,
    label_noise: float = 0.0,
) -> ModalityData:
    """Objects of SyntheticLaw, with exact posteriors.

    Copies of an object share its group, class, label (a wrong one too) and sign, and nearly all
    of its noise: whoever knows one copy's label knows the other's, which no classifier can know of
    a new object. Every copy by itself follows the law exactly.

    Args:
        count (int): objects, copies included; at least 1.
        seed (int): of everything random; at least 0.
        missing (float): probability of each modality to be missing, whatever its values and class;
            0 up to .9. Objects that would lose all of them are drawn again, so the share that
            is missing is slightly smaller.
        duplicates (int): near copies of each object besides itself; 0 gives no groups.
        noise (float): see SyntheticLaw.
        label_noise (float): see SyntheticLaw.

    Returns:
        ModalityData: modalities scalars, sequence, tokens, graph. bayes_accuracy is the mean of
        the largest posterior over these objects, given what is present of each.

    Raises:
        UserError: an argument out of range.
    """
    law = SyntheticLaw(noise, label_noise)
    if count < 1 or duplicates < 0 or seed < 0:
        raise UserError(
            f"synthetic: count {count}, duplicates {duplicates} and seed {seed}; at least 1, 0 and"
            " 0 fit"
        )
    if not 0 <= missing <= 0.9:
        raise UserError(f"synthetic: missing is {missing}; 0 up to .9 fits")
    random = np.random.default_rng(seed)
    group = np.arange(count) // (1 + duplicates)
    modalities, label = _draw(law, group, random)
    data = ModalityData(
        name="synthetic",
        modalities=modalities,
        label=label,
        class_names=tuple(f"class {y}" for y in range(CLASSES)),
        group=group if duplicates else None,
        present=_draw_present((count, len(modalities)), missing, random),
    )
    accuracy, posteriors = law.scored(data)
    return ModalityData(
        **{**vars(data), "bayes_accuracy": accuracy, "bayes_posteriors": posteriors}
    )


def _normal_log(values: np.ndarray, means: np.ndarray, deviation: float) -> np.ndarray:
    """ln of the normal density over the last axis, without its constant."""
    return -0.5 * ((values.astype(np.float64) - means) ** 2).sum(-1) / deviation**2


def _draw(
    law: SyntheticLaw, group: np.ndarray, random: np.random.Generator
) -> tuple[tuple[Modality, ...], np.ndarray]:
    groups, count = int(group[-1]) + 1, len(group)
    y = random.integers(0, CLASSES, groups)
    sign = random.integers(0, 2, groups)  # an index into SIGNS
    label = (
        y + (random.random(groups) < law.label_noise) * random.integers(1, CLASSES, groups)
    ) % CLASSES

    def normal(*shape: int) -> np.ndarray:
        shared, own = (
            random.standard_normal((groups, *shape)),
            random.standard_normal((count, *shape)),
        )
        return law.noise * (np.sqrt(1 - COPY_NOISE**2) * shared[group] + COPY_NOISE * own)

    def uniform(*shape: int) -> np.ndarray:
        shared, own = random.random((groups, *shape)), random.random((count, *shape))
        return np.where(random.random((count, *shape)) < COPY_NOISE, own, shared[group])

    scalars = scalar_means()[y, sign][group] + normal(SCALARS)
    sequence = patterns()[y][group] + normal(STEPS, CHANNELS)
    reverse = (SECOND_BIT[y] * np.array(SIGNS)[sign] < 0)[group]  # (N,)
    # at most 5, though a cumulative sum may end just below 1
    tokens = np.searchsorted(np.cumsum(TOKEN_LAW)[:-1], uniform(TOKENS), side="right")
    tokens = np.where(reverse[:, None], len(TOKEN_LAW) - 1 - tokens, tokens)

    nodes = random.choice(NODES, groups)[group]
    most = max(NODES)
    real = np.arange(most) < nodes[:, None]  # (N, V)
    upper = np.triu(uniform(most, most) < EDGE_LAW[y][group][:, None, None], 1)
    adjacency = (upper | upper.transpose(0, 2, 1)) & real[:, :, None] & real[:, None, :]
    features = normal(most, NODE_FEATURES) * real[:, :, None]
    return (
        Modality("scalars", "vector", scalars.astype(np.float32)),
        Modality("sequence", "sequence", sequence.astype(np.float32)),
        Modality("tokens", "tokens", tokens.astype(np.int64), vocabulary=len(TOKEN_LAW)),
        Modality(
            "graph",
            "graph",
            features.astype(np.float32),
            adjacency=adjacency.astype(np.float32),
            nodes=nodes.astype(np.int64),
        ),
    ), label[group].astype(np.int64)


def _draw_present(
    shape: tuple[int, int], missing: float, random: np.random.Generator
) -> np.ndarray:
    present = random.random(shape) >= missing
    while (lost := ~present.any(1)).any():
        present[lost] = random.random((int(lost.sum()), shape[1])) >= missing
    return present
