"""What is profiled: a model under a scheme in a dtype, whole or cut to its first layers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

from inferometer.device import why_no_memory
from inferometer.manifest import Manifest
from inferometer.models import weights_bytes
from inferometer.profiling.generation import first_layers
from inferometer.quantization.bitsandbytes_layers import reason_not_available
from inferometer.quantization.model import quantized
from inferometer.schemes import Scheme

Load = Callable[[str], PreTrainedModel]  # a model of its own in a dtype


def layer_counts(manifest: Manifest) -> list[int]:
    """Numbers of decoder layers that are profiled: all, and of a shape without weights also half of them.

    From two numbers what all layers of a model in full would take can be told, where they don't fit this machine.
    """
    return sorted({max(1, manifest.layers // 2), manifest.layers} if manifest.random_weights else {manifest.layers})


@dataclass(frozen=True)
class Subject:
    """A model under a scheme; `reason` says why there is none, and `kernels` multiply its integers."""

    scheme: str
    dtype: str
    layers: int
    model: PreTrainedModel | None
    kernels: str | None = None
    reason: str | None = None

    @contextmanager
    def running(self) -> Iterator[PreTrainedModel]:
        """The model as it is to run, for the length of the block."""
        assert self.model is not None
        whole = self.layers == self.model.config.get_text_config().num_hidden_layers
        with nullcontext() if whole else first_layers(self.model, self.layers):
            yield self.model


def _quantized(stack: ExitStack, model: PreTrainedModel, scheme: Scheme) -> str | None:
    """Round a model until the stack is left; the names of the integer kernels that it multiplies with."""
    layers = stack.enter_context(quantized(model, scheme, [], {}))
    return " ".join(sorted({layer.kernel for layer in layers.values() if layer.kernel})) or None


def _subjects(stack: ExitStack, scheme: Scheme, dtype: str, layers: Sequence[int], load: Load) -> Iterator[Subject]:
    try:
        model = load(dtype)
        own = str(model.dtype).removeprefix("torch.")
        reason = reason_not_available(model.device) if scheme.engine == "bitsandbytes" else None
        kernels = None if reason else _quantized(stack, model, scheme)
    except (RuntimeError, MemoryError) as error:
        model, own, kernels, reason = None, dtype, None, why_no_memory(error)
    for count in layers:
        yield Subject(scheme.name, own, count, None if reason else model, kernels, reason)


@contextmanager
def subjects(
    schemes: Mapping[str, Mapping[str, Any]], dtypes: Sequence[str], layers: Sequence[int], load: Load
) -> Iterator[list[Subject]]:
    """Every scheme in every dtype, each on a model of its own, so that they can take turns.

    Numbers of `layers` share a model. A scheme that can't run here is there without a model and with its reason.
    """
    with ExitStack() as stack:
        yield [
            subject
            for name, entry in schemes.items()
            for dtype in dtypes
            for subject in _subjects(stack, Scheme.of(name, entry), dtype, layers, load)
        ]


def weights_bytes_of(subjects: Sequence[Subject]) -> int:
    """Bytes of all their models together, each counted once."""
    models = {id(subject.model): subject.model for subject in subjects if subject.model is not None}
    return sum(weights_bytes(model) for model in models.values())
