"""The calibration pass: text goes through the model once, and every linear layer's input is summarized on its way."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from inferometer.calibration.statistics import BlockMaxima, ChannelStatistics, FloatHistogram
from inferometer.errors import InferometerError
from inferometer.layers import decoder_layer_index
from inferometer.models import linear_layers, weight_matrix

SURFACE_ROWS = 128
SURFACE_CHANNELS = 96

PreHook = Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...] | None]


class InputRecord:
    """What is kept about one input tensor, with (True) and without (False) the first token of each window.

    The first token is set apart because models park attention on it, with activations of a size of their own.
    """

    def __init__(self, *, detailed: bool) -> None:
        self.statistics: dict[bool, ChannelStatistics] = {}
        self.histograms = {True: FloatHistogram(), False: FloatHistogram()} if detailed else {}
        self.surface: BlockMaxima | None = None

    def add(self, values: Tensor) -> None:
        """Take in one window's float values [tokens, channels]."""
        rest_values = values[1:]
        pivot = self.statistics[False].powers.pivot if self.statistics else rest_values.mean(dim=0)
        rest = ChannelStatistics.of(rest_values, pivot)
        for first_token, new in ((True, rest.with_first(values)), (False, rest)):
            seen = self.statistics.get(first_token)
            self.statistics[first_token] = new if seen is None else seen + new
        for first_token, histogram in self.histograms.items():
            histogram.add(values if first_token else rest_values)
        if self.histograms and self.surface is None:
            self.surface = BlockMaxima.of(values[:SURFACE_ROWS], SURFACE_ROWS, SURFACE_CHANNELS)

    def is_finite(self) -> bool:
        """Whether every value seen was a finite number."""
        return bool(self.statistics[True].powers.sums.isfinite().all())

    @cached_property
    def frames(self) -> dict[bool, pd.DataFrame]:
        """The statistics as rows, made once for all layers that read the tensor."""
        return {first_token: statistics.frame() for first_token, statistics in self.statistics.items()}


