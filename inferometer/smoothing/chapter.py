"""The smoothing chapter from end to end: sites, factors and proof of one model, as tables."""

import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel

from inferometer.errors import InferometerError
from inferometer.models import linear_layers, weight_matrix
from inferometer.smoothing.fold import site_factors
from inferometer.smoothing.proof import prove_equivalence
from inferometer.smoothing.sites import find_sites


def activation_absmax(activations: pd.DataFrame) -> dict[str, Tensor]:
    """Largest input magnitude per channel of every linear layer, from an ACTIVATIONS table; first tokens counted."""
    counted = activations[activations["first_token"]].sort_values(["layer", "channel"])
    return {str(layer): torch.tensor(rows["absmax"].to_numpy()) for layer, rows in counted.groupby("layer")}


def smooth(
    model: PreTrainedModel, activations: pd.DataFrame, alpha: float, proof_tokens: Tensor
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The SCALES and SITES tables of a float32 model at a strength `alpha`, proved on `proof_tokens` [1, tokens].

    Raises InferometerError when the model has no site, when the calibration is another model's, or when folding
    changes the float logits.
    """
    absmax = activation_absmax(activations)
    widths = {name: channels.numel() for name, channels in absmax.items()}
    expected = {name: weight_matrix(layer).shape[1] for name, layer in linear_layers(model).items()}
    if widths != expected:
        raise InferometerError("the calibration tables are of another model: their layers or widths differ.")
    sites, refusals = find_sites(model)
    if not sites:
        reasons = "; ".join(f"{refusal.name}: {refusal.reason}" for refusal in refusals[:3])
        raise InferometerError(f"the model has no norm that smoothing can be folded into ({reasons}).")
    factors = site_factors(model, sites, absmax, alpha)
    error = prove_equivalence(model, sites, factors, proof_tokens.to(model.device))
    scales = pd.concat(
        {name: pd.DataFrame({"factor": factor.cpu().numpy()}) for name, factor in factors.items()},
        names=["site", "channel"],
    )
    folded: list[dict[str, object]] = [
        {
            "site": site.name,
            "folded": True,
            "layers": " ".join(site.layers),
            "offset": site.offset,
            "reason": None,
        }
        for site in sites
    ]
    refused: list[dict[str, object]] = [
        {"site": refusal.name, "folded": False, "layers": "", "offset": None, "reason": refusal.reason}
        for refusal in refusals
    ]
    return scales.reset_index(), pd.DataFrame(folded + refused).assign(logit_error=error)
