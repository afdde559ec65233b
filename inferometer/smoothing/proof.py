"""The proof that smoothing left the float model what it was: the same logits before and after."""

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import PreTrainedModel

from inferometer.errors import InferometerError
from inferometer.smoothing.fold import smoothed
from inferometer.smoothing.sites import Site

TOLERANCE = 1e-4


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Euclidean norm of the difference over the norm of what was expected."""
    return float((actual - expected).float().norm() / expected.float().norm())


@torch.no_grad()
def prove_equivalence(
    model: PreTrainedModel, sites: list[Site], factors: Mapping[str, Tensor], tokens: Tensor
) -> float:
    """Relative error of the logits on `tokens` [1, tokens] after folding all sites, at most 1e-4.

    The model must be in float32. Raises InferometerError, naming the site that does the damage, when it is more.
    """
    before = model(tokens).logits

    def error_of(chosen: list[Site]) -> float:
        with smoothed(model, chosen, factors):
            return relative_error(model(tokens).logits, before)

    error = error_of(sites)
    if not error <= TOLERANCE:
        culprit = max(sites, key=lambda site: error_of([site]))
        raise InferometerError(
            f"smoothing changes the float model at site {culprit.name}: relative logit error {error:.2e}, "
            f"allowed {TOLERANCE:.0e}. This model can't be smoothed; leave the smoothing schemes out of "
            f"`study.schemes`."
        )
    return error
