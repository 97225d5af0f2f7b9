"""The residual layer that encoders, fusion and classifier are built of."""

from torch import Tensor, nn


class ResidualLayer(nn.Module):
    """x + dropout(W_2 gelu(W_1 norm(x))): a row's features mixed, rows apart.

    Args:
        width (int): features of a row.
        expansion (int): expansion * width features are hidden.
        dropout (float): share of what is added that training sets to 0.
    """

    def __init__(self, width: int, expansion: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, expansion * width),
            nn.GELU(),
            nn.Linear(expansion * width, width),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to every row of x (..., width)."""
        return x + self.layers(x)
