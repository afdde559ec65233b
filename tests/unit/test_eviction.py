"""Evicting tokens: against a cache that really evicts, against models that slide by themselves, and planted sinks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, Cache, MistralConfig, PreTrainedModel
from transformers.cache_utils import DynamicLayer
from transformers.models.gpt_neox import modeling_gpt_neox
from transformers.models.llama import modeling_llama

from inferometer.attention import eviction
from inferometer.attention.eviction import Window, evict, read_texts, why_not
from inferometer.attention.eviction_tables import EVICTION
from inferometer.device import Device
from inferometer.errors import InferometerError
from inferometer.manifest import Manifest
from inferometer.models import tokenize
from inferometer.sources.tables import CORPUS
from inferometer.tables import read_table, write_table
from tests.tiny import COMMON, LLAMA_SHAPE, tiny_model, tiny_texts, tiny_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = Device("cpu", "a processor")
TOKENS = 30
ROTARY = ("llama", "qwen2", "gemma", "gemma2", "gpt_neox", "mixtral")


def text(tokens: int = TOKENS, seed: int = 0) -> Tensor:
    """Random token ids [1, tokens]."""
    return torch.randint(4, 64, (1, tokens), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def forgetting(model: PreTrainedModel, tokens: Tensor, window: int, sinks: int) -> Tensor:
    """The logits [tokens, vocabulary] of a window."""
    return eviction._read(model, tokens, Window(window, sinks))[0]


@torch.no_grad()
def plain(model: PreTrainedModel, tokens: Tensor) -> Tensor:
    """The logits [tokens, vocabulary] that the model gives by itself."""
    logits: Tensor = model(tokens).logits[0]
    return logits


# --- caches that really evict -------------------------------------------------------------------------------------


class EvictingLayer(DynamicLayer):
    """Keys and values of one layer as StreamingLLM keeps them: keys are rotated to their positions in the cache."""

    def __init__(self, tokens: int, sinks: int, back: Callable[[Tensor], Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # transformers'
        self.tokens, self.sinks, self.back = tokens, sinks, back

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Take in one token, and make room for the next: the oldest goes that is no sink, all behind it move up."""
        assert key_states.shape[2] == 1
        keys, values = super().update(key_states, value_states)
        if keys.shape[2] == self.tokens:
            self.keys = torch.cat([keys[:, :, : self.sinks], self.back(keys[:, :, self.sinks + 1 :])], dim=2)
            self.values = torch.cat([values[:, :, : self.sinks], values[:, :, self.sinks + 1 :]], dim=2)
        return keys, values


@torch.no_grad()
def token_by_token(model: Any, tokens: Tensor, window: int, sinks: int) -> Tensor:
    """The logits of a text that is read one token at a time, with a cache that evicts."""
    neox = model.config.model_type == "gpt_neox"
    rotary = (model.gpt_neox if neox else model.model).rotary_emb
    rotate = (modeling_gpt_neox if neox else modeling_llama).apply_rotary_pos_emb

    def back(keys: Tensor) -> Tensor:
        cos, sin = rotary(keys, position_ids=torch.tensor([[-1]]))
        rotated: Tensor = rotate(keys, keys, cos, sin)[0]
        return rotated

    cache = Cache(layers=[EvictingLayer(window, sinks, back) for _ in range(model.config.num_hidden_layers)])
    rows = []
    for place in range(tokens.shape[1]):
        position = torch.tensor([[min(place, window - 1)]])
        output = model(tokens[:, place : place + 1], past_key_values=cache, use_cache=True, position_ids=position)
        rows.append(output.logits[0, 0])
    return torch.stack(rows)


@pytest.mark.parametrize("sinks", [0, 1, 4])
@pytest.mark.parametrize("kind", ROTARY)
def test_a_token_sees_what_a_cache_would_hold_that_evicts_one_by_one(kind: str, sinks: int) -> None:
    model, tokens = tiny_model(kind, outliers=False), text()
    expected = token_by_token(model, tokens, 9, sinks)
    torch.testing.assert_close(forgetting(model, tokens, 9, sinks), expected, rtol=1e-4, atol=1e-4)
    assert (expected - plain(model, tokens))[9:].abs().max() > 1e-2, "the window must matter"


