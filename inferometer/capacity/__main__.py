"""The command line: what a model needs and how many requests fit, without torch.

python -m inferometer.capacity --model llama-3-8b --gpu h100-80gb --context 8192 --tensor-parallel 4
"""

import argparse
import json
import sys
from collections.abc import Sequence

from inferometer.capacity.catalogue import Gpu, find_shape, gpu, gpu_names, model_names, model_source
from inferometer.capacity.fit import Deployment, Fit, fit
from inferometer.capacity.shapes import Shape
from inferometer.capacity.storage import (
    DTYPE_BYTES,
    kv_bytes_per_request,
    kv_bytes_per_token,
    weight_bytes,
)
from inferometer.errors import InferometerError
from inferometer.units import GIB

KV_BITS = (16, 8, 4, 2)


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m inferometer.capacity",
        description="Parameters, bytes and the largest batch of a model on a GPU, from its configuration alone.",
    )
    parser.add_argument(
        "--model",
        required=True,
        help=f"one of {', '.join(model_names())}; a config.json or its folder; or owner/name[@commit] on the hub",
    )
    parser.add_argument("--gpu", required=True, help=f"one of {', '.join(gpu_names())}")
    parser.add_argument("--context", type=int, required=True, help="tokens of each request")
    parser.add_argument("--tensor-parallel", type=int, default=1, help="GPUs that share every layer (default 1)")
    parser.add_argument("--pipeline-parallel", type=int, default=1, help="stages with layers of their own (default 1)")
    parser.add_argument("--dtype", choices=DTYPE_BYTES, default="bfloat16", help="of the weights (default bfloat16)")
    parser.add_argument("--kv-bits", type=int, choices=KV_BITS, default=16, help="of the KV cache (default 16)")
    parser.add_argument("--overhead-gib", type=float, default=0.0, help="GiB of each GPU that is not at hand")
    parser.add_argument("--reserve", type=float, default=0.0, help="share of memory lost to fragmentation, 0 to 1")
    parser.add_argument("--workspace-tokens", type=int, default=0, help="tokens in a pass, for activations (default 0)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args(arguments)


def _facts(name: str, shape: Shape, device: Gpu, plan: Deployment, found: Fit) -> dict[str, object]:
    """All that is printed, by name with unit."""
    return {
        "model": name,
        "model_source": model_source(name) if name in model_names() else name,
        "gpu": device.name,
        "gpu_source": device.source,
        "gpus": plan.tensor_parallel * plan.pipeline_parallel,
        "tensor_parallel": plan.tensor_parallel,
        "pipeline_parallel": plan.pipeline_parallel,
        "context_tokens": plan.context_tokens,
        "parameters": shape.parameters,
        "active_parameters": shape.active_parameters,
        "dtype": plan.dtype,
        "weights_gib": weight_bytes(shape, plan.dtype, {}).total_bytes / GIB,
        "kv_bits": plan.kv_bits,
        "kv_bytes_per_token": kv_bytes_per_token(shape, plan.kv_bits),
        "kv_gib_per_request": kv_bytes_per_request(shape, plan.context_tokens, plan.kv_bits) / GIB,
        "memory_gib_per_gpu": device.memory_gib,
        "available_gib_per_gpu": found.available_bytes_per_gpu / GIB,
        "weights_gib_per_gpu": found.weights_bytes_per_gpu / GIB,
        "workspace_gib_per_gpu": found.workspace_bytes_per_gpu / GIB,
        "kv_gib_per_request_per_gpu": found.kv_bytes_per_request_per_gpu / GIB,
        "largest_batch": found.largest_batch,
        "shortfall_gib": found.shortfall_bytes / GIB,
        "replicated": list(found.replicated),
    }


def _shown(value: object) -> str:
    match value:
        case int():
            return f"{value:,}"
        case float():
            return f"{value:,.3f}"
        case list():
            return ", ".join(value) or "nothing"
        case _:
            return str(value)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table or JSON; returns 1 after a sentence on standard error where the input is at fault."""
    given = _arguments(arguments)
    plan = Deployment(
        context_tokens=given.context,
        tensor_parallel=given.tensor_parallel,
        pipeline_parallel=given.pipeline_parallel,
        dtype=given.dtype,
        kv_bits=given.kv_bits,
        overhead_bytes=round(given.overhead_gib * GIB),
        reserve_share=given.reserve,
        workspace_tokens=given.workspace_tokens,
    )
    try:
        shape, device = find_shape(given.model), gpu(given.gpu)
        facts = _facts(given.model, shape, device, plan, fit(shape, device.memory_bytes, plan))
    except InferometerError as error:
        print(error, file=sys.stderr)
        return 1
    if given.json:
        print(json.dumps(facts, indent=2))
        return 0
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name.replace('_', ' '):{width}}  {_shown(value)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
