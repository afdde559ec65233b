"""Smoothing factors, and folding them into a model for a while without a trace."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from inferometer.models import linear_layers, weight_matrix
from inferometer.smoothing.sites import Site

SMALLEST = 1e-5  # the reference's clamp, for weight ranges and for factors


def smoothing_factors(activation_absmax: Tensor, weights: list[Tensor], alpha: float) -> Tensor:
    """s = absmax(X)^alpha / absmax(W)^(1 - alpha) for each input channel (Xiao et al. 2023, SmoothQuant, eq. 4).

    `activation_absmax` is [channels]; `weights` are the matrices [outputs, channels] of all layers that read the
    site, whose ranges are taken together. Returns float32 [channels], at least 1e-5.
    """
    weight_absmax = torch.stack([weight.abs().amax(dim=0) for weight in weights]).amax(dim=0).clamp(min=SMALLEST)
    factors = activation_absmax.float().pow(alpha) / weight_absmax.float().pow(1 - alpha)
    return factors.clamp(min=SMALLEST)


def site_factors(
    model: PreTrainedModel, sites: list[Site], activation_absmax: Mapping[str, Tensor], alpha: float
) -> dict[str, Tensor]:
    """The factors [channels] of every site, by site name; `activation_absmax` is by linear layer name."""
    layers = linear_layers(model)
    return {
        site.name: smoothing_factors(
            activation_absmax[site.layers[0]].to(model.device),
            [weight_matrix(layers[name]) for name in site.layers],
            alpha,
        )
        for site in sites
    }


def _folded_parameters(
    model: PreTrainedModel, sites: list[Site], factors: Mapping[str, Tensor]
) -> Iterator[tuple[nn.Module, str, Tensor]]:
    layers = linear_layers(model)
    for site in sites:
        norm, factor = model.get_submodule(site.name), factors[site.name]
        gain = norm.get_parameter("weight").float()
        yield norm, "weight", (site.offset + gain) / factor - site.offset
        if getattr(norm, "bias", None) is not None:
            yield norm, "bias", norm.get_parameter("bias").float() / factor
        for name in site.layers:
            layer = layers[name]
            spread = factor[:, None] if isinstance(layer, Conv1D) else factor
            yield layer, "weight", layer.weight.float() * spread


@contextmanager
def smoothed(model: PreTrainedModel, sites: list[Site], factors: Mapping[str, Tensor]) -> Iterator[None]:
    """Run the block with the factors folded into norms and layers; afterwards the very same tensors are back."""
    own: list[tuple[nn.Module, str, nn.Parameter]] = []
    try:
        for module, name, value in _folded_parameters(model, sites, factors):
            parameter = module.get_parameter(name)
            own.append((module, name, parameter))
            setattr(module, name, nn.Parameter(value.to(parameter.dtype), requires_grad=False))
        yield
    finally:
        for module, name, parameter in reversed(own):  # of a tensor folded twice, the first is the model's own
            setattr(module, name, parameter)
