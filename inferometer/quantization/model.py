"""Rounding a whole model by a scheme, block by block, for a while: it comes back unchanged.

Where rounding needs calibration text, each layer sees what the rounded layers before it make of the text, so that
compensation also makes up for their errors (Frantar et al. 2023, GPTQ, section 3.3, which goes by blocks). Only one
layer's statistics are in memory at a time.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from inferometer.blocks import decoder_blocks, run_block
from inferometer.device import exact_products, quick_products
from inferometer.errors import InferometerError
from inferometer.models import Linear, quantizable_layers, weight_matrix
from inferometer.quantization.bitsandbytes_layers import BitsandbytesLinear
from inferometer.quantization.gptq import round_with_compensation, second_moments_of
from inferometer.quantization.grids import Parameters, Quantized
from inferometer.quantization.integer import ActivationCoder, integer_layer, why_not_coded, why_not_multiplied
from inferometer.quantization.noise import sqnr_db
from inferometer.quantization.simulated import ActivationRounder, SimulatedIntegerLinear, SimulatedLinear
from inferometer.rotation.hadamard import Rotation
from inferometer.rotation.online import RotatedInput, inputs_rotated
from inferometer.schemes import Activations, Scheme

_Input = ActivationRounder | ActivationCoder

ROWS_AT_ONCE = 2048  # of calibration text, of which a copy in float32 is made


@dataclass(frozen=True)
class QuantizedLayer:
    """A rounded layer in the place of a float one: the `module` that computes, what it stores, how far it is off.

    `reference` is the float layer with everything folded in; it reads the same inputs as `module`. `kernel` names what
    multiplies the codes, where codes are multiplied, `inputs` is what rounds the layer's inputs, and `parameters` are
    the weight's on its grid. The noise of a weight that is left in float, or that only a library can read, is not a
    number.
    """

    module: nn.Module
    reference: Linear
    stored_bytes: int
    weight_sqnr_db: float
    kernel: str | None
    inputs: _Input | None
    parameters: Parameters | None = None


@dataclass(frozen=True)
class _Inputs:
    """What calibration text brought to a tensor that layers read: its rows [tokens, inputs], rotated as it comes."""

    values: Tensor
    rotation: Rotation | None

    def rows(self) -> Iterator[Tensor]:
        """The rows in float32, part by part."""
        for part in self.values.flatten(end_dim=-2).split(ROWS_AT_ONCE):
            yield (self.rotation(part) if self.rotation else part).float()


class _Awaiting(nn.Module):
    """A float layer that is rounded, with all that read the same tensor, as soon as calibration text reaches it."""

    def __init__(self, layer: Linear, reached: Callable[[Tensor], nn.Module]) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias  # where a model asks for their dtype or device
        self._reached = reached

    def forward(self, values: Tensor) -> Tensor:
        """What the rounded layer makes of the text."""
        output: Tensor = self._reached(values)(values)
        return output


def _has_integer_product(scheme: Scheme) -> bool:
    weights, activations = scheme.weights, scheme.activations
    if weights is None or activations is None or activations.outlier_threshold is not None:
        return False
    return not why_not_multiplied(weights.grid) and not why_not_coded(activations.grid, static=activations.static)


class _Rounding:
    """Turns float layers into rounded ones by a scheme."""

    def __init__(self, scheme: Scheme) -> None:
        self.scheme = scheme
        self._codes_multiply = scheme.engine == "integer" or _has_integer_product(scheme)
        activations = scheme.activations
        self._dynamic = None if activations is None or activations.static else self._input_of(activations, None)

    def _input_of(self, activations: Activations, static: Parameters | None) -> _Input:
        if self._codes_multiply:
            codes = torch.int8 if self.scheme.engine == "integer" else torch.float32
            return ActivationCoder(activations.grid, static, codes)
        return ActivationRounder(activations.grid, static, activations.outlier_threshold)

    def _weights(self, layers: Mapping[str, Linear], inputs: _Inputs | None) -> dict[str, Quantized]:
        """The rounded weights of layers, by name; those that are compensated all read the same `inputs`."""
        if self.scheme.weights is None:
            return {}
        grid = self.scheme.weights.grid
        if self.scheme.weights.rounding == "nearest":
            return {name: grid.quantized(weight_matrix(layer)) for name, layer in layers.items()}
        assert inputs is not None
        floats = [weight_matrix(layer).float() for layer in layers.values()]
        with quick_products():
            moments = second_moments_of(inputs.rows())
        return dict(zip(layers, round_with_compensation(floats, grid, moments), strict=True))

    def _rounder(self, inputs: _Inputs | None) -> _Input | None:
        """What rounds the inputs of layers that read the same tensor."""
        activations = self.scheme.activations
        if activations is None or not activations.static:
            return self._dynamic
        assert inputs is not None
        rows = torch.cat(list(inputs.rows()))
        return self._input_of(activations, activations.grid.parameters(activations.grid.vectors(rows)))

    def layers(self, layers: Mapping[str, Linear], inputs: _Inputs | None) -> Iterator[tuple[str, QuantizedLayer]]:
        """Rounded layers in the place of float ones; where that takes calibration, all read the same `inputs`."""
        weights, rounder = self._weights(layers, inputs), self._rounder(inputs)
        for name, layer in layers.items():
            yield name, self._layer(layer, weights.get(name), rounder)

    def _layer(self, layer: Linear, rounded: Quantized | None, inputs: _Input | None) -> QuantizedLayer:
        weight, library = weight_matrix(layer), self.scheme.bitsandbytes_format
        if library is not None:
            own = BitsandbytesLinear(weight, layer.bias, library)
            return QuantizedLayer(own, layer, own.stored_bytes, math.nan, own.kernel, None)
        if rounded is None:
            assert not isinstance(inputs, ActivationCoder)
            module: nn.Module = SimulatedLinear(weight, layer.bias, inputs)
            return QuantizedLayer(module, layer, weight.nbytes, math.nan, None, inputs)
        stored, kernel = rounded.grid.bytes_of(weight.shape), None
        if self.scheme.engine == "integer":
            assert not isinstance(inputs, ActivationRounder)
            module = integer_layer(rounded, layer.bias, inputs, weight.dtype)
            stored, kernel, values = module.stored_bytes, module.kernel, rounded.values()
        elif isinstance(inputs, ActivationCoder):
            module = SimulatedIntegerLinear(rounded, layer.bias, inputs, weight.dtype)
            values = module.weight
        else:
            values = rounded.values().to(weight.dtype)
            module = SimulatedLinear(values, layer.bias, inputs)
        return QuantizedLayer(module, layer, stored, sqnr_db(values, weight), kernel, inputs, rounded.parameters)


def rounded_layer(layer: Linear, scheme: Scheme) -> nn.Module:
    """One float layer as a scheme without calibration rounds it."""
    [(_, rounded)] = _Rounding(scheme).layers({"layer": layer}, None)
    return rounded.module


@contextmanager
def quantized(
    model: PreTrainedModel, scheme: Scheme, windows: Sequence[Tensor], rotations: Mapping[str, Rotation]
) -> Iterator[dict[str, QuantizedLayer]]:
    """Run the block with the model's decoder rounded by a scheme; gives the rounded layers by name.

    `windows` of token ids [1, tokens], of one length, are the calibration text, for schemes that need it; `rotations`
    say what is to be done to the inputs of layers whose weights are rotated already, in the model's dtype. Afterwards
    the very same modules and tensors are back in place, so one loaded model serves many schemes. Raises
    InferometerError when a layer can't be calibrated, or its width not be parted into groups.
    """
    floats = quantizable_layers(model)
    names = scheme.rounds(list(floats)) if scheme.quantizes else []
    scheme.check_widths({name: weight_matrix(floats[name]).shape[1] for name in names})
    rounding = _Rounding(scheme)
    done: dict[str, QuantizedLayer] = {}

    def replace(layers: Mapping[str, Linear], inputs: _Inputs | None) -> None:
        for name, layer in rounding.layers(layers, inputs):
            done[name] = layer
            own = layer.module
            model.set_submodule(name, RotatedInput(rotations[name], own) if name in rotations else own)

    layers = {name: floats[name] for name in names}
    with inputs_rotated(model, {name: rotations[name] for name in rotations if name not in layers}):
        try:
            if scheme.calibrates:
                _calibrated(model, scheme, windows, layers, rotations, replace)
            else:
                replace(layers, None)
            yield done
        finally:
            for name, layer in layers.items():
                model.set_submodule(name, layer)


def _readers(model: PreTrainedModel, layers: Mapping[str, Linear], token: Tensor) -> dict[str, list[str]]:
    """For each layer all that read the same tensor, by one `token` [1, 1]; those that it does not reach stand alone."""
    groups: dict[str, list[str]] = {name: [name] for name in layers}
    last: list[tuple[Tensor, list[str]]] = []

    def read(name: str, values: Tensor) -> None:
        if not last or last[-1][0] is not values:
            last[:] = [(values, [])]
        last[-1][1].append(name)
        groups[name] = last[-1][1]

    handles = [
        layer.register_forward_pre_hook(lambda _layer, arguments, name=name: read(name, arguments[0]))
        for name, layer in layers.items()
    ]
    try:
        model(token)
    finally:
        for handle in handles:
            handle.remove()
    return groups


@torch.no_grad()
def _calibrated(
    model: PreTrainedModel,
    scheme: Scheme,
    windows: Sequence[Tensor],
    layers: Mapping[str, Linear],
    rotations: Mapping[str, Rotation],
    replace: Callable[[Mapping[str, Linear], _Inputs], None],
) -> None:
    """Round layer after layer, each on what the rounded layers before it make of the calibration text.

    All of the text goes through a block at once, so that one pass reaches every layer when those before are rounded.
    """
    blocks = decoder_blocks(model)
    members = {block: {name: layers[name] for name in layers if name.startswith(f"{block}.")} for block in blocks}
    outside = [name for name in layers if not any(name in own for own in members.values())]
    if outside:
        raise InferometerError(
            f"layer {outside[0]} lies outside of the decoder blocks, where rounding can't be calibrated; "
            f"name it in `schemes.{scheme.name}.keep`."
        )
    tokens = torch.cat(list(windows)).to(model.device)
    readers = _readers(model, layers, tokens[:1, :1])

    def reached(name: str, values: Tensor) -> nn.Module:
        with exact_products():
            replace({own: layers[own] for own in readers[name]}, _Inputs(values, rotations.get(name)))
        return model.get_submodule(name)

    output: Any = None
    earlier: list[nn.Module] = []
    for block_name, block in blocks.items():
        own = members[block_name]
        for name, layer in own.items():
            model.set_submodule(name, _Awaiting(layer, partial(reached, name)))
        with quick_products():
            output = run_block(model, earlier, output, block, tokens)
        for name in own:
            if isinstance(model.get_submodule(name), _Awaiting):
                raise InferometerError(
                    f"layer {name} was never run on the calibration text; name it in the scheme's `keep`."
                )
        earlier.append(block)