@pytest.mark.parametrize("sinks", [0, 2, 8])
def test_it_does_not_matter_how_many_queries_are_taken_at_once(sinks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokens = tiny_model(outliers=False), text()
    at_once = forgetting(model, tokens, 9, sinks)
    for count in (1, 7, 9, 10):
        monkeypatch.setattr(eviction, "QUERIES_AT_ONCE", count)
        torch.testing.assert_close(forgetting(model, tokens, 9, sinks), at_once, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sinks", [0, 1, TOKENS - 1])
@pytest.mark.parametrize("kind", ROTARY)
def test_a_window_that_is_never_filled_changes_nothing(kind: str, sinks: int) -> None:
    model, tokens = tiny_model(kind), text()
    torch.testing.assert_close(forgetting(model, tokens, TOKENS, sinks), plain(model, tokens), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def mistral(sliding_window: int | None) -> PreTrainedModel:
    """A tiny model whose own attention slides, with the same weights for every window."""
    torch.manual_seed(0)
    shape: dict[str, Any] = {**COMMON, **LLAMA_SHAPE, "sliding_window": sliding_window, "use_cache": False}
    config = MistralConfig(**shape)
    model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for layer in model.model.layers:
        layer.self_attn.q_proj.weight.mul_(20)  # so that it matters what is seen
    found: PreTrainedModel = model.requires_grad_(False).eval()
    return found


@torch.no_grad()
def test_a_window_without_sinks_is_what_a_model_does_that_slides_by_itself() -> None:
    tokens = text()
    expected = plain(mistral(7), tokens)
    torch.testing.assert_close(forgetting(mistral(None), tokens, 7, 0), expected, rtol=1e-4, atol=1e-5)
    assert (expected - plain(mistral(None), tokens))[7:].abs().max() > 1e-2


@pytest.mark.parametrize(("window", "sinks"), [(TOKENS, 0), (TOKENS, 3), (9, 0), (9, 3)])
@torch.no_grad()
def test_a_layer_that_slides_by_itself_still_slides(window: int, sinks: int) -> None:
    """Within the cache the sinks are no nearer than six tokens, beyond the five that the layers look back."""
    model, tokens = mistral(5), text()
    torch.testing.assert_close(forgetting(model, tokens, window, sinks), plain(model, tokens), rtol=1e-4, atol=1e-5)


def test_a_layer_that_slides_by_itself_looks_back_in_the_cache() -> None:
    """To two of the three sinks, which in the text are ever further away."""
    model, tokens = mistral(8), text()
    expected = token_by_token(model, tokens, 9, 3)
    torch.testing.assert_close(forgetting(model, tokens, 9, 3), expected, rtol=1e-4, atol=1e-5)


def test_the_model_computes_its_attention_as_before() -> None:
    model, tokens = tiny_model(), text()
    before, own = plain(model, tokens), model.config._attn_implementation
    forgetting(model, tokens, 5, 1)
    assert model.config._attn_implementation == own
    assert torch.equal(plain(model, tokens), before)


# --- what can't be evicted ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ROTARY)
def test_models_with_rotary_positions_are_served(kind: str) -> None:
    assert why_not(tiny_model(kind), text()) is None


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("gpt2", "positions that are part of its tokens"), ("opt", "positions that are part"), ("bloom", "interface")],
)
def test_models_whose_positions_cant_be_counted_anew_are_refused(kind: str, reason: str) -> None:
    refused = why_not(tiny_model(kind, outliers=False), text())
    assert refused is not None
    assert reason in refused


def test_layers_without_single_tokens_are_refused() -> None:
    model = tiny_model()
    model.config.layer_types = ["full_attention", "linear_attention", "full_attention"]
    assert why_not(model, text()) == (
        "LlamaForCausalLM has layers of type linear_attention, from which single tokens can't be evicted"
    )


def test_attention_that_is_more_than_is_computed_here_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    attend = eviction.attend
    monkeypatch.setattr(eviction, "attend", lambda *states, **options: attend(*states, **{**options, "softcap": 0.5}))
    refused = why_not(mistral(None), text())
    assert refused == "MistralForCausalLM does something in its attention that is not computed here"


# --- sinks --------------------------------------------------------------------------------------------------------


SINK, FIRST_WORD = 2, 4


def model_with_a_sink() -> PreTrainedModel:
    """All heads attend to the token SINK, which adds nothing, or else to all tokens, which adds noise.

    What comes next is told from the present token alone, as long as there is no noise.
    """
    model: Any = tiny_model(outliers=False)
    generator = torch.Generator().manual_seed(0)
    model.set_input_embeddings(torch.nn.Embedding(64, 32))
    embeddings = torch.randn(64, 32, generator=generator)
    embeddings[:, :2] = torch.tensor([0.0, 2.0])
    embeddings[SINK] = 0
    embeddings[SINK, :2] = torch.tensor([5.0, 2.0])
    following = torch.arange(64) + 1
    following[-1] = FIRST_WORD
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(embeddings)
        model.lm_head.weight = torch.nn.Parameter(torch.zeros(64, 32))
        model.lm_head.weight[following, 2:] = 2 * embeddings[:, 2:]
        for norm in (module for name, module in model.named_modules() if name.endswith("norm")):
            norm.weight.fill_(1.0)
        for layer in model.model.layers:
            layer.mlp.down_proj.weight.zero_()
            own = layer.self_attn
            for projection in (own.q_proj, own.k_proj, own.v_proj):
                projection.weight.zero_()
            own.q_proj.weight[3::8, 1] = 20.0  # the slowest pair of a head's channels, which hardly turns
            own.k_proj.weight[3::8, 0] = 5.0
            own.v_proj.weight[:, 2:] = 4 * torch.randn(16, 30, generator=generator)
            own.o_proj.weight.copy_(torch.randn(32, 32, generator=generator))
            own.o_proj.weight[:2] = 0
    found: PreTrainedModel = model.requires_grad_(False).eval()
    return found


def text_with_a_sink(place: int) -> Tensor:
    """Words in order, around and around, with SINK at some place [1, 48]."""
    words = FIRST_WORD + torch.arange(48) % 60
    words[place] = SINK
    return words[None]


@pytest.mark.parametrize("place", [0, 2])
def test_a_planted_sink_is_missed_as_soon_as_it_is_evicted_and_not_before(place: int) -> None:
    table = evict(model_with_a_sink(), [text_with_a_sink(place)], 12, [1, 3], CPU)
    nll = table.pivot_table("nll", index="position", columns="arm")
    increase = nll.sub(nll["full"], axis=0)
    assert nll["full"][place + 2 :].mean() < 0.5
    for arm, sinks in (("window", 0), ("window + 1", 1), ("window + 3", 3)):
        read = len(nll) + 1 if sinks > place else place + 12 - sinks  # tokens, when the sink is the next to go
        assert increase[arm][:read].abs().max() < 1e-3
        assert sinks > place or increase[arm][read:].mean() > 2


# --- the table ----------------------------------------------------------------------------------------------------


def test_every_token_has_a_row_for_every_arm(tmp_path: Path) -> None:
    model, texts = tiny_model(outliers=False), [text(32, seed) for seed in range(2)]
    table = evict(model, texts, 8, [1, 4], CPU)
    write_table(EVICTION, table.assign(corpus="prose"), tmp_path / "eviction.parquet")
    table = read_table(EVICTION, tmp_path / "eviction.parquet").set_index(["arm", "text"])
    for index, tokens in enumerate(texts):
        for arm, sinks in (("full", None), ("window", 0), ("window + 1", 1), ("window + 4", 4)):
            own: Any = table.loc[(arm, index)]
            logits = plain(model, tokens) if sinks is None else forgetting(model, tokens, 8, sinks)
            expected = cross_entropy(logits[:-1], tokens[0, 1:], reduction="none")
            assert own["position"].tolist() == list(range(1, 32))
            np.testing.assert_allclose(own["nll"], expected, rtol=1e-5)
            assert own["sink_tokens"].isna().all() if sinks is None else (own["sink_tokens"] == sinks).all()
            assert own["reason"].isna().all()


def test_a_model_that_is_refused_still_reads_with_a_full_cache(tmp_path: Path) -> None:
    table = evict(tiny_model("gpt2"), [text(32)], 8, [4], CPU)
    write_table(EVICTION, table.assign(corpus="prose"), tmp_path / "eviction.parquet")
    own: Any = table.set_index("arm")
    assert own.loc["full", "nll"].notna().all()
    assert own.loc["full", "reason"].isna().all()
    for arm in ("window", "window + 4"):
        assert own.loc[arm, "nll"].isna().all()
        assert own.loc[arm, "reason"].str.startswith("GPT2LMHeadModel has positions").all()


def test_logits_that_are_no_numbers_are_an_error() -> None:
    model: Any = tiny_model(outliers=False)
    with torch.no_grad():
        model.lm_head.weight[3] = float("nan")
    with pytest.raises(InferometerError, match=r"not numbers \(NaN\) in text 0 \(full\)"):
        evict(model, [text(32)], 8, [4], CPU)


# --- the texts ----------------------------------------------------------------------------------------------------


def manifest(context_tokens: int) -> Manifest:
    """What is known of a model that is never opened."""
    return Manifest(
        name="tiny",
        origin="nowhere",
        architecture="LlamaForCausalLM",
        parameters=1,
        layers=3,
        hidden_size=32,
        vocabulary=64,
        context_tokens=context_tokens,
        dtype="float32",
        random_weights=False,
        seed=None,
        files=(),
    )


def settings(**changes: object) -> dict[str, object]:
    """The section of the configuration."""
    return {"corpus": "prose", "window_tokens": 16, "sink_tokens": [4], "max_windows": "all", **changes}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer, and a corpus of 1,200 tokens."""
    path = tmp_path_factory.mktemp("texts")
    tiny_tokenizer().save_pretrained(path)
    texts = tiny_texts()
    write_table(CORPUS, pd.DataFrame({"text_index": range(len(texts)), "text": texts}), path / "corpus.parquet")
    return path


def test_texts_are_four_windows_long_and_do_not_overlap(folder: Path) -> None:
    texts = read_texts(manifest(64), folder, folder / "corpus.parquet", settings())
    whole = tokenize(tiny_tokenizer(), tiny_texts())
    assert len(texts) == 1200 // 64
    assert torch.equal(torch.cat(texts, dim=1)[0], whole[: 64 * len(texts)])
    assert len(read_texts(manifest(64), folder, folder / "corpus.parquet", settings(max_windows=3))) == 3


@pytest.mark.parametrize(
    ("context_tokens", "changes", "sentence"),
    [
        (63, {}, r"`attention\.eviction\.window_tokens` is 16, and texts are 4 times as long.* set it to at most 15"),
        (4096, {"window_tokens": 400}, r"`attention\.eviction\.corpus`\) has 1200 tokens"),
        (
            4096,
            {"max_windows": 1},
            r"`attention\.eviction\.corpus`\) fills 1 window of 64 tokens, but an interval needs 2",
        ),
    ],
)
def test_texts_that_do_not_fit_are_refused_before_weights_are_read(
    folder: Path, context_tokens: int, changes: dict[str, object], sentence: str
) -> None:
    with pytest.raises(InferometerError, match=sentence):
        read_texts(manifest(context_tokens), folder, folder / "corpus.parquet", settings(**changes))
