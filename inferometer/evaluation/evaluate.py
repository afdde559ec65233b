"""The evaluation of one model under one scheme: everything that needs the model, from one load of it."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass

import pandas as pd
from torch import Tensor
from transformers import PreTrainedModel

from inferometer.device import Device, why_no_memory
from inferometer.errors import InferometerError
from inferometer.evaluation.choices import ROW_TOKENS, Prompt, batches_of, can_pack, score_choices
from inferometer.evaluation.layers import layer_fidelity
from inferometer.evaluation.perplexity import Scores, score_windows
from inferometer.evaluation.reference import Reference, ReferenceHead
from inferometer.evaluation.tables import CHOICES, FIDELITY, LAYERS, WINDOWS
from inferometer.folding import folded
from inferometer.memory import available_bytes, within
from inferometer.models import weight_matrix, weights_bytes
from inferometer.preparation import Preparation
from inferometer.progress import progress
from inferometer.quantization.bitsandbytes_layers import reason_not_available
from inferometer.quantization.floats import FloatGrid
from inferometer.quantization.model import QuantizedLayer, quantized
from inferometer.quantization.simulated import ActivationRounder
from inferometer.schemes import Scheme
from inferometer.tables import Table

LAYER_TOKENS = 128  # of the first window, on which each layer's output is held against the float one


@dataclass(frozen=True)
class Evaluation:
    """What is measured of a scheme: `scores` of windows, and rows of CHOICES, LAYERS and STORAGE.

    `packs` says whether the float model answers questions in shared rows.
    """

    scores: Scores
    choices: pd.DataFrame
    layers: pd.DataFrame
    storage: pd.DataFrame
    packs: bool


def _outlier_share(layers: Mapping[str, QuantizedLayer]) -> float | None:
    """Share of input channels that were taken for outliers, over all layers and calls."""
    inputs = {
        id(layer.inputs): layer.inputs for layer in layers.values() if isinstance(layer.inputs, ActivationRounder)
    }
    channels = sum(rounder.channels for rounder in inputs.values())
    return sum(rounder.outliers for rounder in inputs.values()) / channels if channels else None


def _storage(scheme: Scheme, layers: Mapping[str, QuantizedLayer], folded_bytes: int) -> pd.DataFrame:
    """The row of the STORAGE table; `folded_bytes` is the size of the float model with everything folded in."""
    weights = [weight_matrix(layer.reference) for layer in layers.values()]
    stored = sum(layer.stored_bytes for layer in layers.values())
    floats = folded_bytes - sum(weight.nbytes for weight in weights)
    row = {
        "engine": scheme.engine if scheme.quantizes else "float",
        "kernels": " ".join(sorted({layer.kernel for layer in layers.values() if layer.kernel})) or None,
        "rounded_layers": len(layers),
        "rounded_weights": sum(weight.numel() for weight in weights),
        "rounded_bytes": stored,
        "float_bytes": floats,
        "weights_bytes": stored + floats,
        "outlier_share": _outlier_share(layers),
        "skipped": None,
    }
    return pd.DataFrame([row])


def skipped(scheme: Scheme, reason: str) -> Evaluation:
    """The evaluation of a scheme that can't be run here: no rows but the reason."""
    scores = Scores(_empty(WINDOWS), _empty(FIDELITY), [], math.nan)
    zeros = dict.fromkeys(("rounded_layers", "rounded_weights", "rounded_bytes", "float_bytes", "weights_bytes"), 0)
    row = {"engine": scheme.engine, "kernels": None, **zeros, "outlier_share": None, "skipped": reason}
    return Evaluation(scores, _empty(CHOICES), _empty(LAYERS), pd.DataFrame([row]), packs=False)


def _empty(table: Table) -> pd.DataFrame:
    return pd.DataFrame(columns=[column.name for column in table.columns])


def _spans_tokens(scheme: Scheme) -> bool:
    """Whether what a token is rounded to depends on the others in the pass, so that questions must not share one."""
    activations = scheme.activations
    if activations is None:
        return scheme.bitsandbytes_format == "llm_int8"  # a channel is an outlier by any token
    grid = activations.grid
    one_scale = grid.granularity == "per_tensor" or (isinstance(grid, FloatGrid) and grid.format == "nvfp4")
    return activations.outlier_threshold is not None or (one_scale and not activations.static)


def evaluate(
    model: PreTrainedModel,
    scheme: Scheme,
    preparation: Preparation,
    windows: Sequence[Tensor],
    reference: Reference | None,
    questions: pd.DataFrame,
    prompts: Sequence[Prompt],
    synchronize: Callable[[], object],
) -> Evaluation:
    """Measure a model under a scheme on windows of text [1, tokens] and on questions, encoded as `prompts`.

    `reference` is what the float model left on the same windows and questions; the float model itself has none.
    `synchronize` waits for the device. The model comes back as it was.
    Raises InferometerError when a layer can't be calibrated or when logits are not numbers.
    """
    head = ReferenceHead(model)
    packs = can_pack(model, prompts) if reference is None else reference.packs
    row_tokens = 1 if _spans_tokens(scheme) else ROW_TOKENS
    batches = batches_of(prompts, packed=packs, row_tokens=row_tokens)
    with ExitStack() as stack:
        stack.enter_context(folded(preparation.changes))
        folded_bytes = weights_bytes(model)
        layers = stack.enter_context(quantized(model, scheme, preparation.calibration, preparation.rotations))
        expected = None if reference is None else reference.hidden
        scores = score_windows(model, progress(windows, f"scoring {scheme.name}"), head, expected, synchronize)
        storage = _storage(scheme, layers, folded_bytes)
        choices = score_choices(model, questions, batches)
        fidelity = layer_fidelity(model, layers, windows[0][:, :LAYER_TOKENS])
    return Evaluation(scores, choices, fidelity, storage, packs)


def or_skipped(
    measured: Callable[[], Evaluation], scheme: Scheme, model: str, device: Device, *, keeps_going: bool
) -> Evaluation:
    """What `measured` gives, or why the scheme can't be run here: also want of memory, in a study that keeps going.

    On a CPU it then takes no more than is free, as the system would end a process that does. Raises InferometerError
    naming the model and the scheme when memory is short in a study that does not keep going.
    """
    if scheme.engine == "bitsandbytes" and (reason := reason_not_available(device.torch_device)):
        return skipped(scheme, reason)
    try:
        with within(available_bytes()) if keeps_going and device.kind == "cpu" else nullcontext():
            return measured()
    except (RuntimeError, MemoryError) as error:
        reason = why_no_memory(error)
        if not keeps_going:
            raise InferometerError(
                f"{model} under {scheme.name}: {reason}; run it where there is more, shorten "
                "`evaluation.window_tokens`, or set `study.keep_going` to true, so that the others go on."
            ) from error
    return skipped(scheme, reason)
