"""What a model reads of a class before anything else."""

from torch import Tensor, nn


class ClassEmbedding(nn.Module):
    """A trained row for each class, and for values a trained direction that their size moves along.

    Values that lie close together so look alike before anything is learned about them.

    Args:
        classes (int): how many there are.
        width (int): features of a row.
        kind (str): "tokens", or "values" when the distance between classes means something.
        mask_symbol (bool): whether there is one more row, for a masked symbol.
    """

    def __init__(self, classes: int, width: int, kind: str, mask_symbol: bool) -> None:
        super().__init__()
        self.rows = nn.Embedding(classes + mask_symbol, width)
        self.size = nn.Linear(1, width, bias=False) if kind == "values" else None
        self.centre = (classes - 1) / 2

    def forward(self, symbols: Tensor) -> Tensor:
        """Embed symbols (B, T) int64 as (B, T, width)."""
        embedded = self.rows(symbols)
        if self.size is None:
            return embedded
        sizes = (symbols.to(embedded.dtype) - self.centre) / max(self.centre, 1.0)  # in [-1, 1]
        return embedded + self.size(sizes[..., None])
