"""One rounded layer as the tensors that compressed-tensors stores: our own codes and scales, packed as it packs.

Its compressors would round again. They are only asked to decode what was written, as a proof.
"""

import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.compressors.nvfp4.helpers import pack_fp4_to_uint8
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from compressed_tensors.config import CompressionFormat
from compressed_tensors.quantization import QuantizationScheme
from torch import Tensor

from inferometer.errors import InferometerError
from inferometer.quantization.floats import E4M3, FLOAT32_SIGNIFICAND_BITS, FloatGrid
from inferometer.quantization.grids import Grid, IntegerGrid, Parameters
from inferometer.quantization.model import QuantizedLayer
from inferometer.quantization.simulated import SimulatedIntegerLinear, SimulatedLinear

BFLOAT16_STEP = 2.0**-7  # between neighbours, relative to the smaller one


def layer_tensors(name: str, layer: QuantizedLayer, grid: Grid, described: QuantizationScheme) -> dict[str, Tensor]:
    """The tensors of a rounded layer by their names in the layer; `grid` is that of its weight.

    Raises InferometerError when the format's library would decode them to other weights than the layer has. Those of
    NVFP4 may be neighbours in bfloat16: the format divides by the tensor's scale where ours multiplies, and the two
    round a tie to different sides.
    """
    assert isinstance(layer.module, SimulatedLinear | SimulatedIntegerLinear)
    assert layer.parameters is not None
    values, parameters = layer.module.weight.detach(), layer.parameters
    tensors = _weight_tensors(_codes(values, grid, parameters), grid, parameters, described.format)
    _check_decoding(name, tensors, described, values)
    if layer.inputs is not None and layer.inputs.static is not None:
        tensors |= _input_tensors(layer.inputs.grid, layer.inputs.static)
    # Layers that read one input share its scale, which the file must hold for each.
    return {own: tensor.cpu().contiguous().clone() for own, tensor in tensors.items()}


def _codes(values: Tensor, grid: Grid, parameters: Parameters) -> Tensor:
    """The codes [outputs, inputs] that a layer's rounded weight came from.

    A value lies off its code by the rounding of the model's dtype, which is less than half a step, so that the nearest
    code is its own.
    """
    return grid.nearest(grid.vectors(values.float()), parameters).reshape(values.shape)


def _weight_tensors(codes: Tensor, grid: Grid, parameters: Parameters, storage: CompressionFormat) -> dict[str, Tensor]:
    if isinstance(grid, FloatGrid):
        return _float_tensors(codes, grid, _scales(parameters.scale, grid))
    assert isinstance(grid, IntegerGrid)
    whole, zero_point = _signed(codes, grid), parameters.zero_point
    tensors = {"weight_scale": _scales(parameters.scale, grid)}
    if zero_point is not None:
        tensors["weight_zero_point"] = _scales(_signed(zero_point, grid), grid)
    if storage != CompressionFormat.pack_quantized:
        return {"weight": whole, **tensors}
    if zero_point is not None and grid.granularity != "per_tensor":
        tensors["weight_zero_point"] = pack_to_int32(tensors["weight_zero_point"], grid.bits, packed_dim=0)
    shape = torch.tensor(codes.shape)
    return {"weight_packed": pack_to_int32(whole, grid.bits), "weight_shape": shape, **tensors}


def _float_tensors(codes: Tensor, grid: FloatGrid, scale: Tensor) -> dict[str, Tensor]:
    match grid.format:
        case "nvfp4":
            # The largest block has the largest scale that there is.
            inverse = E4M3.largest / scale.amax()
            return {
                "weight_packed": pack_fp4_to_uint8(codes),
                "weight_scale": (scale * inverse).to(torch.float8_e4m3fn),
                "weight_global_scale": inverse.reshape(1),
            }
        case "mxfp4":
            return {"weight_packed": pack_fp4_to_uint8(codes), "weight_scale": _exponents(scale)}
        case "mxfp8":
            return {"weight": codes.to(torch.float8_e4m3fn), "weight_scale": _exponents(scale)}
        case _:
            return {"weight": codes.to(torch.float8_e4m3fn), "weight_scale": scale}


def _exponents(powers: Tensor) -> Tensor:
    """Powers of two as E8M0, which is the exponent of a float32 as its bits hold it (OCP MX 1.0, section 5.4.1)."""
    return (powers.view(torch.int32) >> FLOAT32_SIGNIFICAND_BITS).to(torch.uint8)


def _scales(shared: Tensor, grid: Grid) -> Tensor:
    """What vectors share, in the format's shapes: [1], [outputs, 1] or [outputs, groups]."""
    match grid.granularity:
        case "per_tensor":
            return shared.reshape(1)
        case "per_group":
            return shared.squeeze(-1).contiguous()
        case _:
            return shared


def _signed(codes: Tensor, grid: IntegerGrid) -> Tensor:
    """Codes in the format's range -2^(b-1) ... 2^(b-1) - 1: those of asymmetric grids are moved down to it."""
    shifted = codes if grid.symmetric else codes - 2 ** (grid.bits - 1)
    return shifted.to(torch.int8 if grid.bits <= 8 else torch.int16)


def _input_tensors(grid: Grid, static: Parameters) -> dict[str, Tensor]:
    tensors = {"input_scale": static.scale.reshape(1)}
    if static.zero_point is not None:
        assert isinstance(grid, IntegerGrid)
        tensors["input_zero_point"] = _signed(static.zero_point, grid).reshape(1)
    return tensors


def _check_decoding(name: str, tensors: dict[str, Tensor], described: QuantizationScheme, expected: Tensor) -> None:
    compressor = BaseCompressor.get_value_from_registry(described.format.value)
    decoded = compressor.decompress(tensors, described)["weight"].to(expected.dtype)
    tolerance = BFLOAT16_STEP if "weight_global_scale" in tensors else 0
    if not torch.allclose(decoded, expected, rtol=tolerance, atol=0):
        raise InferometerError(
            f"layer {name} can't be exported: compressed-tensors decodes its codes to other weights than were "
            "measured; name it in the scheme's `keep`."
        )
