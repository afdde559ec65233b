"""Blocks run one at a time: the same numbers as the whole model gives, and a model that comes back untouched."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from inferometer.blocks import decoder_blocks, output_of, run_block, run_from
from inferometer.models import quantizable_layers
from tests.tiny import CONFIGS, tiny_model

ARCHITECTURES = [kind for kind in CONFIGS if kind != "mixtral"]
STACKS = {
    "gpt2": "transformer.h",
    "bloom": "transformer.h",
    "opt": "model.decoder.layers",
    "gpt_neox": "gpt_neox.layers",
}
TOKENS = torch.randint(64, (1, 40), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def _whole_run(model: PreTrainedModel) -> tuple[dict[str, Any], Tensor]:
    """The oracle: what every block returns in a plain forward pass, and the logits."""
    outputs: dict[str, Any] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda _module, _arguments, output: outputs.update({name: output})

    handles = [block.register_forward_hook(keep(name)) for name, block in decoder_blocks(model).items()]
    logits: Tensor = model(TOKENS).logits
    for handle in handles:
        handle.remove()
    return outputs, logits


def _hidden(output: Any) -> Tensor:
    hidden: Tensor = output[0] if isinstance(output, tuple) else output
    return hidden


def _check_untouched(model: PreTrainedModel, logits: Tensor) -> None:
    for module in model.modules():
        assert "forward" not in vars(module)
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    with torch.no_grad():
        assert torch.equal(model(TOKENS).logits, logits)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_the_blocks_of_every_architecture_are_its_numbered_layers_in_order(kind: str) -> None:
    model = tiny_model(kind)
    stack = STACKS.get(kind, "model.layers")
    blocks = decoder_blocks(model)
    assert list(blocks) == [f"{stack}.{number}" for number in range(3)]
    assert list(blocks.values()) == list(model.get_submodule(stack).children())
    assert all(any(name.startswith(f"{block}.") for block in blocks) for name in quantizable_layers(model))


class _Tower(nn.Module):
    """A stack inside of a member of another list, and a linear layer outside of both."""

    def __init__(self) -> None:
        super().__init__()
        self.outside = nn.Linear(2, 2)
        self.parts = nn.ModuleList(nn.ModuleDict({"inner": nn.ModuleList([nn.Linear(2, 2)])}) for _ in range(11))

    def get_output_embeddings(self) -> None:
        """There is no output head."""


def test_blocks_are_the_outermost_numbered_members_and_the_tenth_follows_the_ninth() -> None:
    tower: Any = _Tower()
    assert list(decoder_blocks(tower)) == [f"parts.{number}" for number in range(11)]


@pytest.mark.parametrize("kind", ARCHITECTURES)
@torch.no_grad()
def test_blocks_run_one_by_one_give_what_the_whole_model_gives(kind: str) -> None:
    model = tiny_model(kind)
    expected, logits = _whole_run(model)
    earlier: list[nn.Module] = []
    output: Any = None
    for name, block in decoder_blocks(model).items():
        output = run_block(model, earlier, output, block, TOKENS)
        assert type(output) is type(expected[name])
        assert torch.equal(_hidden(output), _hidden(expected[name]))
        earlier.append(block)
        kept = _hidden(output).clone()
        assert torch.equal(run_from(model, earlier, output, TOKENS).logits, logits)
        assert torch.equal(_hidden(output), kept), "the blocks to come leave it as it is"
    _check_untouched(model, logits)


@pytest.mark.parametrize("kind", ARCHITECTURES)
@torch.no_grad()
def test_earlier_blocks_do_not_run_and_their_stored_output_is_what_counts(kind: str) -> None:
    model = tiny_model(kind)
    expected, logits = _whole_run(model)
    blocks = list(decoder_blocks(model).values())
    ran: list[nn.Module] = []
    handles = [
        layer.register_forward_hook(lambda module, _arguments, _output: ran.append(module))
        for layer in quantizable_layers(model).values()
    ]
    [*_, first, second, _] = [None, *expected.values()]
    run_block(model, blocks[:1], first, blocks[1], TOKENS)
    assert ran
    assert set(ran) <= set(blocks[1].modules()), "neither what is earlier nor what is later"
    for handle in handles:
        handle.remove()
    other = second * 0.5 if isinstance(second, Tensor) else (second[0] * 0.5, *second[1:])
    assert not torch.allclose(run_from(model, blocks[:2], other, TOKENS).logits, logits)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@torch.no_grad()
def test_the_output_of_any_module_is_that_of_the_whole_run_and_nothing_runs_after_it(kind: str) -> None:
    model = tiny_model(kind)
    _, logits = _whole_run(model)
    name, layer = list(quantizable_layers(model).items())[-1]
    seen: list[Tensor] = []
    handle = layer.register_forward_hook(lambda _module, _arguments, output: seen.append(output))
    model(TOKENS)
    head_ran: list[nn.Module] = []
    head = model.get_output_embeddings().register_forward_hook(lambda module, *_: head_ran.append(module))
    assert torch.equal(output_of(model, model.get_submodule(name), TOKENS), seen[0])
    assert head_ran == []
    for own in (handle, head):
        own.remove()
    _check_untouched(model, logits)


@torch.no_grad()
def test_the_model_is_itself_again_when_a_block_fails() -> None:
    model = tiny_model("llama")
    expected, logits = _whole_run(model)
    names, blocks = zip(*decoder_blocks(model).items(), strict=True)

    def fail(*_: object) -> None:
        raise RuntimeError("on purpose")

    handle = blocks[2].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="on purpose"):
        run_from(model, list(blocks[:2]), expected[names[1]], TOKENS)
    with pytest.raises(RuntimeError, match="on purpose"):
        run_block(model, list(blocks[:1]), expected[names[0]], blocks[2], TOKENS)
    with pytest.raises(RuntimeError, match="on purpose"):
        output_of(model, model.lm_head, TOKENS)
    handle.remove()
    _check_untouched(model, logits)
