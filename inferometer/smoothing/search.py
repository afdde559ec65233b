"""The strength of smoothing that serves each site best, by what the layers there compute on calibration text.

For every candidate alpha the site's inputs and weights are smoothed and rounded as the scheme rounds them, and the
layers' outputs compared with the float ones (Lin et al. 2024, AWQ, eq. 4; activations are rounded too where the scheme
rounds them).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from inferometer.models import linear_layers, quantizable_layers, weight_matrix
from inferometer.quantization.simulated import ActivationRounder
from inferometer.schemes import Scheme
from inferometer.smoothing.site import Site

ALPHAS = tuple(step / 10 for step in range(11))
SEARCH_WINDOWS = 4  # of calibration text: enough rows to tell neighbouring strengths apart
ROWS_OF_WINDOW = 128  # spread evenly over each window, its first token among them

Factors = Callable[[Site, float], Tensor]


@torch.no_grad()
def sample_inputs(model: PreTrainedModel, sites: Sequence[Site], windows: Iterable[Tensor]) -> dict[str, Tensor]:
    """Some rows [rows, channels] of what the readers of every site read, by site name, from one pass in float."""
    rows: dict[str, list[Tensor]] = {site.name: [] for site in sites}

    def hook(name: str) -> Any:
        def take(_layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            values = arguments[0].flatten(end_dim=-2).float()
            rows[name].append(values[:: max(1, len(values) // ROWS_OF_WINDOW)].clone())

        return take

    layers = linear_layers(model)
    handles = [layers[site.layers[0]].register_forward_pre_hook(hook(site.name)) for site in sites]
    try:
        for window in windows:
            model(window.to(model.device))
    finally:
        for handle in handles:
            handle.remove()
    return {name: torch.cat(parts) for name, parts in rows.items()}


@torch.no_grad()
def output_error(weights: Sequence[Tensor], rows: Tensor, factors: Tensor, scheme: Scheme) -> float:
    """Squared error of what layers compute on `rows` [rows, inputs] when smoothed and rounded, over the float outputs'.

    `weights` are float32 [outputs, inputs], `factors` [inputs] divide the rows and multiply the weights.
    """
    inputs = rows / factors
    if scheme.activations is not None:
        inputs = ActivationRounder(scheme.activations.grid, None, scheme.activations.outlier_threshold)(inputs)
    error = power = 0.0
    for weight in weights:
        rounded = weight * factors
        if scheme.weights is not None:
            rounded = scheme.weights.grid.round_trip(rounded)
        expected = rows @ weight.T
        error += float((inputs @ rounded.T).sub_(expected).square_().sum())
        power += float(expected.square_().sum())
    return error / max(power, torch.finfo(torch.float64).tiny)  # both are zero where nothing was ever seen


def search(
    model: PreTrainedModel, sites: Sequence[Site], inputs: Mapping[str, Tensor], factors: Factors, scheme: Scheme
) -> pd.DataFrame:
    """The output error of every site at every candidate: columns `site`, `alpha` and `error`.

    `inputs` are rows by site name; `factors` gives the factors of a site's own channels at a strength. Layers that the
    scheme keeps in float have no error. Raises InferometerError when groups don't divide a width that is to be rounded.
    """
    layers = linear_layers(model)
    rounded = set(scheme.rounds(list(quantizable_layers(model))))
    scheme.check_widths(
        {name: weight_matrix(layers[name]).shape[1] for site in sites for name in site.layers if name in rounded}
    )
    found = []
    for site in sites:
        weights = [weight_matrix(layers[name]).float() for name in site.layers if name in rounded]
        rows = inputs[site.name]
        for alpha in ALPHAS:
            spread = site.spread(factors(site, alpha), rows.shape[1])
            found.append({"site": site.name, "alpha": alpha, "error": output_error(weights, rows, spread, scheme)})
    return pd.DataFrame(found)


def chosen_alphas(errors: pd.DataFrame, per: str) -> dict[str, float]:
    """The best strength of every site, each for itself (`site`) or one for the whole `model` by the mean error."""
    if per == "model":
        means = errors.pivot_table(index="alpha", values="error").reset_index()
        return dict.fromkeys(errors["site"].unique(), float(means["alpha"][means["error"].argmin()]))
    best = errors.loc[errors.groupby("site")["error"].idxmin()]
    return dict(zip(best["site"], best["alpha"], strict=True))
