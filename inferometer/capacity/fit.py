"""How many requests fit on GPUs, under tensor and pipeline parallelism; needs no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from inferometer.capacity.shapes import PER_LAYER, Part, Shape
from inferometer.capacity.storage import (
    DTYPE_BYTES,
    Share,
    head_bytes,
    held_tokens,
    share_bytes,
    workspace_bytes_per_token,
)
from inferometer.errors import InferometerError

LOGIT_BYTES = 4  # logits are float32


@dataclass(frozen=True)
class Deployment:
    """How a model is served, on tensor_parallel × pipeline_parallel GPUs.

    `reserve_share` is the part of each GPU's memory that fragmentation takes, `overhead_bytes` what the driver and
    libraries take of it. `workspace_tokens` is how many tokens go through the model at once; 0 leaves activations and
    logits out. `scheme` is an entry of the configuration that rounds weights.
    """

    context_tokens: int
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    dtype: str = "bfloat16"
    kv_bits: int = 16
    scheme: Mapping[str, Any] = field(default_factory=dict)
    overhead_bytes: int = 0
    reserve_share: float = 0.0
    workspace_tokens: int = 0


@dataclass(frozen=True)
class Fit:
    """What fits. Bytes are those of the fullest GPU, which is the one that limits the batch; `request_bytes_per_gpu` is
    the cache of a request and, where workspace is counted, a token's logits.

    `largest_batch` counts requests in flight on all GPUs together, each of them once. Where not one fits it is 0, and
    `shortfall_bytes` is what that GPU lacks for one. `replicated` names what GPUs hold in common instead of sharing it.
    """

    weights_bytes_per_gpu: int
    kv_bytes_per_request_per_gpu: int
    workspace_bytes_per_gpu: int
    request_bytes_per_gpu: int
    available_bytes_per_gpu: int
    largest_batch: int
    shortfall_bytes: int
    replicated: tuple[str, ...]


@dataclass(frozen=True)
class _Stage:
    """What each GPU of a pipeline stage holds: weights and workspace once, and of each request its cache and logits."""

    weights_bytes: int
    workspace_bytes: int
    kv_bytes: int
    request_bytes: int

    def room(self, available_bytes: int) -> int:
        """Bytes that are left for requests; negative where there are too few."""
        return available_bytes - self.weights_bytes - self.workspace_bytes

    def batch(self, available_bytes: int) -> int:
        """Requests that fit."""
        return max(0, self.room(available_bytes) // self.request_bytes)


def check_tensor_parallel(shape: Shape, degree: int) -> None:
    """Raise InferometerError unless a degree of tensor parallelism divides the model evenly.

    Query heads and the width of the MLP must be divided; KV heads may be fewer than GPUs, and are copied then.
    """
    if degree < 1:
        raise InferometerError(f"the degree of tensor parallelism is {degree}; it must be at least 1.")
    for count, what in ((shape.query_heads, "query heads"), (shape.intermediate_size, "channels inside the MLP")):
        if count % degree:
            raise InferometerError(
                f"tensor parallelism of {degree} does not divide the model's {count} {what}; choose a divisor of "
                f"{shape.query_heads}."
            )
    if shape.kv_heads % degree and degree % shape.kv_heads:
        raise InferometerError(
            f"tensor parallelism of {degree} neither divides the model's {shape.kv_heads} KV heads nor is a multiple "
            "of them, so that heads could be copied; choose another degree."
        )


def _share(part: Part, shape: Shape, degree: int, layers: range) -> Share:
    """What one GPU holds of a part in these layers; of a vocabulary, the largest share."""
    outputs, inputs = part.outputs, part.inputs
    match part.split:
        case "outputs":
            outputs = -(-outputs // degree)
        case "kv_heads":
            outputs = max(shape.kv_heads // degree, 1) * shape.head_dim
        case "inputs":
            inputs //= degree
        case _:
            pass
    return Share(layers, outputs, inputs, outputs * part.bias)


def replicated(shape: Shape, tensor_parallel: int, pipeline_parallel: int) -> tuple[str, ...]:
    """What several GPUs hold whole, in words; nothing where there is one GPU."""
    found = []
    if tensor_parallel > 1:
        groups = {part.group for part in shape.parts}
        names = {"norm": "norms", "position": "positions", "router": "routers"}
        found += [name for group, name in names.items() if group in groups]
        if any(part.split == "none" and part.linear for part in shape.parts):
            found.append("projections of embeddings")
        if any(part.split == "inputs" and part.bias for part in shape.parts):
            found.append("biases of output projections")
        if tensor_parallel > shape.kv_heads:
            found.append(f"each KV head on {tensor_parallel // shape.kv_heads} GPUs")
    if pipeline_parallel > 1 and shape.tied:
        found.append("the embedding, as the output head of the last stage")
    return tuple(found)


def _stage_layers(shape: Shape, stages: int) -> list[range]:
    """The layers of each pipeline stage, as even as can be; the first stages take what is left over."""
    if not 1 <= stages <= shape.layers:
        raise InferometerError(
            f"{shape.layers} layers can't be cut into {stages} pipeline stages; choose from 1 to {shape.layers}."
        )
    each, rest = divmod(shape.layers, stages)
    ends = [each * stage + min(stage, rest) for stage in range(stages + 1)]
    return [range(start, end) for start, end in pairwise(ends)]


def _layers_held(part: Part, shape: Shape, layers: range) -> range:
    """Which copies of a part a stage with these layers holds.

    The embedding and positions lie in the first stage, the last norm and the head in the last; a tied head is another
    embedding there.
    """
    if PER_LAYER in part.module:
        return layers
    is_first, is_last = layers.start == 0, layers.stop == shape.layers
    in_front = part.group in ("embedding", "position")
    serves_as_head = shape.tied and part.group == "embedding" and part.split == "outputs"
    return range(1 if (is_first and in_front) or (is_last and (not in_front or serves_as_head)) else 0)


def _stage(shape: Shape, plan: Deployment, layers: range) -> _Stage:
    """What each GPU of the stage with these layers holds."""
    degree = plan.tensor_parallel
    shares = [(part, _share(part, shape, degree, _layers_held(part, shape, layers))) for part in shape.parts]
    weights = sum(share_bytes(part, share, plan.dtype, plan.scheme).total_bytes for part, share in shares)
    vocabulary, is_last = -(-shape.vocabulary // degree), layers.stop == shape.layers
    if is_last and layers.start == 0 and shape.tied and "rotation" in plan.scheme:
        weights += vocabulary * shape.hidden_size * DTYPE_BYTES[plan.dtype]
    per_position = 2 * max(shape.kv_heads // degree, 1) * head_bytes(shape.head_dim, plan.kv_bits)
    kv = per_position * sum(held_tokens(plan.context_tokens, shape.windows[layer]) for layer in layers)
    logits = vocabulary * LOGIT_BYTES if is_last and plan.workspace_tokens else 0
    workspace = plan.workspace_tokens * workspace_bytes_per_token(shape, plan.dtype, degree)
    return _Stage(weights, workspace, kv, kv + logits)


@dataclass(frozen=True)
class Demand:
    """What a deployment asks of GPUs, whatever their memory."""

    plan: Deployment
    stages: tuple[_Stage, ...]
    replicated: tuple[str, ...]

    def on(self, memory_bytes: int) -> Fit:
        """The largest batch on GPUs with so much memory: the fullest stage's, since requests pass through all."""
        available = int(memory_bytes * (1 - self.plan.reserve_share)) - self.plan.overhead_bytes
        fullest = min(
            self.stages, key=lambda stage: (stage.batch(available), stage.room(available) - stage.request_bytes)
        )
        return Fit(
            weights_bytes_per_gpu=fullest.weights_bytes,
            kv_bytes_per_request_per_gpu=fullest.kv_bytes,
            workspace_bytes_per_gpu=fullest.workspace_bytes,
            request_bytes_per_gpu=fullest.request_bytes,
            available_bytes_per_gpu=available,
            largest_batch=fullest.batch(available),
            shortfall_bytes=max(0, fullest.request_bytes - fullest.room(available)),
            replicated=self.replicated,
        )


def demand(shape: Shape, plan: Deployment) -> Demand:
    """What a deployment of a model asks for.

    Raises InferometerError for a context below 1, a reserve that is no share, negative amounts, and degrees that do not
    divide the model.
    """
    check_tensor_parallel(shape, plan.tensor_parallel)
    if not 0 <= plan.reserve_share < 1:
        raise InferometerError(f"the reserve is {plan.reserve_share}; it must be a share of memory, from 0 to below 1.")
    for amount, what in ((plan.overhead_bytes, "overhead"), (plan.workspace_tokens, "workspace")):
        if amount < 0:
            raise InferometerError(f"the {what} is {amount}; it must be at least 0.")
    stages = tuple(_stage(shape, plan, layers) for layers in _stage_layers(shape, plan.pipeline_parallel))
    return Demand(plan, stages, replicated(shape, plan.tensor_parallel, plan.pipeline_parallel))


def fit(shape: Shape, memory_bytes: int, plan: Deployment) -> Fit:
    """How many requests fit on GPUs with so much memory each. Raises InferometerError as `demand` does."""
    return demand(shape, plan).on(memory_bytes)
