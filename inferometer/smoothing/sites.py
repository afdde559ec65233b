"""Where a model can be smoothed, found by watching it run and not by knowing its class.

A site is a norm whose output nothing but linear layers reads, and these read nothing else. Dividing the norm's gain by
a factor per channel and multiplying the layers' input channels by it then changes nothing. One short forward pass is
observed: every function that torch calls on a norm's output is either a change of view, a linear layer, or a reason to
refuse.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedModel

from inferometer.models import linear_layers, quantizable_layers, weight_matrix
from inferometer.smoothing.site import Refusal, Site

PROBE_TOKENS = 8
AFFINE_TOLERANCE = 1e-3


@torch.no_grad()
def gain_offset(norm: nn.Module) -> float | None:
    """The offset o of a norm that computes (o + w) * normalized + bias, or None if it computes something else.

    Found by asking the norm itself: with w = -1, 0 and 1 its outputs must lie on a line, and o is where it is zero.
    """
    generator = torch.Generator().manual_seed(0)
    weight = norm.get_parameter("weight")
    values = torch.randn(2, 4, weight.numel(), generator=generator).to(weight.device, weight.dtype)
    bias = getattr(norm, "bias", None)
    shift = 0.0 if bias is None else bias

    def output(gain: float) -> Tensor:
        substitute = {"weight": torch.full_like(weight, gain)}
        result: Tensor = torch.func.functional_call(norm, substitute, (values,))
        return (result - shift).float()

    below, at_zero, above = output(-1.0), output(0.0), output(1.0)
    slope = (above - below) / 2
    size = float(slope.abs().max())
    if size == 0 or float((above + below - 2 * at_zero).abs().max()) > AFFINE_TOLERANCE * size:
        return None
    offset = round(float((at_zero * slope).sum() / slope.square().sum()), 3)
    return offset if float((at_zero - offset * slope).abs().max()) <= AFFINE_TOLERANCE * size else None


def _norms(model: PreTrainedModel) -> dict[str, nn.Module]:
    """Modules that may be norms: a weight vector, at most a bias, and no modules inside."""
    found = {}
    for name, module in model.named_modules():
        parameters = dict(module.named_parameters(recurse=False))
        shapes = {parameter.shape for parameter in parameters.values()}
        is_leaf = not list(module.children())
        is_vector = len(shapes) == 1 and len(next(iter(shapes))) == 1
        if is_leaf and is_vector and "weight" in parameters and parameters.keys() <= {"weight", "bias"}:
            found[name] = module
    return found


class _Observer(TorchFunctionMode):
    """Notes which linear layers read a norm's output, and which other functions do."""

    def __init__(self, layer_of_weight: Mapping[int, str]) -> None:
        super().__init__()
        self.layers: dict[str, list[str]] = {}
        self.others: dict[str, list[str]] = {}
        self.calls: Counter[str] = Counter()
        self._layer_of_weight = layer_of_weight
        self._norm_of_storage: dict[int, str] = {}
        self._outputs: list[Tensor] = []

    def watch(self, norm: str) -> Callable[[nn.Module, Any, Tensor], None]:
        """A forward hook after which the norm's output is recognized, kept alive so that its storage stays its own."""

        def remember(_norm: nn.Module, _arguments: Any, output: Tensor) -> None:
            self._outputs.append(output)
            self._norm_of_storage[output.untyped_storage().data_ptr()] = norm
            self.layers.setdefault(norm, [])
            self.others.setdefault(norm, [])

        return remember

    def count(self, layer: str) -> Callable[[nn.Module, Any], None]:
        """A forward pre-hook that counts the calls of a linear layer, whatever it reads."""
        return lambda _layer, _arguments: self.calls.update([layer])

    def _norm_of(self, value: Tensor) -> str | None:
        return self._norm_of_storage.get(value.untyped_storage().data_ptr())

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunction():
            tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
            read = {norm: value for value in tensors if (norm := self._norm_of(value)) is not None}
            versions = {norm: value._version for norm, value in read.items()}
            result = func(*args, **kwargs)
            if not read:
                return result
            outcomes = [value for value in tree_leaves(result) if isinstance(value, Tensor)]
            layer = next((name for value in tensors if (name := self._layer_of_weight.get(id(value)))), None)
            for norm, value in read.items():
                is_view = all(self._norm_of(outcome) == norm for outcome in outcomes)
                if layer is not None:
                    self.layers[norm].append(layer)
                elif not is_view or value._version != versions[norm]:
                    self.others[norm].append((resolve_name(func) or func.__name__).removeprefix("torch."))
            return result


@torch.no_grad()
def _observe(model: PreTrainedModel, norms: Mapping[str, nn.Module]) -> _Observer:
    layers = linear_layers(model)
    observer = _Observer({id(layer.weight): name for name, layer in layers.items()})
    handles = [norm.register_forward_hook(observer.watch(name)) for name, norm in norms.items()]
    handles += [layer.register_forward_pre_hook(observer.count(name)) for name, layer in layers.items()]
    try:
        probe = torch.arange(PROBE_TOKENS, device=model.device)[None] % model.config.get_text_config().vocab_size
        with observer:
            model(probe)
    finally:
        for handle in handles:
            handle.remove()
    return observer


def _shared_weights(model: PreTrainedModel) -> set[int]:
    """Identities of parameters that more than one module uses."""
    owners: dict[int, int] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    return {identity for identity, count in owners.items() if count > 1}


def find_sites(model: PreTrainedModel, *, with_head: bool = False) -> tuple[list[Site], list[Refusal]]:
    """All norms of a model that are sites, in the order of its modules, and every other one with the reason why not.

    Only layers that schemes round are smoothed, so the norm before the output head is refused, as in the SmoothQuant
    reference, unless the head is asked for: whoever does must give it a weight of its own.
    """
    norms = _norms(model)
    observer = _observe(model, norms)
    layers, roundable, shared = linear_layers(model), quantizable_layers(model), _shared_weights(model)

    def refusal(name: str, norm: nn.Module, readers: tuple[str, ...], offset: float | None) -> str | None:
        others = sorted(set(observer.others.get(name, [])))
        unrounded = [reader for reader in readers if reader not in roundable and not with_head]
        width = norm.get_parameter("weight").numel()
        narrow = [reader for reader in readers if weight_matrix(layers[reader]).shape[1] != width]
        elsewhere = [reader for reader in readers if observer.calls[reader] > observer.layers[name].count(reader)]
        tied = [reader for reader in readers if reader in roundable and id(layers[reader].weight) in shared]
        if name not in observer.others:
            return "it does not run in a forward pass"
        if others:
            return f"its output is also read by {', '.join(others)}"
        if not readers:
            return "nothing reads its output"
        if unrounded:
            return f"it feeds {', '.join(unrounded)}, which is not rounded"
        if narrow:
            return f"{', '.join(narrow)} reads a part of its output only"
        if elsewhere:
            return f"{', '.join(elsewhere)} also reads something else"
        if tied:
            return f"{', '.join(tied)} shares its weight with another module"
        if id(norm.weight) in shared:
            return "it shares its weight with another module"
        if offset is None:
            return "it does not multiply by its weight"
        return None

    sites, refusals = [], []
    for name, norm in norms.items():
        readers = tuple(dict.fromkeys(observer.layers.get(name, [])))
        offset = gain_offset(norm) if readers else None
        reason = refusal(name, norm, readers, offset)
        if reason is None:
            assert offset is not None
            sites.append(Site(name, readers, offset))
        else:
            refusals.append(Refusal(name, reason))
    return sites, refusals
