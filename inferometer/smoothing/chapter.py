"""The smoothing chapter from end to end: sites, strengths, factors and proof of one model and scheme, as tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel

from inferometer.errors import InferometerError
from inferometer.models import linear_layers, quantizable_layers, weight_matrix
from inferometer.schemes import Scheme
from inferometer.smoothing.fold import activation_aware_factors, smoothing_factors
from inferometer.smoothing.producers import find_producers
from inferometer.smoothing.proof import prove_equivalence
from inferometer.smoothing.search import chosen_alphas, sample_inputs, search
from inferometer.smoothing.site import Refusal, Site
from inferometer.smoothing.sites import find_sites

SEARCH = "search_per_"


@dataclass(frozen=True)
class Smoothing:
    """The SCALES, SITES and ALPHAS tables of a model and scheme."""

    scales: pd.DataFrame
    sites: pd.DataFrame
    alphas: pd.DataFrame


def _input_sizes(activations: pd.DataFrame, method: str) -> dict[str, Tensor]:
    """The size of every linear layer's input by channel, from an ACTIVATIONS table.

    SmoothQuant takes the largest magnitude of all tokens; activation-aware scaling the root mean square of all but the
    first token of each window, whose massive activations would otherwise be all that is seen.
    """
    counted = activations[activations["first_token"] == (method == "smoothquant")].sort_values(["layer", "channel"])
    sizes = counted["absmax"] if method == "smoothquant" else (counted["mean"] ** 2 + counted["std"] ** 2) ** 0.5
    grouped = sizes.groupby(counted["layer"])
    return {str(layer): torch.tensor(rows.to_numpy(dtype="float32")) for layer, rows in grouped}


def _check_calibration(model: PreTrainedModel, sizes: Mapping[str, Tensor]) -> None:
    expected = {name: weight_matrix(layer).shape[1] for name, layer in linear_layers(model).items()}
    widths = {name: channels.numel() for name, channels in sizes.items()}
    for name in sorted(expected.keys() | widths.keys()):
        if expected.get(name) != widths.get(name):
            theirs, ours = widths.get(name, "no such layer"), expected.get(name, "no such layer")
            raise InferometerError(
                f"the calibration tables are of another model: for layer {name} they have a width of {theirs}, the "
                f"model of {ours}; delete them and run again."
            )


def _all_sites(model: PreTrainedModel, wanted: str) -> tuple[list[Site], list[Refusal]]:
    """The norms that smoothing can be folded into, and for `all` the linear layers before the other layers too."""
    sites, refusals = find_sites(model)
    if wanted == "all":
        read = {layer for site in sites for layer in site.layers}
        more, refused = find_producers(model, [name for name in quantizable_layers(model) if name not in read])
        sites, refusals = sites + more, refusals + refused
    if not sites:
        reasons = "; ".join(f"{refusal.name}: {refusal.reason}" for refusal in refusals[:3])
        raise InferometerError(f"the model has nothing that smoothing can be folded into ({reasons}).")
    return sites, refusals


def smooth(
    model: PreTrainedModel,
    activations: pd.DataFrame,
    scheme: Scheme,
    settings: Mapping[str, Any],
    windows: Sequence[Tensor],
) -> Smoothing:
    """The tables of a float32 model, proved on the first of the calibration `windows` [1, tokens].

    `settings` are the scheme's `smoothing` entry. Raises InferometerError when the model has no site, when the
    calibration is another model's, or when folding changes the float logits.
    """
    method, alpha = settings.get("method", "smoothquant"), settings["alpha"]
    sizes = _input_sizes(activations, method)
    _check_calibration(model, sizes)
    sites, refusals = _all_sites(model, settings.get("sites", "norms"))
    layers = linear_layers(model)

    def factors_at(site: Site, strength: float) -> Tensor:
        size = site.pooled(sizes[site.layers[0]].to(model.device))
        if method == "awq":
            return activation_aware_factors(size, strength)
        return smoothing_factors(
            size, [site.pooled_columns(weight_matrix(layers[name])) for name in site.layers], strength
        )

    if isinstance(alpha, str):
        errors = search(model, sites, sample_inputs(model, sites, windows), factors_at, scheme)
        strengths = chosen_alphas(errors, alpha.removeprefix(SEARCH))
    else:
        errors = pd.DataFrame({"site": [site.name for site in sites], "alpha": alpha, "error": float("nan")})
        strengths = {site.name: float(alpha) for site in sites}
    factors = {site.name: factors_at(site, strengths[site.name]) for site in sites}
    error = prove_equivalence(model, sites, factors, windows[0].to(model.device))
    return Smoothing(
        scales=pd.concat(
            {name: pd.DataFrame({"factor": factor.cpu().numpy()}) for name, factor in factors.items()},
            names=["site", "channel"],
        ).reset_index(),
        sites=_sites(sites, refusals).assign(logit_error=error),
        alphas=errors.assign(chosen=errors["alpha"] == errors["site"].map(strengths)),
    )


def _sites(sites: Sequence[Site], refusals: Sequence[Refusal]) -> pd.DataFrame:
    """Rows of the SITES table, but for the proof."""
    rows: list[dict[str, object]] = []
    for site in sites:
        first_row, count = site.rows or (None, None)
        shape = {"offset": site.offset, "first_row": first_row, "rows": count, "head_dim": site.head_dim}
        rows.append({"site": site.name, "folded": True, "layers": " ".join(site.layers), **shape, "reason": None})
    for refusal in refusals:
        shape = dict.fromkeys(("offset", "first_row", "rows", "head_dim"))
        rows.append({"site": refusal.name, "folded": False, "layers": "", **shape, "reason": refusal.reason})
    return pd.DataFrame(rows).reset_index(names="place")
