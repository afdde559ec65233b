"""A place where a factor per channel can be folded into a model, and the arithmetic of its channels."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Site:
    """What can be divided by a factor per channel while the linear `layers` that read it are multiplied.

    A norm (module `name`) multiplies by its weight w plus `offset`: 0 for most, 1 for Gemma's. A linear layer before
    has no offset, but `rows` (first, count) of its outputs that reach the readers; with grouped-query attention each
    head of `head_dim` outputs is read by several, so one output channel feeds several input channels.
    """

    name: str
    layers: tuple[str, ...]
    offset: float | None
    rows: tuple[int, int] | None = None
    head_dim: int | None = None

    def spread(self, factors: Tensor, width: int) -> Tensor:
        """Factors of the site's own channels [channels] as factors of the readers' input channels [width]."""
        if factors.numel() == width:
            return factors
        assert self.head_dim is not None
        heads = factors.view(-1, self.head_dim)
        return heads.repeat_interleave(width // factors.numel(), dim=0).flatten()

    def pooled(self, largest: Tensor) -> Tensor:
        """Largest magnitudes of the readers' input channels [width] as those of the site's own channels."""
        channels = self.rows[1] if self.rows else largest.numel()
        if channels == largest.numel():
            return largest
        assert self.head_dim is not None
        return largest.view(channels // self.head_dim, -1, self.head_dim).amax(dim=1).flatten()

    def pooled_columns(self, weight: Tensor) -> Tensor:
        """Largest magnitudes of a reader's weight [outputs, inputs] by channel of the site: [1, channels]."""
        return self.pooled(weight.abs().amax(dim=0))[None]


@dataclass(frozen=True)
class Refusal:
    """A place that nothing can be folded into, and why."""

    name: str
    reason: str
