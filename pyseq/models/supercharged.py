"""The supercharged model: a decoder over patches, and a small decoder inside each patch.

A patch is read at once by the deep decoder, so that it costs a patch's share of the time; the small
decoder then gives every symbol of the next patch its own distribution, from what the deep one says
of the patches before and from the symbols of the patch that have come. So its likelihood is exact
and in the same unit as the baseline's. Each part can be switched off.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pyseq.errors import UserError
from pyseq.models.class_embedding import ClassEmbedding
from pyseq.models.sequence_model import SequenceModel
from pyseq.nn import (
    CosineAttention,
    ExponentialSmoothingAttention,
    FourierAttention,
    HardAttention,
    MemoryTokens,
    PatchEmbedding,
    RotaryEmbedding,
    ScaleAwareHead,
    ScaleAwareLoss,
    SwiGLU,
)
from pyseq.ops import scale_cross_entropy


@dataclass(frozen=True)
class SuperchargedConfig:
    """Sizes and switches of a `Supercharged`.

    Attributes:
        classes (int): symbols (or bins) that are told apart.
        kind (str): "tokens", or "values" when the distance between symbols means something.
        d_model (int): width of the decoder over patches.
        nlayers (int): its blocks.
        nhead (int): its query heads; divides d_model.
        nhead_kv (int): its key and value heads; divides nhead.
        dim_ff (int): feed-forward width before the gate's share: the gated layer has 2/3 of it.
        dropout (float): probability, on the output of each half-block.
        patch (int): symbols read at once by the decoder over patches.
        local_width (int): width of the decoder inside the patch.
        local_layers (int): its blocks.
        local_reach (int): how many of the symbols before it each of its places reads at once, by a
            short convolution, across borders of patches; 1: only the one just before it.
        memory (int): learned tokens; 0: none.
        memory_read (str): "prefix": in front of the patches through every block; "gate": read by
            every patch on its own, before the first block.
        hard (bool): even blocks attend with `HardAttention`, not with `CosineAttention`.
        hard_train (str): "soft" or "straight_through".
        hard_serve (str): "hard", "adaptive" or "soft".
        fourier (bool): a `FourierAttention` after every third block.
        smoothing (bool): an `ExponentialSmoothingAttention` with trend after the last block.
        scale_bins (tuple of int): values: into how many bins the alphabet is divided for the scale
            term; (): no such term. Tokens have none, since only values have neighbours.
        scale_weight (float): weight of that term, the mean over the scales.
        horizons (int): auxiliary heads predict the symbols 2 to `horizons` steps ahead; 1: none.
        pattern_weight (float): weight of the pattern term, the mean over those heads.
        label_smoothing (float): share of the targets' probability spread over all classes.
        stochastic_depth (float): probability that training skips the last block, for one sequence;
            earlier blocks are skipped proportionally less.
        mask_symbol (bool): whether one more class can be read, that of a masked symbol.
    """

    classes: int
    kind: str = "tokens"
    d_model: int = 256
    nlayers: int = 4
    nhead: int = 8
    nhead_kv: int = 4
    dim_ff: int = 1024
    dropout: float = 0.1
    patch: int = 16
    local_width: int = 128
    local_layers: int = 1
    local_reach: int = 4
    memory: int = 20
    memory_read: str = "prefix"
    hard: bool = True
    hard_train: str = "straight_through"
    hard_serve: str = "hard"
    fourier: bool = True
    smoothing: bool = False
    scale_bins: tuple[int, ...] = (256, 1024, 4096)
    scale_weight: float = 0.1
    horizons: int = 4
    pattern_weight: float = 0.03
    label_smoothing: float = 0.0
    stochastic_depth: float = 0.0
    mask_symbol: bool = False

    def __post_init__(self):
        object.__setattr__(self, "scale_bins", tuple(self.scale_bins))  # JSON has lists only
        sizes = {
            "--d_model": self.d_model,
            "--nlayers": self.nlayers,
            "--nhead": self.nhead,
            "--nhead_kv": self.nhead_kv,
            "--dim_ff": self.dim_ff,
            "--patch": self.patch,
            "--local_width": self.local_width,
            "--local_layers": self.local_layers,
            "--local_reach": self.local_reach,
            "--horizons": self.horizons,
            "the alphabet": self.classes,
        }
        for name, size in sizes.items():
            if size < 1:
                raise UserError(f"{name} is {size}; at least 1 fits")
        if self.d_model % self.nhead != 0 or (self.d_model // self.nhead) % 2 != 0:
            raise UserError(
                f"--nhead {self.nhead} must divide --d_model {self.d_model} into heads of an even"
                " width, for rotary positions"
            )
        if self.nhead % self.nhead_kv != 0:
            raise UserError(f"--nhead_kv {self.nhead_kv} must divide --nhead {self.nhead}")
        if self.local_width % LOCAL_HEAD != 0:
            raise UserError(f"--local_width {self.local_width}; a multiple of {LOCAL_HEAD} fits")
        if self.memory < 0:
            raise UserError(f"--memory {self.memory}; 0 or more fits")
        shares = {
            "--dropout": self.dropout,
            "--label_smoothing": self.label_smoothing,
            "--stochastic_depth": self.stochastic_depth,
        }
        for name, share in shares.items():
            if not 0 <= share < 1:
                raise UserError(f"{name} {share}; 0 to below 1 fits")
        if any(b < 1 for b in self.scale_bins):
            raise UserError(f"--scale_bins {self.scale_bins}; positive numbers fit")
        if min(self.scale_weight, self.pattern_weight) < 0:
            raise UserError("--scale_weight and --pattern_weight must not be negative")


LOCAL_HEAD = 32  # width of a head of the decoder inside the patch


class HalfBlock(nn.Module):
    """x + f(norm(x)), skipped for single sequences in training by stochastic depth."""

    def __init__(self, width: int, layer: nn.Module, dropout: float, skip: float = 0.0):
        super().__init__()
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.layer = layer
        self.dropout = nn.Dropout(dropout)
        self.skip = skip

    def forward(self, x: Tensor, cache: Any = None) -> Tensor:
        known = {} if cache is None else {"cache": cache}
        change = self.dropout(self.layer(self.norm(x), **known))
        if self.training and self.skip > 0:
            kept = torch.rand(len(x), 1, 1, device=x.device) >= self.skip
            change = change * kept / (1 - self.skip)  # the mean stays
        return x + change

    def new_cache(self) -> Any:
        """An empty cache of the layer; None where it keeps nothing of earlier positions."""
        make: Any = getattr(self.layer, "new_cache", None)
        return None if make is None else make()


@dataclass
class SuperchargedCache:
    """What a `Supercharged` remembers of the sequences it has seen.

    Attributes:
        blocks (list): a cache for each half-block of the decoder over patches, or None.
        length (int): symbols seen.
        symbols (Tensor (B, 0 to patch + local_reach - 1), int64 | None): those of the patch that
            is not whole yet, and the local_reach before it.
        context (Tensor (B, 1, d_model) | None): what the decoder over patches said last.
    """

    blocks: list[Any]
    length: int = 0
    symbols: Tensor | None = None
    context: Tensor | None = None


class Supercharged(SequenceModel):
    """Next-symbol distributions for every position of a window, read by patches.

    Args:
        config (SuperchargedConfig): sizes and switches.
    """

    def __init__(self, config: SuperchargedConfig):
        super().__init__()
        self.config = config
        width, local = config.d_model, config.local_width
        self.embedding = ClassEmbedding(config.classes, local, config.kind, config.mask_symbol)
        self.patches = _PatchReader(config)
        self.start = nn.Parameter(torch.zeros(width))  # stands for the patch before the first
        self.memory = (
            MemoryTokens(config.memory, width, read=config.memory_read) if config.memory else None
        )
        self.blocks = nn.Sequential(*_blocks(config))
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.context = nn.Linear(width, config.patch * local, bias=False)
        self.reach = (
            nn.Linear(config.local_reach * local, local, bias=False)
            if config.local_reach > 1
            else None
        )
        rope = RotaryEmbedding(LOCAL_HEAD)
        self.local_blocks = nn.Sequential(
            *(
                half
                for _ in range(config.local_layers)
                for half in (
                    HalfBlock(
                        local,
                        CosineAttention(local, local // LOCAL_HEAD, local // LOCAL_HEAD, rope=rope),
                        config.dropout,
                    ),
                    HalfBlock(local, SwiGLU(local, max(1, local * 8 // 3)), config.dropout),
                )
            )
        )
        self.local_norm = nn.RMSNorm(local, eps=1e-6)
        # Only values have neighbours; ids that lie close together have nothing in common.
        bins = config.scale_bins if config.kind == "values" else ()
        self.score = ScaleAwareLoss.from_bins(config.classes, bins)
        self.head = ScaleAwareHead(local, config.classes, scales=self.score.scales)
        self.ahead = nn.ModuleList(
            nn.Linear(local, local, bias=False) for _ in range(config.horizons - 1)
        )
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
        halves = [m for m in self.modules() if isinstance(m, HalfBlock)]
        # What the untrained deep decoder says must not drown the symbols themselves.
        nn.init.normal_(self.context.weight, std=0.02 * self.config.d_model**-0.5)
        if self.reach is not None:  # the mixture weighs as much as the symbol itself
            nn.init.normal_(self.reach.weight, std=self.reach.in_features**-0.5)
        depth = len(halves) ** -0.5  # keeps the residual stream's variance in depth
        for name, weight in self.named_parameters():
            if name.endswith("layer.out.weight"):  # the last of each half-block
                nn.init.normal_(weight, std=0.02 * depth)

    def new_cache(self) -> SuperchargedCache:
        """An empty cache for `forward`."""
        return SuperchargedCache([half.new_cache() for half in self._half_blocks()])

    def _half_blocks(self) -> list[HalfBlock]:
        return list(self.blocks)  # type: ignore[arg-type]

    def hidden(self, symbols: Tensor, cache: SuperchargedCache | None = None) -> Tensor:
        """Final hidden states, (B, T, local_width), of symbols (B, T); position t has seen 0..t.

        Args:
            symbols (Tensor (B, T), int64): classes.
            cache (SuperchargedCache | None): as for `forward`.
        """
        (B, T), P = symbols.shape, self.config.patch
        before = 0 if cache is None else cache.length
        # Symbol t + 1 is predicted at the place of patch (t + 1) // P that it will take, from the
        # local_reach symbols before it. So the first patch concerned begins with symbols before
        # its own first, and the very first patch with none.
        first, last = before // P, (before + T) // P
        lead = min(first * P, self.config.local_reach)
        context = self.start.expand(B, 1, -1)
        if cache is not None and cache.symbols is not None:
            symbols = torch.cat((cache.symbols, symbols), 1)
            context = context if cache.context is None else cache.context
        seen = self.embedding(symbols)
        whole = slice(lead, lead + (last - first) * P)
        if last > first:
            context = torch.cat(
                (context, self._deep(symbols[:, whole], seen[:, whole], cache, first == 0)), 1
            )
        if cache is not None:
            cache.length = before + T
            cache.symbols = symbols[:, max(0, whole.stop - self.config.local_reach) :]
            cache.context = context[:, -1:].detach()
        seen = self._reached(seen)[:, max(0, lead - 1) :]
        groups, starts = last - first + 1, int(lead == 0)
        seen = nn.functional.pad(seen, (0, 0, starts, groups * P - seen.shape[1] - starts))
        local = seen.view(B * groups, P, -1) + self.context(context).view(B * groups, P, -1)
        local = self.local_norm(self.local_blocks(local)).view(B, groups * P, -1)
        end = before + T + 1 - first * P
        return local[:, end - T : end]

    def _reached(self, embedded: Tensor) -> Tensor:
        """Each of embedded (B, T, local_width) with those just before it mixed in."""
        if self.reach is None:
            return embedded
        recent = nn.functional.pad(embedded, (0, 0, self.config.local_reach - 1, 0))
        recent = recent.unfold(1, self.config.local_reach, 1)  # (B, T, local_width, reach)
        return embedded + self.reach(recent.flatten(2))

    def _deep(
        self, symbols: Tensor, embedded: Tensor, cache: SuperchargedCache | None, starts: bool
    ) -> Tensor:
        """What is known after each of N patches, (B, N, d_model); memory comes before the first."""
        # As baseline's, the stream between the blocks keeps its precision under autocast.
        x = self.patches(symbols, embedded).to(self.start.dtype)
        memory = self.memory if starts or self.config.memory_read == "gate" else None
        if memory is not None:
            x = memory(x)
        for index, half in enumerate(self._half_blocks()):
            x = half(x, None if cache is None else cache.blocks[index])
        x = self.norm(x)
        return x if memory is None else memory.remove(x)

    def forward(self, symbols: Tensor, *, cache: SuperchargedCache | None = None) -> Tensor:
        """Logits (B, T, classes) of the symbol after each of symbols (B, T) int64.

        Args:
            symbols (Tensor (B, T), int64): classes; with a cache, what follows those it has seen.
            cache (SuperchargedCache | None): what `new_cache` gave.
        """
        return self.head(self.hidden(symbols, cache))

    def loss(self, window: Tensor) -> Tensor:
        """Mean negative log-likelihood in nats, (), of window (B, T + 1) int64 given its past."""
        hidden = self.hidden(window[:, :-1])
        return scale_cross_entropy(hidden, self.head.weight, window[:, 1:])[0]

    def objective(self, window: Tensor, seen: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The next symbol, smoothed if asked for, with the scale term and the pattern term.

        Args:
            window (Tensor (B, T + 1), int64): classes.
            seen (Tensor (B, T), int64 | None): what is read in place of window[:, :-1].

        Returns:
            tuple of two Tensor (), in nats: that sum, and the loss alone, detached.
        """
        config = self.config
        hidden, targets = self.hidden(window[:, :-1] if seen is None else seen), window[:, 1:]
        _, per_scale = self.score(hidden, self.head, targets)
        loss = per_scale[0]
        total = loss
        if config.label_smoothing > 0:
            total = loss + config.label_smoothing * (self._spread(hidden, targets) - loss)
        if len(per_scale) > 1:
            total = total + config.scale_weight * per_scale[1:].mean()
        if self.ahead:
            total = total + config.pattern_weight * self._pattern(hidden, window)
        return total, loss.detach()

    def _spread(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy against the uniform distribution, without making the logits.

        -mean_v log p_v = logsumexp - mean logit, and the loss is logsumexp - the target's logit.
        """
        loss = scale_cross_entropy(hidden, self.head.weight, targets)[0]
        of_target = (hidden * self.head.weight[targets]).sum(-1).mean()
        return loss + of_target - (hidden @ self.head.weight.mean(0)).mean()

    def look_ahead(self, hidden: Tensor) -> list[Tensor]:
        """From hidden (B, T, local_width), what the head predicts 2, 3, ... steps ahead from."""
        return [hidden + nn.functional.silu(layer(hidden)) for layer in self.ahead]

    def _pattern(self, hidden: Tensor, window: Tensor) -> Tensor:
        losses = [
            scale_cross_entropy(ahead[:, : -steps + 1], self.head.weight, window[:, steps:])[0]
            for steps, ahead in enumerate(self.look_ahead(hidden), start=2)
            if window.shape[1] > steps
        ]
        return torch.stack(losses).mean() if losses else hidden.new_zeros(())

    def flops_per_symbol(self, seq_len: int) -> int:
        """Two per multiply-add, three passes (forward, and twice that backward).

        Args:
            seq_len (int): symbols in a window; a patch attends to half of them on average.
        """
        config = self.config

        def matrices(module: nn.Module) -> int:
            return sum(p.numel() for p in module.parameters() if p.dim() == 2)

        rows = seq_len // config.patch + (config.memory if config.memory_read == "prefix" else 0)
        # Scores and their product with the values, over half of the rows on average.
        attention = config.nlayers * config.d_model * rows
        for_patch = matrices(self.patches) + matrices(self.blocks) + matrices(self.context)
        per_patch = (for_patch + attention) * rows // max(1, seq_len)
        local = config.local_layers * config.local_width * config.patch
        per_symbol = matrices(self.local_blocks) + local + matrices(self.head)
        if self.reach is not None:
            per_symbol += self.reach.weight.numel()
        ahead = len(self.ahead) * (self.head.weight.numel() + config.local_width**2)
        return 6 * (per_patch + per_symbol + ahead)


class _PatchReader(nn.Module):
    """Whole patches of symbols (B, N * patch), embedded (..., local_width), to (B, N, d_model)."""

    def __init__(self, config: SuperchargedConfig):
        super().__init__()
        top = config.classes - 1
        self.values = None
        if config.kind == "values":  # as evenly spread ones would be standardised
            self.values = PatchEmbedding(
                config.patch,
                config.d_model,
                causal=True,
                center=top / 2,
                spread=max(1.0, top / 12**0.5),
            )
        else:
            width = config.patch * config.local_width
            self.tokens = nn.Linear(width, config.d_model, bias=False)

    def forward(self, symbols: Tensor, embedded: Tensor) -> Tensor:
        if self.values is not None:
            return self.values(symbols.to(torch.float32)).embeddings
        return self.tokens(embedded.reshape(len(embedded), -1, self.tokens.in_features))


def _blocks(config: SuperchargedConfig) -> list[HalfBlock]:
    """The decoder over patches."""
    width, rope = config.d_model, RotaryEmbedding(config.d_model // config.nhead)
    halves = []
    for index in range(config.nlayers):
        skip = config.stochastic_depth * (index + 1) / config.nlayers
        attention: nn.Module
        if config.hard and index % 2 == 0:
            attention = HardAttention(
                width,
                config.nhead,
                config.nhead_kv,
                train=config.hard_train,
                serve=config.hard_serve,
                rope=rope,
            )
        else:
            attention = CosineAttention(width, config.nhead, config.nhead_kv, rope=rope)
        feed_forward = SwiGLU(width, max(1, config.dim_ff * 2 // 3))
        halves.append(HalfBlock(width, attention, config.dropout, skip))
        halves.append(HalfBlock(width, feed_forward, config.dropout, skip))
        if config.fourier and index % 3 == 2:
            halves.append(HalfBlock(width, FourierAttention(width), config.dropout, skip))
    if config.smoothing:
        smoothing = ExponentialSmoothingAttention(width, config.nhead, trend=True)
        halves.append(HalfBlock(width, smoothing, config.dropout))
    return halves
