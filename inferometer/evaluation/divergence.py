"""How far one prediction of the next token lies from another."""

from torch import Tensor


def kl_divergence(expected: Tensor, predicted: Tensor) -> Tensor:
    """Σ p (ln p − ln q) in nats for each row, from log-probabilities [tokens, vocabulary] of p and of q."""
    return (expected - predicted).mul_(expected.exp()).sum(dim=-1)
