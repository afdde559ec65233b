"""Smoothing factors, and folding them into a model."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from transformers import PreTrainedModel

from inferometer.folding import Change
from inferometer.models import linear_layers, weight_matrix
from inferometer.smoothing.producers import linear_changes, oriented
from inferometer.smoothing.site import Site

SMALLEST = 1e-5  # the reference's clamp, for weight ranges and for factors


def smoothing_factors(activation_absmax: Tensor, weights: list[Tensor], alpha: float) -> Tensor:
    """s = absmax(X)^alpha / absmax(W)^(1 - alpha) for each input channel (Xiao et al. 2023, SmoothQuant, eq. 4).

    `activation_absmax` is [channels]; `weights` are the matrices [outputs, channels] of all layers that read the
    site, whose ranges are taken together. Returns float32 [channels], at least 1e-5.
    """
    weight_absmax = torch.stack([weight.abs().amax(dim=0) for weight in weights]).amax(dim=0).clamp(min=SMALLEST)
    factors = activation_absmax.float().pow(alpha) / weight_absmax.float().pow(1 - alpha)
    return factors.clamp(min=SMALLEST)


def activation_aware_factors(activation_size: Tensor, alpha: float) -> Tensor:
    """s = size(X)^alpha for each input channel, centred on 1 (Lin et al. 2024, AWQ, eq. 5 and its reference code).

    `activation_size` is the mean magnitude [channels]. Channels with large inputs get a finer share of the weight grid.
    """
    factors = activation_size.float().clamp(min=SMALLEST).pow(alpha)
    return (factors / (factors.amax() * factors.amin()).sqrt()).clamp(min=SMALLEST)


def folding_changes(model: PreTrainedModel, sites: list[Site], factors: Mapping[str, Tensor]) -> Iterator[Change]:
    """Every parameter that folding the `factors` [channels] of the sites, by site name, changes."""
    layers = linear_layers(model)
    for site in sites:
        factor = factors[site.name].to(model.device)
        if site.offset is None:
            yield from linear_changes(layers[site.name], [layers[name] for name in site.layers], site, factor)
            continue
        norm = model.get_submodule(site.name)
        yield norm, "weight", (site.offset + norm.get_parameter("weight").float()) / factor - site.offset
        if getattr(norm, "bias", None) is not None:
            yield norm, "bias", norm.get_parameter("bias").float() / factor
        for name in site.layers:
            yield layers[name], "weight", oriented(layers[name], weight_matrix(layers[name]).float() * factor)
