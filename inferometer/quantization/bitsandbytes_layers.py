"""Linear layers of the library bitsandbytes: LLM.int8() and NF4, as its users run them.

The library is imported when the first layer is built, since that takes seconds.
"""

import logging
from collections.abc import Iterator
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor, nn

Format = Literal["llm_int8", "nf4"]

OUTLIER_THRESHOLD = 6.0  # Dettmers et al. 2022, LLM.int8(), section 3.2
NF4_BLOCK = 64  # values that share a scale
PACKED_OUTPUTS = 32  # the library packs so many together where the processor multiplies bfloat16, and asserts it
PROBE_SIZE = 64


@cache
def _library() -> Any:
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it would warn at each call that it casts the inputs
    import bitsandbytes

    return bitsandbytes


def _int8_layer(weight: Tensor, has_bias: bool) -> Any:
    own = _library().nn
    outputs, inputs = weight.shape
    layer = own.Linear8bitLt(
        inputs, outputs, bias=has_bias, has_fp16_weights=False, threshold=OUTLIER_THRESHOLD, device="meta"
    )
    layer.weight = own.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    return layer


def _nf4_layer(weight: Tensor, has_bias: bool) -> Any:
    own = _library().nn
    outputs, inputs = weight.shape
    layer = own.Linear4bit(inputs, outputs, bias=has_bias, compute_dtype=weight.dtype, quant_type="nf4", device="meta")
    layer.weight = own.Params4bit(weight, requires_grad=False, blocksize=NF4_BLOCK, quant_type="nf4", module=layer)
    if outputs % PACKED_OUTPUTS:
        layer.support_avx512bf16_for_cpu = False  # its faster path would fail on this shape instead of being left out
    return layer


class BitsandbytesLinear(nn.Module):
    """A layer of the library, built from a float weight [outputs, inputs] on the device where that lies.

    `llm_int8` is Linear8bitLt, which takes inputs of magnitude 6 and above out of the integer product; `nf4` is
    Linear4bit with nested scales, computing in the dtype of the weight, or in bfloat16 where the library has a faster
    path for that on the processor. `kernel` says which it is.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, format: Format) -> None:
        super().__init__()
        self.outputs, inputs = weight.shape
        # On a CPU, version 0.50.2 takes scales from the wrong block of `nf4` where blocks cross the ends of rows.
        self._padding = (0, -inputs % NF4_BLOCK if format == "nf4" else 0)
        weight = nn.functional.pad(weight, self._padding)
        build = {"llm_int8": _int8_layer, "nf4": _nf4_layer}[format]
        layer = build(weight.detach().clone(memory_format=torch.contiguous_format), bias is not None)
        layer.bias = None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=False)
        self.layer: Any = layer.to(weight.device).eval()  # moving the layer is what makes the library quantize
        self.layer(weight.new_zeros(1, weight.shape[1]))  # and the first call is what brings it into its final form

    def forward(self, values: Tensor) -> Tensor:
        """As nn.Linear: [..., inputs] to [..., outputs]."""
        rows = values.reshape(-1, values.shape[-1])  # the library takes no single vectors
        rows = nn.functional.pad(rows, self._padding)
        output: Tensor = self.layer(rows) if len(rows) else values.new_empty(0, self.outputs)
        return output.reshape(*values.shape[:-1], self.outputs)

    @property
    def kernel(self) -> str:
        """What multiplies, by name."""
        state = getattr(self.layer.weight, "quant_state", None)
        if state is None:
            return "bitsandbytes int8"
        packed = getattr(state, "packing_format_for_cpu", False)
        dtype = torch.bfloat16 if packed else self.layer.compute_dtype
        return f"bitsandbytes nf4 in {str(dtype).removeprefix('torch.')}"

    @property
    def stored_bytes(self) -> int:
        """Exact bytes of the codes and of all that is needed to read them; the bias is not counted."""
        held = [self.layer.weight.data, *_state(self.layer)]
        return sum(tensor.nbytes for tensor in {tensor.data_ptr(): tensor for tensor in held}.values())


def _state(layer: Any) -> Iterator[Tensor]:
    """The tensors that a layer's codes are read with: scales, code books, and those of the scales themselves."""
    holders = [getattr(layer, "state", None), getattr(layer.weight, "quant_state", None)]
    holders += [getattr(holders[1], "state2", None)]
    names = ("CB", "SCB", "absmax", "code", "offset")
    for holder in holders:
        yield from (value for name in names if isinstance(value := getattr(holder, name, None), Tensor))


@cache
def reason_not_available(device: torch.device) -> str | None:
    """Why the library can't run on a device, in one sentence, or None where it can; a small layer is tried."""
    try:
        weight = torch.eye(PROBE_SIZE, device=device)
        for format in ("llm_int8", "nf4"):
            output = BitsandbytesLinear(weight, None, format)(weight)
            if not torch.allclose(output, weight, atol=0.02):
                return f"The library bitsandbytes computes wrong numbers on {device.type} (format {format})."
    except (ImportError, OSError, RuntimeError, NotImplementedError, AttributeError, AssertionError) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        return f"The library bitsandbytes does not run on {device.type} here: {said}"
    return None
