"""What compressed-tensors calls a scheme's grids, and which schemes it can't express.

Its vocabulary is that of `compressed_tensors.quantization` (QuantizationArgs, QuantizationScheme, QuantizationConfig):
https://github.com/vllm-project/compressed-tensors.
"""

from collections.abc import Iterator
from typing import Any, TypeGuard

import torch
from compressed_tensors.compressors.format import infer_module_format
from compressed_tensors.quantization import (
    QuantizationArgs,
    QuantizationConfig,
    QuantizationScheme,
    QuantizationStatus,
)
from torch import nn

from inferometer.errors import InferometerError
from inferometer.quantization.floats import FloatGrid
from inferometer.quantization.formats import BLOCKS
from inferometer.quantization.grids import Grid, IntegerGrid
from inferometer.schemes import Activations, Scheme, Weights

STRATEGIES = {"per_tensor": "tensor", "per_channel": "channel", "per_token": "token", "per_group": "group"}
BLOCK_SCALES = {"mxfp8": torch.uint8, "mxfp4": torch.uint8, "nvfp4": torch.float8_e4m3fn}
MOST_BITS = 8  # of a weight's code, as far as the format packs them
SYMMETRIC_INPUT_BITS = 8  # with fewer, the step that the format takes instead of ours is another grid


def check_exportable(scheme: Scheme, dtype: torch.dtype) -> None:
    """Raise InferometerError, with the key and the reason, where the format can't hold what the scheme does.

    `dtype` is the one that the model is loaded in.
    """
    for key, reason in _refusals(scheme, dtype):
        raise InferometerError(f"configuration key `schemes.{scheme.name}.{key}` keeps it from export: {reason}.")


def _refusals(scheme: Scheme, dtype: torch.dtype) -> Iterator[tuple[str, str]]:
    if scheme.bitsandbytes_format is not None:
        yield "engine", "layers of bitsandbytes lie in that library's own format; export a scheme of another engine"
    if scheme.rotation_seed is not None:
        yield (
            "rotation",
            "what some layers read is rotated as the model runs, which transformers does not do for such checkpoints; "
            "export a scheme without it",
        )
    if scheme.weights is not None:
        yield from _weight_refusals(scheme.weights, scheme.activations, dtype)
    if scheme.activations is not None:
        if scheme.weights is None:
            yield "activations", "compressed-tensors stores rounded weights, and the scheme has none; add `weights`"
        yield from _input_refusals(scheme.activations)


def _weight_refusals(
    weights: Weights, activations: Activations | None, dtype: torch.dtype
) -> Iterator[tuple[str, str]]:
    grid = weights.grid
    if isinstance(grid, IntegerGrid) and grid.bits > MOST_BITS:
        yield "weights.bits", f"codes of at most {MOST_BITS} bits can be packed, and it is {grid.bits}"
    if isinstance(grid, FloatGrid) and grid.format == "fp8_e5m2":
        yield "weights.format", "compressed-tensors has fp8_e4m3 and no fp8_e5m2; use that"
    if not _in_blocks(grid) or dtype == torch.bfloat16:
        return
    # Powers of two take values of MX formats to others that bfloat16 holds; they may be cast once they are decoded.
    if grid.format == "nvfp4" or activations is not None:
        yield (
            "weights.format",
            f"the format's library decodes {grid.format} to bfloat16; set the `dtype` of the model to bfloat16",
        )


def _in_blocks(grid: Grid) -> TypeGuard[FloatGrid]:
    return isinstance(grid, FloatGrid) and grid.format in BLOCKS


def _input_refusals(activations: Activations) -> Iterator[tuple[str, str]]:
    grid = activations.grid
    if activations.outlier_threshold is not None:
        yield "activations.outlier_threshold", "compressed-tensors rounds all channels or none; leave it out"
    if isinstance(grid, FloatGrid):
        if grid.format == "fp8_e5m2":
            yield "activations.format", "compressed-tensors has fp8_e4m3 and no fp8_e5m2; use that"
        elif grid.format in BLOCKS:
            yield (
                "activations.format",
                f"compressed-tensors takes scales of {grid.format} from inputs by another rule; round weights only",
            )
    if not isinstance(grid, IntegerGrid):
        return
    if grid.clip != "absmax" and not activations.static:
        yield "activations.clip", "compressed-tensors lets dynamic grids reach to the largest value; use absmax"
    if grid.symmetric and grid.bits < SYMMETRIC_INPUT_BITS:
        yield (
            "activations.symmetric",
            f"symmetric codes of {grid.bits} bits reach one further down in compressed-tensors, which makes another "
            "grid of so few; set it to false",
        )


def arguments_of(grid: Grid, dynamic: bool) -> QuantizationArgs:
    """A grid in the format's words; `dynamic` grids take their scales from the values that they meet."""
    block_scale = BLOCK_SCALES.get(grid.format) if isinstance(grid, FloatGrid) else None
    # NVFP4 has a scale for the tensor besides those of its blocks.
    strategy = "tensor_group" if block_scale == torch.float8_e4m3fn else STRATEGIES[grid.granularity]
    return QuantizationArgs(
        num_bits=grid.bits,
        type="int" if isinstance(grid, IntegerGrid) else "float",
        symmetric=not isinstance(grid, IntegerGrid) or grid.symmetric,
        strategy=strategy,
        group_size=grid.group_size,
        dynamic=dynamic,
        scale_dtype=block_scale,
    )


def layer_scheme(scheme: Scheme) -> QuantizationScheme:
    """What the format says of every rounded layer: its grids, and the format of storage that its library infers."""
    assert scheme.weights is not None
    activations = scheme.activations
    described = QuantizationScheme(
        targets=["Linear"],
        weights=arguments_of(scheme.weights.grid, dynamic=False),
        input_activations=arguments_of(activations.grid, not activations.static) if activations else None,
    )
    described.format = infer_module_format(nn.Linear, described)
    return described


def quantization_config(described: QuantizationScheme, ignored: list[str]) -> dict[str, Any]:
    """The `quantization_config` of config.json; `ignored` names the linear layers that stay in float.

    Where only weights are rounded, transformers is told to decode them as it loads (`dequantize`), not before the first
    pass. Else compressed-tensors 0.20 makes room for unpacked zero points and can't load packed ones.
    """
    config = QuantizationConfig(
        config_groups={"group_0": described},
        format=described.format.value,
        quantization_status=QuantizationStatus.COMPRESSED,
        ignore=ignored,
    )
    entry: dict[str, Any] = config.model_dump(mode="json")
    return entry | {"dequantize": True} if described.input_activations is None else entry


def loaded_dtype(scheme: Scheme, dtype: torch.dtype) -> torch.dtype:
    """The dtype that the exported model is to be loaded in, given the one that it has.

    Codes become values in the dtype of their scales, which are loaded in that of the model. Those of integer and FP8
    grids are float32 numbers, which no other dtype holds.
    """
    return dtype if scheme.weights is None or _in_blocks(scheme.weights.grid) else torch.float32
