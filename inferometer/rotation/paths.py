"""Which parts of a model a rotation touches, found by asking the model and not by knowing its class.

The residual stream can be rotated where every norm that reads it commutes with rotations (an RMS norm, once its gain is
absorbed) and feeds linear layers only, and everything else that writes to it is a linear layer or the embedding. What
the other linear layers read is rotated too: inside attention heads where the layer before can take the rotation up, and
by a product as the model runs ("online") where not. Ashkboos et al. 2024, "QuaRot", sections 3 and 4.
"""

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from inferometer.blocks import output_of
from inferometer.errors import InferometerError
from inferometer.folding import TOLERANCE, folded, relative_error
from inferometer.models import linear_layers, quantizable_layers, weight_matrix
from inferometer.rotation.fold import Path, changes_of_path
from inferometer.rotation.hadamard import Rotation
from inferometer.smoothing.producers import PROBE_TOKENS, find_producers, head_dim_of
from inferometer.smoothing.sites import find_sites


@torch.no_grad()
def _commutes_with_rotation(norm: nn.Module, offset: float) -> bool:
    """Whether a norm with gains of one gives rotated outputs for rotated inputs; subtracting the mean forbids it."""
    weight = norm.get_parameter("weight")
    rotation = Rotation.random(weight.numel(), seed=0).to(weight)
    values = torch.randn(4, weight.numel(), generator=torch.Generator().manual_seed(0)).to(weight)
    substitute = {"weight": torch.full_like(weight, 1 - offset)}

    def output(rows: Tensor) -> Tensor:
        result: Tensor = torch.func.functional_call(norm, substitute, (rows,))
        return result

    return relative_error(output(rotation(values)), rotation(output(values))) <= TOLERANCE


def _refused(reason: str) -> InferometerError:
    return InferometerError(f"the model can't be rotated: {reason}; leave `rotation` out of its schemes.")


def find_paths(model: PreTrainedModel) -> list[Path]:
    """Every path of a float32 model that a rotation takes, in an order in which they can be folded.

    Raises InferometerError with the reason when the residual stream can't be rotated.
    """
    hidden = model.get_input_embeddings().get_parameter("weight").shape[1]
    layers, roundable = linear_layers(model), quantizable_layers(model)
    sites, refusals = find_sites(model, with_head=True)
    norms = [site for site in sites if weight_matrix(layers[site.layers[0]]).shape[1] == hidden]
    for refusal in refusals:
        if model.get_submodule(refusal.name).get_parameter("weight").numel() == hidden:
            raise _refused(f"its norm {refusal.name} can't be absorbed, since {refusal.reason}")
    for site in norms:
        assert site.offset is not None
        norm = model.get_submodule(site.name)
        if getattr(norm, "bias", None) is not None or not _commutes_with_rotation(norm, site.offset):
            raise _refused(f"its norm {site.name} subtracts the mean or adds a bias, which a rotation does not keep")
    readers = {layer for site in norms for layer in site.layers}
    writers = [name for name in roundable if name not in readers]
    for name in writers:
        if weight_matrix(layers[name]).shape[0] != hidden:
            raise _refused(f"its layer {name} neither reads a norm of the residual stream nor writes to the stream")
    [embedding] = [name for name, module in model.named_modules() if module is model.get_input_embeddings()]
    paths = [Path("embedding", embedding)]
    paths += [Path("reader", layer, site.name, site.offset) for site in norms for layer in site.layers]
    paths += [Path("norm", site.name, offset=site.offset) for site in norms]
    paths += [Path("writer", name) for name in writers]
    return paths + _inner_paths(model, writers)


@torch.no_grad()
def _leaves_output(model: PreTrainedModel, path: Path, probe: Tensor) -> bool:
    """Whether the reader of a `value` path computes what it did when the path is folded."""
    assert path.partner is not None
    reader = model.get_submodule(path.partner)
    expected = output_of(model, reader, probe)
    with folded(changes_of_path(model, path, seed=0)):
        return relative_error(output_of(model, reader, probe), expected) <= TOLERANCE


@torch.no_grad()
def _inner_paths(model: PreTrainedModel, writers: list[str]) -> list[Path]:
    """A path for what each writer reads: folded into the layer before, head by head, or online."""
    probe = torch.arange(PROBE_TOKENS, device=model.device)[None] % model.config.get_text_config().vocab_size
    sites, _ = find_producers(model, writers)
    found = {site.layers[0]: site for site in sites}
    head_dim, exact, paths = head_dim_of(model), dict[object, bool](), list[Path]()
    for writer in writers:
        site, path = found.get(writer), None
        if site is not None and site.rows is not None and head_dim and site.rows[1] % head_dim == 0:
            path = Path("value", site.name, writer, None, *site.rows, head_dim)
            kind = (site.rows, weight_matrix(model.get_submodule(writer)).shape)  # type: ignore[arg-type]  # linear
            if kind not in exact:
                exact[kind] = _leaves_output(model, path, probe)
            path = path if exact[kind] else None
        paths.append(path or Path("online", writer))
    return paths
