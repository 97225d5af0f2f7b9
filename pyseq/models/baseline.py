"""The baseline: a causal decoder over symbols, pre-norm, rotary positions, gated feed-forward."""

from dataclasses import dataclass

from torch import Tensor, nn

from pyseq.errors import UserError
from pyseq.models.class_embedding import ClassEmbedding
from pyseq.models.sequence_model import SequenceModel
from pyseq.nn import CosineAttention, KeyValueCache, RotaryEmbedding, SwiGLU
from pyseq.ops.scale_cross_entropy import scale_cross_entropy


@dataclass(frozen=True)
class BaselineConfig:
    """Sizes of a `Baseline`.

    The defaults make about 3.7 million parameters with 1024 classes; d_model 512, nlayers 8,
    nhead 16, dim_ff 2048 make about 26 million.

    Attributes:
        classes (int): symbols (or bins) that are told apart.
        kind (str): "tokens", or "values" when the distance between symbols means something.
        d_model (int): width of the residual stream.
        nlayers (int): decoder blocks.
        nhead (int): query heads; divides d_model.
        nhead_kv (int): key and value heads; divides nhead.
        dim_ff (int): feed-forward width before the gate's share: the gated layer has 2/3 of it.
        dropout (float): probability, on the output of each half-block.
        mask_symbol (bool): whether one more class can be read, that of a masked symbol.
    """

    classes: int
    kind: str = "tokens"
    d_model: int = 256
    nlayers: int = 4
    nhead: int = 8
    nhead_kv: int = 8
    dim_ff: int = 1024
    dropout: float = 0.0
    mask_symbol: bool = False

    def __post_init__(self):
        sizes = (self.classes, self.d_model, self.nlayers, self.nhead, self.nhead_kv, self.dim_ff)
        if min(sizes) < 1:
            raise UserError(
                "--d_model, --nlayers, --nhead, --nhead_kv, --dim_ff and the alphabet must be at"
                f" least 1; got {self.d_model}, {self.nlayers}, {self.nhead}, {self.nhead_kv},"
                f" {self.dim_ff}, {self.classes}"
            )
        if self.d_model % self.nhead != 0:
            raise UserError(f"--nhead {self.nhead} must divide --d_model {self.d_model}")
        if (self.d_model // self.nhead) % 2 != 0:
            raise UserError(
                f"--d_model {self.d_model} over --nhead {self.nhead} gives heads of"
                f" {self.d_model // self.nhead}; rotary positions need an even width"
            )
        if self.nhead % self.nhead_kv != 0:
            raise UserError(f"--nhead_kv {self.nhead_kv} must divide --nhead {self.nhead}")
        if not 0 <= self.dropout < 1:
            raise UserError(f"--dropout {self.dropout}; 0 to below 1 fits")


class Block(nn.Module):
    """Attention and a gated feed-forward, each on normalised input and added to the stream."""

    def __init__(self, config: BaselineConfig, rope: RotaryEmbedding):
        super().__init__()
        width = config.d_model
        self.attention_norm = nn.RMSNorm(width, eps=1e-6)
        self.attention = CosineAttention(width, config.nhead, config.nhead_kv, rope=rope)
        self.feed_forward_norm = nn.RMSNorm(width, eps=1e-6)
        self.feed_forward = SwiGLU(width, max(1, config.dim_ff * 2 // 3))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x), cache=cache))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class Baseline(SequenceModel):
    """Next-symbol distributions for every position of a window.

    Args:
        config (BaselineConfig): the sizes.
    """

    def __init__(self, config: BaselineConfig):
        super().__init__()
        self.config = config
        width = config.d_model
        self.embedding = ClassEmbedding(config.classes, width, config.kind, config.mask_symbol)
        rope = RotaryEmbedding(width // config.nhead)
        self.blocks = nn.ModuleList(Block(config, rope) for _ in range(config.nlayers))
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.head = nn.Linear(width, config.classes, bias=False)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
        depth = (2 * self.config.nlayers) ** -0.5  # keeps the residual stream's variance in depth
        for name, weight in self.blocks.named_parameters():
            if name.endswith("out.weight"):  # the last layer of each half-block
                nn.init.normal_(weight, std=0.02 * depth)

    def new_cache(self) -> list[KeyValueCache]:
        """An empty cache for `forward`: one of each block."""
        return [KeyValueCache() for _ in self.blocks]

    def hidden(self, symbols: Tensor, cache: list[KeyValueCache] | None = None) -> Tensor:
        """Final hidden states, (B, T, C), of symbols (B, T) int64; position t has seen 0..t.

        Args:
            symbols (Tensor (B, T), int64): classes.
            cache (list of KeyValueCache | None): as for `forward`.
        """
        x = self.embedding(symbols)
        for index, block in enumerate(self.blocks):
            x = block(x, None if cache is None else cache[index])
        return self.norm(x)

    def forward(self, symbols: Tensor, *, cache: list[KeyValueCache] | None = None) -> Tensor:
        """Logits (B, T, classes) of the symbol after each of symbols (B, T) int64.

        Args:
            symbols (Tensor (B, T), int64): classes; with a cache, what follows those it has seen.
            cache (list of KeyValueCache | None): what `new_cache` gave.
        """
        return self.head(self.hidden(symbols, cache))

    def loss(self, window: Tensor) -> Tensor:
        """Mean negative log-likelihood in nats, (), of window (B, T + 1) int64 given its past."""
        return self.objective(window)[0]

    def objective(self, window: Tensor, seen: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The loss, twice; the second () Tensor is detached.

        Args:
            window (Tensor (B, T + 1), int64): classes.
            seen (Tensor (B, T), int64 | None): what is read in place of window[:, :-1].
        """
        hidden = self.hidden(window[:, :-1] if seen is None else seen)
        loss, _ = scale_cross_entropy(hidden, self.head.weight, window[:, 1:])
        return loss, loss.detach()

    def flops_per_symbol(self, seq_len: int) -> int:
        """Two per multiply-add, three passes (forward, and twice that backward).

        Args:
            seq_len (int): symbols in a window; a symbol attends to half of them on average.
        """
        matrices = sum(p.numel() for p in self.parameters() if p.dim() == 2)
        matrices -= self.embedding.rows.weight.numel()  # a look-up
        # Scores and their product with the values, over half a window on average.
        attention = 2 * self.config.nlayers * self.config.d_model * seq_len // 2
        return 6 * (matrices + attention)
