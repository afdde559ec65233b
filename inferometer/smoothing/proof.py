"""The proof that smoothing left the float model what it was: the same logits before and after."""

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import PreTrainedModel

from inferometer.errors import InferometerError
from inferometer.folding import TOLERANCE, logit_error
from inferometer.smoothing.fold import folding_changes
from inferometer.smoothing.site import Site


@torch.no_grad()
def prove_equivalence(
    model: PreTrainedModel, sites: list[Site], factors: Mapping[str, Tensor], tokens: Tensor
) -> float:
    """Relative error of the logits on `tokens` [1, tokens] after folding all sites, at most 1e-4.

    The model must be in float32. Raises InferometerError, naming the site that does the damage, when it is more.
    """
    before = model(tokens).logits

    def error_of(chosen: list[Site]) -> float:
        return logit_error(model, folding_changes(model, chosen, factors), tokens, before)

    error = error_of(sites)
    if not error <= TOLERANCE:
        culprit = max(sites, key=lambda site: error_of([site]))
        raise InferometerError(
            f"smoothing changes the float model at site {culprit.name}: relative logit error {error:.2e}, "
            f"allowed {TOLERANCE:.0e}. This model can't be smoothed; leave the smoothing schemes out of "
            f"`study.schemes`."
        )
    return error
