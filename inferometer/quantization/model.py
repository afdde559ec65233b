"""Rounding a whole model by a scheme, block by block, for a while: it comes back unchanged.

Where rounding needs calibration text, each block sees what the rounded blocks before it make of the text, so that
compensation also makes up for their errors (Frantar et al. 2023, GPTQ, section 3.3). Only one block's statistics are in
memory at a time.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from inferometer.blocks import decoder_blocks, run_block
from inferometer.device import quick_products
from inferometer.errors import InferometerError
from inferometer.models import Linear, quantizable_layers, weight_matrix
from inferometer.quantization.bitsandbytes_layers import BitsandbytesLinear
from inferometer.quantization.gptq import round_with_compensation
from inferometer.quantization.grids import Parameters, Quantized
from inferometer.quantization.integer import ActivationCoder, integer_layer, why_not_coded, why_not_multiplied
from inferometer.quantization.noise import sqnr_db
from inferometer.quantization.simulated import ActivationRounder, SimulatedIntegerLinear, SimulatedLinear
from inferometer.rotation.hadamard import Rotation
from inferometer.rotation.online import RotatedInput, inputs_rotated
from inferometer.schemes import Activations, Scheme

_Input = ActivationRounder | ActivationCoder

WINDOWS_AT_ONCE = 4  # of calibration text: a pass ends after one block, so that starting it counts


@dataclass(frozen=True)
class QuantizedLayer:
    """A rounded layer in the place of a float one: the `module` that computes, what it stores, how far it is off.

    `reference` is the float layer with everything folded in; it reads the same inputs as `module`. `kernel` names what
    multiplies the codes, where codes are multiplied, and `inputs` is what rounds the layer's inputs. The noise of a
    weight that is left in float, or that only a library can read, is not a number.
    """

    module: nn.Module
    reference: Linear
    stored_bytes: int
    weight_sqnr_db: float
    kernel: str | None
    inputs: _Input | None


@dataclass
class _Inputs:
    """What calibration text brought to one tensor that layers read."""

    second_moments: Tensor
    rows: list[Tensor]


class _Recorder:
    """Collects the inputs of a block's layers: once for each tensor, whoever reads it."""

    def __init__(self, layers: Mapping[str, Linear], rotations: Mapping[str, Rotation], keep_rows: bool) -> None:
        self.inputs: dict[str, _Inputs] = {}
        self.reader_of: dict[str, str] = {}
        self._keep_rows = keep_rows
        self._last: tuple[Tensor, str] | None = None
        self._handles = [
            layer.register_forward_pre_hook(self._hook(name, rotations.get(name))) for name, layer in layers.items()
        ]

    def _hook(self, name: str, rotation: Rotation | None) -> Any:
        def record(_layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            values = arguments[0]
            if self._last is None or self._last[0] is not values:
                self._last = (values, name)
                rows = values.flatten(end_dim=-2)
                self._add(name, (rotation(rows) if rotation else rows).float())
            self.reader_of[name] = self._last[1]

        return record

    def _add(self, name: str, rows: Tensor) -> None:
        if name not in self.inputs:
            self.inputs[name] = _Inputs(rows.new_zeros(rows.shape[1], rows.shape[1]), [])
        self.inputs[name].second_moments.addmm_(rows.T, rows)
        if self._keep_rows:
            self.inputs[name].rows.append(rows)

    def reader(self, name: str) -> str:
        """The first layer that reads what a layer reads. Raises InferometerError when it never ran."""
        if name not in self.reader_of:
            raise InferometerError(
                f"layer {name} was never run on the calibration text; name it in the scheme's `keep`."
            )
        return self.reader_of[name]

    def of(self, name: str) -> _Inputs:
        """What a layer read. Raises InferometerError when it never ran."""
        return self.inputs[self.reader(name)]

    def remove(self) -> None:
        """Take the hooks off the model."""
        for handle in self._handles:
            handle.remove()


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
        self._static: dict[str, _Input] = {}

    def _input_of(self, activations: Activations, static: Parameters | None) -> _Input:
        if self._codes_multiply:
            codes = torch.int8 if self.scheme.engine == "integer" else torch.float32
            return ActivationCoder(activations.grid, static, codes)
        return ActivationRounder(activations.grid, static, activations.outlier_threshold)

    def _weights(self, layers: Mapping[str, Linear], recorder: _Recorder | None) -> dict[str, Quantized]:
        """The rounded weights of layers, by name; layers that read one input are compensated together."""
        if self.scheme.weights is None:
            return {}
        grid = self.scheme.weights.grid
        if self.scheme.weights.rounding == "nearest":
            return {name: grid.quantized(weight_matrix(layer)) for name, layer in layers.items()}
        assert recorder is not None
        found: dict[str, Quantized] = {}
        for reader in dict.fromkeys(recorder.reader(name) for name in layers):
            names = [name for name in layers if recorder.reader(name) == reader]
            floats = [weight_matrix(layers[name]).float() for name in names]
            rounded = round_with_compensation(floats, grid, recorder.of(reader).second_moments)
            found |= dict(zip(names, rounded, strict=True))
        return found

    def _inputs(self, name: str, recorder: _Recorder | None) -> _Input | None:
        """What rounds a layer's inputs; layers that read the same tensor share it."""
        activations = self.scheme.activations
        if activations is None or not activations.static:
            return self._dynamic
        assert recorder is not None
        reader = recorder.reader(name)
        if reader not in self._static:
            rows = torch.cat(recorder.of(name).rows)
            parameters = activations.grid.parameters(activations.grid.vectors(rows))
            self._static[reader] = self._input_of(activations, parameters)
        return self._static[reader]

    def layers(self, layers: Mapping[str, Linear], recorder: _Recorder | None) -> Iterator[tuple[str, QuantizedLayer]]:
        """Rounded layers in the place of float ones."""
        weights = self._weights(layers, recorder)
        for name, layer in layers.items():
            yield name, self._layer(layer, weights.get(name), self._inputs(name, recorder))

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
        return QuantizedLayer(module, layer, stored, sqnr_db(values, weight), kernel, inputs)


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

    def replace(layers: Mapping[str, Linear], recorder: _Recorder | None) -> None:
        for name, layer in rounding.layers(layers, recorder):
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


@torch.no_grad()
def _calibrated(
    model: PreTrainedModel,
    scheme: Scheme,
    windows: Sequence[Tensor],
    layers: Mapping[str, Linear],
    rotations: Mapping[str, Rotation],
    replace: Callable[[Mapping[str, Linear], _Recorder], None],
) -> None:
    """Round block after block, each on what the rounded blocks before make of the calibration text."""
    blocks = decoder_blocks(model)
    members = {block: {name: layers[name] for name in layers if name.startswith(f"{block}.")} for block in blocks}
    outside = [name for name in layers if not any(name in own for own in members.values())]
    if outside:
        raise InferometerError(
            f"layer {outside[0]} lies outside of the decoder blocks, where rounding can't be calibrated; "
            f"name it in `schemes.{scheme.name}.keep`."
        )
    keep_rows = scheme.activations is not None and scheme.activations.static
    tokens = torch.cat(list(windows)).to(model.device).split(WINDOWS_AT_ONCE)
    outputs: list[Any] = [None] * len(tokens)
    earlier: list[nn.Module] = []
    for name, block in blocks.items():
        recorder = _Recorder(members[name], rotations, keep_rows)
        try:
            with quick_products():
                for window, output in zip(tokens, outputs, strict=True):
                    run_block(model, earlier, output, block, window)
        finally:
            recorder.remove()
        replace(members[name], recorder)
        with quick_products():
            outputs = [
                run_block(model, earlier, output, block, window) for window, output in zip(tokens, outputs, strict=True)
            ]
        earlier.append(block)
