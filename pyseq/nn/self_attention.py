"""What the self-attention modules share: projections, rotation, cache."""

import torch
from torch import Tensor, nn

from pyseq.nn.checks import kinds, sequence, state
from pyseq.nn.key_value_cache import KeyValueCache
from pyseq.nn.rotary_embedding import RotaryEmbedding
from pyseq.ops.checks import positive
from pyseq.ops.cosine_attention import cosine_attention
from pyseq.ops.prepare_keys import prepare_keys


class SelfAttention(nn.Module):
    """Project to heads, mix as a subclass says, project back; no biases.

    Args:
        width (int): features of input and output; a multiple of `heads`.
        heads (int): query heads; a multiple of `key_heads`.
        key_heads (int): heads of keys and values, each shared by heads / key_heads query heads.
        rope (RotaryEmbedding | None): rotates queries and keys; its head_dim is width / heads.
        causal (bool): a position sees none after it.
        dropout (float): share of the output's features that training sets to 0.
        backend (str): "auto", "reference", "native" or "triton".

    Raises:
        ValueError: the sizes do not divide, or `rope` is made for another head width.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        key_heads: int,
        *,
        rope: RotaryEmbedding | None,
        causal: bool,
        dropout: float,
        backend: str,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        kinds(name, int, width=width, heads=heads, key_heads=key_heads)
        kinds(name, bool, causal=causal)
        kinds(name, str, backend=backend)
        if rope is not None:
            kinds(name, RotaryEmbedding, rope=rope)
        if heads < 1 or width < 1 or width % heads:
            raise ValueError(
                f"{name}: {heads} heads cannot share a width of {width};"
                " width must be a multiple of heads"
            )
        if key_heads < 1 or heads % key_heads:
            raise ValueError(
                f"{name}: {heads} heads cannot share {key_heads} key heads;"
                " heads must be a multiple of key_heads"
            )
        if rope is not None and rope.head_dim != width // heads:
            raise ValueError(
                f"{name}: rope turns heads of width {rope.head_dim};"
                f" width / heads, {width // heads}, fits"
            )
        self.heads, self.key_heads, self.head_dim = heads, key_heads, width // heads
        self.rope, self.causal, self.backend = rope, causal, backend
        self.query_key_value = nn.Linear(width, (heads + 2 * key_heads) * self.head_dim, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.dropout = nn.Dropout(dropout)

    def new_cache(self) -> KeyValueCache:
        """An empty cache for `forward`.

        Returns:
            KeyValueCache: holds nothing yet.

        Raises:
            ValueError: the layer is not causal, so that later positions change earlier outputs.
        """
        self._refuse_cache()
        return KeyValueCache()

    def forward(self, x: Tensor, *, cache: KeyValueCache | None = None) -> Tensor:
        """Attend from every position of a sequence, or of the next piece of one.

        Args:
            x (Tensor (B, T, width), floating): the sequences; with a cache, what follows it.
            cache (KeyValueCache | None): the positions before x of these sequences in this layer;
                x's are added to it. Pieces of any lengths give, within rounding, what the whole
                sequence gives. For inference: nothing flows back into what is held, and it is
                overwritten in place.

        Returns:
            Tensor (B, T, width), dtype of x.

        Raises:
            TypeError: x is no tensor, or the cache is of another kind.
            ValueError: x has another shape; there is a cache and the layer is not causal; or the
                cache is of other sequences, another dtype or device.
        """
        sequence(type(self).__name__, x, self.out.in_features)
        state(type(self).__name__, cache, KeyValueCache)
        if cache is not None:
            self._refuse_cache()
        mixed = self._mix(*self._project(x), cache)
        # mixed has the memory order of query, (B, T, H, D), so this is a view
        return self.dropout(self.out(mixed.transpose(1, 2).reshape(x.shape)))

    def weights(self, x: Tensor, *, first: int = 0, stop: int | None = None) -> Tensor:
        """What share of every query's output each key's value has; as forward mixes in this mode.

        The outputs are linear in the values, so mixing unit vectors gives the weights, whatever the
        formula, head_dim keys at a time: as many mixings as it takes. Made for looking into a
        layer; `first` and `stop` bound the memory.

        Args:
            x (Tensor (B, T, width), floating): the sequences.
            first (int): the first key asked for.
            stop (int | None): one past the last key asked for; None: all of them.

        Returns:
            Tensor (B, heads, T, stop - first), dtype that the layer computes in: over all keys a
                query's weights sum to 1, or are all 0 if it sees no key.

        Raises:
            TypeError: x is no tensor.
            ValueError: x has another shape, or `first` to `stop` are no keys of it.
        """
        name = type(self).__name__
        sequence(name, x, self.out.in_features)
        B, T, _ = x.shape
        stop = T if stop is None else stop
        if not 0 <= first <= stop <= T:
            raise ValueError(f"{name}: keys {first} to {stop}; 0 <= first <= stop <= {T} fits")
        query, key, _ = self._project(x)
        weights = [query.new_zeros(B, self.heads, T, 0)]
        for start in range(first, stop, self.head_dim):
            units = query.new_zeros(T, self.head_dim)
            columns = torch.arange(min(self.head_dim, stop - start), device=x.device)
            units[start + columns, columns] = 1
            mixed = self._mix(query, key, units.expand_as(key), None)  # (B, H, T, D)
            weights.append(mixed[..., : len(columns)])
        return torch.cat(weights, -1)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"heads={self.heads}, key_heads={self.key_heads}, causal={self.causal}"

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query (B, H, T, D), key and value (B, G, T, D): views of one projection."""
        joint = self.query_key_value(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        query, key, value = joint.split((self.heads, self.key_heads, self.key_heads), dim=1)
        return query, key, value

    def _mix(
        self, query: Tensor, key: Tensor, value: Tensor, cache: KeyValueCache | None
    ) -> Tensor:
        """Query (B, H, T, D), key and value (B, G, T, D) to what the queries found, as query."""
        raise NotImplementedError

    def _rotate_and_append(
        self, query: Tensor, key: Tensor, value: Tensor, cache: KeyValueCache | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Query and key rotated to where they stand, key and value with all that came before."""
        position = 0 if cache is None else cache.length
        if self.rope is not None:
            tables = self.rope(query.shape[2], offset=position, device=query.device)
            query, key = (
                prepare_keys(x, norm=None, rope=tables, backend=self.backend) for x in (query, key)
            )
        if cache is not None:
            key, value = cache.append(key, value)
        return query, key, value

    def _soft(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Plain softmax attention."""
        return cosine_attention(
            query,
            key,
            value,
            norm=None,
            scale=scale,
            causal=self.causal,
            backend=self.backend,
        )

    def _checked_scale(self, scale: float | None) -> float:
        if scale is None:
            return self.head_dim**-0.5
        positive(type(self).__name__, "scale", scale)
        return scale

    def _refuse_cache(self) -> None:
        if not self.causal:
            raise ValueError(
                f"{type(self).__name__}: a cache keeps earlier outputs as they are, which later"
                " positions would change; causal=True fits"
            )
