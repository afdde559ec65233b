"""Linear layers whose outputs reach another linear layer channel by channel, found by trying.

The values of attention are mixed over tokens but not over channels, and a gated MLP multiplies the `up` outputs by a
gate: scaling an output channel there scales an input channel of the next linear layer, exactly. Whether a layer is such
a producer is asked of the model itself: its outputs are scaled, the reader's inputs scaled back, and what the reader
computes must stay what it was. No class or layer name is known here.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from inferometer.blocks import output_of
from inferometer.folding import TOLERANCE, Change, folded, relative_error
from inferometer.layers import decoder_layer_index
from inferometer.models import Linear, linear_layers, quantizable_layers, weight_matrix
from inferometer.smoothing.site import Refusal, Site

PROBE_TOKENS = 8


def head_dim_of(model: PreTrainedModel) -> int | None:
    """Channels of an attention head, or None for a model whose configuration does not say."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_attention_heads", None)
    return getattr(config, "head_dim", None) or (config.hidden_size // heads if heads else None)


def oriented(layer: Linear, matrix: Tensor) -> Tensor:
    """A matrix [outputs, inputs] the way the layer stores it."""
    return matrix.T.contiguous() if isinstance(layer, Conv1D) else matrix


def linear_changes(producer: Linear, readers: Sequence[Linear], site: Site, factors: Tensor) -> Iterator[Change]:
    """Divide the producer's output rows by `factors` [channels] and multiply the readers' inputs by them."""
    assert site.rows is not None
    first, count = site.rows
    divisor = torch.ones(weight_matrix(producer).shape[0], device=factors.device)
    divisor[first : first + count] = factors
    yield producer, "weight", oriented(producer, weight_matrix(producer).float() / divisor[:, None])
    if producer.bias is not None:
        yield producer, "bias", producer.bias.float() / divisor
    for reader in readers:
        weight = weight_matrix(reader).float()
        yield reader, "weight", oriented(reader, weight * site.spread(factors, weight.shape[1]))


def _candidates(model: PreTrainedModel, reader: str, layers: dict[str, Linear]) -> Iterator[Site]:
    """Sites that may feed a layer: other layers of its block, whole or their last rows (as in fused projections)."""
    width, block, head_dim = weight_matrix(layers[reader]).shape[1], decoder_layer_index(reader), head_dim_of(model)
    config = model.config.get_text_config()
    of_heads = (head_dim or 0) * (getattr(config, "num_key_value_heads", None) or 0)
    for name, layer in layers.items():
        outputs = weight_matrix(layer).shape[0]
        if name == reader or decoder_layer_index(name) != block:
            continue
        for count in dict.fromkeys((width, of_heads)):
            if 0 < count <= outputs and width % count == 0:
                yield Site(name, (reader,), None, (outputs - count, count), head_dim if count < width else None)


def _signature(name: str, layers: dict[str, Linear]) -> tuple[object, ...]:
    """What blocks must share for a finding in one to hold in the other; the proof over all sites has the last word."""
    index = decoder_layer_index(name)
    relative = name.replace(f".{index}.", ".*.", 1)
    block = [weight_matrix(layer).shape for other, layer in layers.items() if decoder_layer_index(other) == index]
    return relative, tuple(block)


def _running(model: PreTrainedModel, names: Sequence[str], probe: Tensor) -> set[str]:
    """Which of the named layers a forward pass reaches."""
    layers, ran = linear_layers(model), set[str]()
    handles = [layers[name].register_forward_pre_hook(lambda *_, name=name: ran.add(name)) for name in names]
    try:
        model(probe)
    finally:
        for handle in handles:
            handle.remove()
    return ran


@torch.no_grad()
def find_producers(model: PreTrainedModel, readers: Sequence[str]) -> tuple[list[Site], list[Refusal]]:
    """The linear layer before each of the `readers` that smoothing can be folded into, or the reason why there is none.

    The model must be in float32. Blocks of the same make are asked once.
    """
    layers = quantizable_layers(model)
    every = linear_layers(model)
    probe = torch.arange(PROBE_TOKENS, device=model.device)[None] % model.config.get_text_config().vocab_size
    generator = torch.Generator().manual_seed(0)
    known: dict[tuple[object, ...], Site | None] = {}

    def is_exact(site: Site) -> bool:
        assert site.rows is not None
        factors = torch.rand(site.rows[1], generator=generator).mul_(6).sub_(3).exp2_().to(model.device)
        [reader] = (every[name] for name in site.layers)
        expected = output_of(model, reader, probe)
        with folded(linear_changes(every[site.name], [reader], site, factors)):
            return relative_error(output_of(model, reader, probe), expected) <= TOLERANCE

    sites, refusals, running = [], [], _running(model, readers, probe)
    for reader in readers:
        if reader not in running:
            refusals.append(Refusal(reader, "it does not run in a forward pass"))
            continue
        signature = _signature(reader, layers)
        if signature not in known:
            known[signature] = next((site for site in _candidates(model, reader, layers) if is_exact(site)), None)
        found = known[signature]
        if found is None:
            refusals.append(Refusal(reader, "no linear layer before it scales its input channel by channel"))
        else:
            index, own = decoder_layer_index(found.name), decoder_layer_index(reader)
            name = found.name.replace(f".{index}.", f".{own}.", 1)
            sites.append(Site(name, (reader,), None, found.rows, found.head_dim))
    return sites, refusals