class InputRecorder:
    """Hooks on every linear layer that hand each distinct input tensor to one record, however many layers read it.

    The output head's input is recorded whole and passed on for the last token only: the logits are not needed,
    and on a small model they are a fifth of the arithmetic.
    """

    def __init__(self, model: PreTrainedModel, detailed: set[str]) -> None:
        self.records: dict[str, InputRecord] = {}
        self.reader_of: dict[str, str] = {}
        self._detailed = detailed
        self._window_tokens = 0
        self._last: tuple[Tensor, str] | None = None
        head = model.get_output_embeddings()
        self._handles = [
            layer.register_forward_pre_hook(self._hook(name, is_head=layer is head))
            for name, layer in linear_layers(model).items()
        ]

    def _hook(self, name: str, *, is_head: bool) -> PreHook:
        def record(_layer: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
            values = arguments[0]
            if self._last is None or self._last[0] is not values:
                self._last = (values, name)
                self._add(name, values)
            if self.reader_of.setdefault(name, self._last[1]) != self._last[1]:
                raise InferometerError(f"layer {name} does not read the same input in every window; it is routed.")
            return (values[..., -1:, :],) if is_head else None

        return record

    def _add(self, name: str, values: Tensor) -> None:
        rows = values.reshape(-1, values.shape[-1])
        if rows.shape[0] != self._window_tokens:
            raise InferometerError(
                f"layer {name} sees {rows.shape[0]} rows of a window of {self._window_tokens} tokens: it is routed, "
                "and calibration of routed layers is not supported."
            )
        if name not in self.records:
            self.records[name] = InputRecord(detailed=name in self._detailed)
        self.records[name].add(rows.float())

    def start_window(self, tokens: int) -> None:
        """Announce a window of so many tokens; forgets the last window's tensors."""
        self._window_tokens = tokens
        self._last = None

    def remove(self) -> None:
        """Take the hooks off the model."""
        for handle in self._handles:
            handle.remove()


@dataclass(frozen=True)
class Calibration:
    """The tables of the chapter (inferometer.calibration.tables) and the tokens they were made from."""

    activations: pd.DataFrame
    weights: pd.DataFrame
    histograms: pd.DataFrame
    surfaces: pd.DataFrame
    tokens: int


def detailed_layers(model: PreTrainedModel, layers: list[int]) -> set[str]:
    """Names of the linear layers that lie in the given decoder layers."""
    return {name for name in linear_layers(model) if decoder_layer_index(name) in layers}


def _weight_frame(weight: Tensor, axis: str) -> pd.DataFrame:
    dim = 0 if axis == "input" else 1
    low, high = weight.amin(dim=dim), weight.amax(dim=dim)
    columns = {"min": low, "max": high, "absmax": torch.maximum(-low, high)}
    return pd.DataFrame({name: column.cpu().numpy() for name, column in columns.items()})


def _stacked(frames: dict[tuple[Any, ...], pd.DataFrame], *names: str) -> pd.DataFrame:
    """All frames below each other, with the parts of their keys as columns `names` and row numbers as `channel`."""
    whole = pd.concat(frames, names=[*names, "row number"]).reset_index(list(names))
    return whole if "channel" in whole else whole.reset_index(names="channel")


@torch.inference_mode()
def calibrate(model: PreTrainedModel, windows: Iterable[Tensor], layers: list[int]) -> Calibration:
    """Stream windows of token ids [1, tokens] through the model and summarize every linear layer's input and weight.

    `layers` are the decoder layers that also get histograms and surfaces. Memory does not grow with the number of
    windows. Raises InferometerError when a layer's input depends on routing (mixtures of experts), or when weights or
    inputs are not finite.
    """
    detailed = detailed_layers(model, layers)
    recorder = InputRecorder(model, detailed)
    tokens = 0
    try:
        for window in windows:
            recorder.start_window(window.shape[1])
            model(window.to(model.device))
            tokens += window.shape[1]
    finally:
        recorder.remove()

    activations: dict[tuple[Any, ...], pd.DataFrame] = {}
    weights: dict[tuple[Any, ...], pd.DataFrame] = {}
    histograms: dict[tuple[Any, ...], pd.DataFrame] = {}
    surfaces: dict[tuple[Any, ...], pd.DataFrame] = {}
    for name, layer in linear_layers(model).items():
        if name not in recorder.reader_of:
            raise InferometerError(
                f"layer {name} was never run on the calibration text; the model can't be calibrated."
            )
        record = recorder.records[recorder.reader_of[name]]
        weight = weight_matrix(layer).float()
        ranges = {(name, axis): _weight_frame(weight, axis) for axis in ("input", "output")}
        if not (np.isfinite(ranges[name, "input"]).all(axis=None) and record.is_finite()):
            raise InferometerError(
                f"layer {name} has weights or inputs that are not numbers (NaN or infinite); its weights may be "
                "damaged, or its dtype too narrow: set `dtype` of the model to float32 or bfloat16."
            )
        activations |= {(name, first): frame for first, frame in record.frames.items()}
        weights |= ranges
        if name in detailed:
            histogram = FloatHistogram()
            histogram.add(weight)
            histograms[name, "weight", True] = histogram.frame()
            histograms |= {(name, "activation", first): counts.frame() for first, counts in record.histograms.items()}
            surfaces[name, "weight"] = BlockMaxima.of(weight, SURFACE_ROWS, SURFACE_CHANNELS).frame()
            assert record.surface is not None  # whoever read the tensor first lies in the same decoder layer
            surfaces[name, "activation"] = record.surface.frame()
    return Calibration(
        activations=_stacked(activations, "layer", "first_token"),
        weights=_stacked(weights, "layer", "axis"),
        histograms=_stacked(histograms, "layer", "tensor", "first_token").drop(columns="channel"),
        surfaces=_stacked(surfaces, "layer", "tensor"),
        tokens=tokens,
    )
