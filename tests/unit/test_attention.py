"""What heads attend to: against transformers' own weights, against theory, and with sinks that are planted."""

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache, PreTrainedModel

from inferometer.attention import capture as capturing_module
from inferometer.attention import rounded as rounded_module
from inferometer.attention.capture import FIRST, RECENT, Recorder, capture, capturing
from inferometer.attention.inputs import Text, begun_otherwise, streams_of, texts_of
from inferometer.attention.names import ALL_TEXTS, BOS, DUMMIES, FLOAT, OWN, RANDOM, REPEATED
from inferometer.attention.phases import phases_of, segment
from inferometer.attention.residuals import LARGEST, watching
from inferometer.attention.rounded import rounded_attention
from inferometer.attention.summary import summarize_phases, summarize_rounded, summarize_sinks
from inferometer.attention.tables import ATTENTION_SCHEMES, HEADS, MAPS, PHASES, POSITIONS, RESIDUALS, ROUNDED, SINKS
from inferometer.attention.trace import Trace, trace
from inferometer.device import Device
from inferometer.errors import InferometerError
from inferometer.kv_cache.policies import Policy
from inferometer.manifest import Manifest
from inferometer.schemes import Scheme
from inferometer.sources.tables import QUESTIONS
from inferometer.tables import read_table, write_table
from tests.tiny import CONTEXT_TOKENS, tiny_model, tiny_texts, tiny_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = Device("cpu", "a processor")
KINDS = ("llama", "qwen2", "gemma", "gemma2", "gpt2", "opt", "gpt_neox", "mixtral")
TOKENS = torch.randint(4, 64, (1, 48), generator=torch.Generator().manual_seed(0))
W8A8 = {"weights": {"bits": 8, "granularity": "per_channel"}, "activations": {"bits": 8, "granularity": "per_token"}}
W2 = {"weights": {"bits": 2, "granularity": "per_channel"}, "activations": {"bits": 2, "granularity": "per_token"}}


def eager(model: PreTrainedModel, tokens: Tensor) -> Any:
    """Logits and attention weights by transformers' own arithmetic."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    with torch.no_grad():
        output: Any = model(tokens, output_attentions=True)
    model.set_attn_implementation(before)
    return output


def plant_sink(model: PreTrainedModel, layer: int) -> None:
    """Let all queries of a layer meet the first token's key, and no other.

    All lies in the pair of channels that turns slowest with the position.
    """

    def pointed(only_first: bool) -> Any:
        def hook(_module: Any, _arguments: Any, output: Tensor) -> Tensor:
            own = torch.zeros_like(output)
            own[:, : 1 if only_first else None, 3::8] = 10
            return own

        return hook

    own = model.get_submodule(f"model.layers.{layer}.self_attn")
    own.get_submodule("q_proj").register_forward_hook(pointed(only_first=False))
    own.get_submodule("k_proj").register_forward_hook(pointed(only_first=True))


@pytest.mark.parametrize("outliers", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_captured_is_what_transformers_own_weights_say(kind: str, outliers: bool, monkeypatch: Any) -> None:
    monkeypatch.setattr(capturing_module, "BLOCK_BYTES", 1)  # as few queries at once as there may be
    model = tiny_model(kind, outliers=outliers)
    expected, found = eager(model, TOKENS), capture(model, TOKENS, cells=64)
    assert not found.missing
    scale = float(expected.logits.abs().max())
    assert torch.allclose(found.logits, expected.logits[0, -1:], atol=2e-5 * scale)
    count = TOKENS.shape[1]
    places = torch.arange(count)
    for layer, weights in enumerate(attention[0] for attention in expected.attentions):
        own = found.layers[layer]
        assert own.map is not None
        assert torch.allclose(own.map, weights, atol=3e-5)
        for k in FIRST:
            assert torch.allclose(own.first[k].float(), weights[:, k:, :k].sum(-1).mean(-1), atol=3e-5)
        near = (places[:, None] - places < RECENT) & (places[:, None] >= places)
        assert torch.allclose(own.recent.float(), (weights * near).sum(-1)[:, RECENT:].mean(-1), atol=3e-5)
        entropy = torch.special.entr(weights).sum(-1)
        assert torch.allclose(own.entropy.float(), entropy[:, 1:].mean(-1), atol=2e-4)
        distance = (weights * (places[:, None] - places)).sum(-1)
        assert torch.allclose(own.distance.float(), distance[:, 1:].mean(-1), atol=2e-3)
        received = weights.tril(diagonal=-1).sum(1)[:, :-1] / torch.arange(count - 1, 0, -1)
        assert torch.allclose(own.received[:, :-1].float(), received, atol=3e-5)
        assert own.received[:, -1].isnan().all()


def test_a_sliding_window_is_each_layers_own_and_soft_capping_is_done() -> None:
    model = tiny_model("gemma2", outliers=False)
    assert model.config.layer_types[:2] == ["sliding_attention", "full_attention"]
    found = capture(model, TOKENS).layers
    window = model.config.sliding_window
    seen = [min(place + 1, window) for place in range(48)]
    first = [max(0, min(2, window - place + 1)) if place >= window else 2 for place in range(48)]
    expected = np.mean([a / b for a, b in list(zip(first, seen, strict=True))[2:]])
    assert found[0].uniform[2] == pytest.approx(expected)
    assert found[1].uniform[2] == pytest.approx(np.mean([2 / (place + 1) for place in range(2, 48)]))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "q_proj" in name or "k_proj" in name:
                parameter.mul_(60)  # so that scores meet the cap
    assert torch.allclose(capture(model, TOKENS).logits, eager(model, TOKENS).logits[0, -1:], atol=1e-4)


def test_half_precision_is_softened_in_float32() -> None:
    model = tiny_model("llama", outliers=False).bfloat16()
    expected, found = eager(model, TOKENS), capture(model, TOKENS, cells=64)
    for layer, weights in enumerate(attention[0] for attention in expected.attentions):
        own = found.layers[layer].map
        assert own is not None
        assert torch.allclose(own, weights.float(), atol=0.02)
        assert torch.allclose(own.sum(-1), torch.ones(own.shape[:2]), atol=1e-5)


def test_reading_in_steps_after_a_cache_finds_the_same_of_the_same_queries() -> None:
    model = tiny_model("llama", outliers=False)
    weights = [attention[0] for attention in eager(model, TOKENS).attentions]
    cache = DynamicCache()
    with torch.no_grad():
        model(TOKENS[:, :20], past_key_values=cache, use_cache=True)
        with capturing(model) as recorder:
            for step in TOKENS[:, 20:].split(5, dim=1):
                model(step, past_key_values=cache, use_cache=True)
    for layer, own in recorder.layers().items():
        expected = weights[layer][:, 20:]
        assert torch.allclose(own.first[2].float(), expected[..., :2].sum(-1).mean(-1), atol=1e-5)
        assert torch.allclose(own.entropy.float(), torch.special.entr(expected).sum(-1).mean(-1), atol=1e-4)
        later = torch.tensor([47 - max(place, 19) for place in range(47)])
        received = (weights[layer] * (torch.arange(48) >= 20)[:, None]).tril(diagonal=-1).sum(1)[:, :47] / later
        assert torch.allclose(own.received[:, :47].float(), received, atol=1e-5)


@settings(max_examples=25)
@given(tokens=st.integers(2, 70), cells=st.integers(1, 64), seed=st.integers(0, 9))
def test_maps_are_shared_out_and_means_are_within_their_bounds(tokens: int, cells: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    query, key, value = (torch.randn(heads, tokens, 4, generator=generator) for heads in (6, 2, 2))
    recorder = Recorder(cells)
    output = recorder.attend(0, query, key, value, None, 0.5, 0.0)
    expected = torch.nn.functional.scaled_dot_product_attention(
        query[None], key[None], value[None], is_causal=True, scale=0.5, enable_gqa=True
    )
    assert torch.allclose(output.transpose(0, 1), expected[0], atol=1e-5)
    [own] = recorder.layers().values()
    assert own.map is not None
    assert own.map.shape == (6, min(cells, tokens), min(cells, tokens))
    assert torch.allclose(own.map.sum(-1), torch.ones(own.map.shape[:2]), atol=1e-5)
    assert (own.map.triu(diagonal=1) == 0).all()
    limit = np.mean([np.log(place + 1) for place in range(1, tokens)])
    assert ((own.entropy > -1e-4) & (own.entropy < limit + 1e-4)).all()
    assert ((own.distance >= -1e-4) & (own.distance < tokens)).all()
    given = own.received[:, :-1] * torch.arange(tokens - 1, 0, -1)
    assert (given.sum(-1) <= tokens - 1 + 1e-3).all()


def test_equal_looks_give_the_uniform_baseline_and_the_largest_entropy() -> None:
    recorder = Recorder()
    recorder.attend(0, torch.zeros(2, 40, 4), torch.randn(2, 40, 4), torch.randn(2, 40, 4), None, 1.0, 0.0)
    [own] = recorder.layers().values()
    for k in FIRST:
        assert own.first[k].tolist() == pytest.approx([own.uniform[k]] * 2, rel=1e-5)
    assert own.entropy.tolist() == pytest.approx([np.mean(np.log(range(2, 41)))] * 2, rel=1e-5)
    assert own.distance.tolist() == pytest.approx([np.mean(np.arange(1, 40) / 2)] * 2, rel=1e-5)


def test_a_planted_sink_is_found_in_its_layer_alone() -> None:
    model = tiny_model("llama", outliers=False)
    plant_sink(model, 1)
    found = capture(model, TOKENS).layers
    assert found[1].first[1].tolist() == pytest.approx([1.0] * 4, abs=1e-5)
    assert found[1].entropy.tolist() == pytest.approx([0.0] * 4, abs=1e-4)
    assert found[1].received[:, 0].tolist() == pytest.approx([1.0] * 4, abs=1e-5)
    assert max(found[0].first[1].tolist()) < 3 * found[0].uniform[1]


def test_a_batch_is_refused_and_the_model_is_as_before() -> None:
    model = tiny_model("llama")
    before = model.config._attn_implementation
    with pytest.raises(InferometerError, match="one text at a time, without padding"):
        capture(model, TOKENS.repeat(2, 1))
    assert model.config._attn_implementation == before
    assert torch.equal(model(TOKENS).logits, tiny_model("llama")(TOKENS).logits)


def test_scores_that_can_not_be_followed_are_refused_by_their_name() -> None:
    layer = torch.nn.Identity()
    states = torch.zeros(1, 2, 3, 4)
    with pytest.raises(InferometerError, match="Identity adds s_aux to its attention"):
        capturing_module._attention(layer, states, states, states, None, s_aux=torch.zeros(2))


def hybrid() -> PreTrainedModel:
    """A tiny model of three gated-delta-net layers and one with softmax attention."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "qwen3_next",
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        linear_num_key_heads=2,
        linear_num_value_heads=2,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        num_experts=0,
        max_position_embeddings=CONTEXT_TOKENS,
    )
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    model.eval()
    return model


def test_layers_without_softmax_attention_are_listed_with_their_reason() -> None:
    found = capture(hybrid(), TOKENS)
    assert sorted(found.layers) == [3]
    assert found.missing == dict.fromkeys(
        range(3), "the layer is of type linear_attention, which has no softmax attention"
    )
    all_missing = capture(tiny_model("bloom"), TOKENS)
    assert not all_missing.layers
    assert "BloomForCausalLM does not compute it through" in all_missing.missing[2]


def test_the_memory_of_weights_does_not_grow_with_the_square_of_the_text() -> None:
    recorder = Recorder()
    states = torch.randn(1, 2048, 4)
    recorder.attend(0, states, states, states, None, 1.0, 0.0)
    assert sum(buffer.nbytes for buffer in recorder._buffers) <= 2 * capturing_module.BLOCK_BYTES


def test_a_planted_massive_activation_is_found_behind_its_layer() -> None:
    model = tiny_model("llama", outliers=False)
    own = model.get_submodule("model.layers.1.mlp")
    handle = own.register_forward_hook(lambda _m, _i, output: _with_spike(output))
    with watching(model) as rows, torch.no_grad():
        model(TOKENS)
    handle.remove()
    table = pd.DataFrame(rows)
    assert len(table) == 3 * LARGEST
    top = table[table["rank"] == 0].set_index("layer")
    assert top["channel"][1] == 7
    assert top["value"][1] == pytest.approx(-900, abs=5)
    assert top["later_magnitude"][1] < 10
    assert abs(top["value"][0]) < 10
    assert top["channel"][2] == 7


def _with_spike(output: Tensor) -> Tensor:
    output = output.clone()
    output[0, 0, 7] -= 900
    return output


SETTINGS: dict[str, Any] = {"lengths": {"short": {"tokens": 16, "texts": 2}, "long": {"tokens": 48, "texts": 3}}}
BEGIN: dict[str, Any] = {"input": "prose", "length": "long", "words": {"common": "word1"}}


def manifest(context_tokens: int = CONTEXT_TOKENS) -> Manifest:
    return Manifest("tiny", "here", "Llama", 1, 3, 32, 64, context_tokens, "float32", False, None, ())


def prepared() -> tuple[list[Text], list[Text]]:
    tokenizer = tiny_tokenizer()
    encoded: Any = tokenizer(" ".join(tiny_texts()))
    texts = texts_of(tokenizer, {"prose": torch.tensor(encoded["input_ids"])}, SETTINGS, manifest())
    begun, reason = begun_otherwise(tokenizer, texts, BEGIN)
    assert reason is None
    return texts, begun


def test_texts_are_of_every_input_and_length_and_dummies_are_what_they_are_called() -> None:
    texts, begun = prepared()
    assert {(text.input, text.length) for text in texts} == {
        (name, length) for name in ("prose", *DUMMIES) for length in ("short", "long")
    }
    assert all(text.tokens.shape[1] == SETTINGS["lengths"][text.length]["tokens"] for text in texts)
    assert all(len(text.tokens.unique()) == 1 for text in texts if text.input == REPEATED)
    drawn = [text.tokens for text in texts if text.input == RANDOM and text.length == "long"]
    assert not torch.equal(drawn[0], drawn[1])
    special = tiny_tokenizer().all_special_ids
    assert not any(int(token) in special for tokens in drawn for token in tokens[0])
    own = {text.number: text.tokens for text in texts if (text.input, text.length) == ("prose", "long")}
    for text in begun:
        assert text.tokens.shape == (1, 48)
        if text.first_token == BOS:
            assert int(text.tokens[0, 0]) == 0
            assert torch.equal(text.tokens[:, 1:], own[text.number][:, :-1])
        else:
            assert text.first_token == "common"
            assert torch.equal(text.tokens[:, 1:], own[text.number][:, 1:])
    assert len(begun) == 6


def test_questions_are_read_with_their_right_endings(tmp_path: Any) -> None:
    rows = [
        {"item": item, "context": f"word{item} word2", "ending": ending, "text": f"word{9 - ending}"}
        for item in (1, 0)
        for ending in (0, 1)
    ]
    table = pd.DataFrame(rows).assign(is_correct=lambda table: table["ending"] == 1)
    write_table(QUESTIONS, table, tmp_path / "quiz.parquet")
    tokenizer = tiny_tokenizer()
    [(name, tokens)] = streams_of(tokenizer, {}, {"quiz": tmp_path / "quiz.parquet"}).items()
    assert name == "quiz"
    words: Any = tokenizer.decode(tokens.tolist())
    assert words.split() == ["word0", "word2", "word8", "word1", "word2", "word8"]


def test_a_text_beyond_the_context_and_a_short_corpus_are_refused_by_their_keys() -> None:
    with pytest.raises(InferometerError, match=r"`attention.inputs.lengths.long.tokens` is 48.*context of 40 tokens"):
        texts_of(tiny_tokenizer(), {}, SETTINGS, manifest(40))
    with pytest.raises(InferometerError, match=r"'prose' \(`attention.inputs`\) fills 2 of the 3 texts of 48 tokens"):
        texts_of(tiny_tokenizer(), {"prose": torch.zeros(100, dtype=torch.int64)}, SETTINGS, manifest())


@pytest.fixture(scope="module")
def traced() -> Trace:
    texts, begun = prepared()
    return trace(tiny_model("llama"), tiny_tokenizer(), texts, begun, None, CPU)


def test_the_raw_tables_are_as_declared_and_hold_what_was_captured(traced: Trace, tmp_path: Any) -> None:
    for table, frame in (
        (HEADS, traced.heads),
        (POSITIONS, traced.positions),
        (MAPS, traced.maps),
        (RESIDUALS, traced.residuals),
    ):
        write_table(table, frame, tmp_path / "table.parquet")
        assert len(read_table(table, tmp_path / "table.parquet")) == len(frame) > 0
    texts, begun = prepared()
    assert len(traced.heads) == (len(texts) + len(begun)) * 3 * 4
    found = capture(tiny_model("llama"), texts[-1].tokens).layers[2]
    own = traced.heads[(traced.heads["input"] == texts[-1].input) & (traced.heads["length"] == texts[-1].length)]
    own = own[(own["text"] == texts[-1].number) & (own["layer"] == 2)].sort_values("head")
    assert own["first_2"].tolist() == pytest.approx(found.first[2].tolist())
    assert own["uniform_2"].tolist() == pytest.approx([found.uniform[2]] * 4)
    full = traced.maps[(traced.maps["length"] == "short") & (traced.maps["map"] == "sink")]
    assert set(full["cell_tokens"]) == {1}
    assert full[full["input"] == "prose"].groupby("row")["share"].sum().tolist() == pytest.approx([1.0] * 16, rel=1e-5)
    assert full["row_text"].notna().all()


def test_a_text_without_bos_and_a_model_without_softmax_become_rows_with_reasons(tmp_path: Any) -> None:
    texts, begun = prepared()
    found = trace(tiny_model("bloom"), tiny_tokenizer(), texts[:1], begun[:1], "no token begins a text", CPU)
    write_table(HEADS, found.heads, tmp_path / "heads.parquet")
    rows = read_table(HEADS, tmp_path / "heads.parquet")
    assert rows["reason"].notna().all()
    assert rows["head"].isna().all()
    assert set(rows["layer"].dropna()) == {0, 1, 2}
    write_table(MAPS, found.maps, tmp_path / "maps.parquet")
    write_table(POSITIONS, found.positions, tmp_path / "positions.parquet")
    assert read_table(MAPS, tmp_path / "maps.parquet").empty
    assert summarize_sinks({"bloom": rows}).empty
    assert summarize_phases({"bloom": rows}).empty


def rounded(model: PreTrainedModel) -> pd.DataFrame:
    windows = list(TOKENS.view(2, 1, 24))
    schemes = [Scheme.of("w8a8", W8A8), Scheme.of("w2", W2)]
    policies = [Policy.of("coarse", {"bits": 2, "group_size": 8}), Policy.of("fine", {"bits": 8, "group_size": 8})]
    settings = {"context_tokens": 8, "step_tokens": 4}
    return rounded_attention(model, windows, "fp", schemes, policies, settings, CPU)


def test_rounding_moves_attention_the_more_the_coarser_it_is() -> None:
    found = rounded(tiny_model("llama", outliers=False))
    table = summarize_rounded({"tiny": found}, "fp")
    moved = table[table["layer"].isna()].set_index(["scheme", "cache"])["entropy_moved"]
    assert moved["fp", FLOAT] == 0
    assert 0 < moved["w8a8", FLOAT] < moved["w2", FLOAT] / 5
    assert 0 < moved["fp", "fine"] < moved["fp", "coarse"] / 5


def test_the_float_arm_is_what_transformers_own_weights_say_of_the_later_tokens(tmp_path: Any) -> None:
    model = tiny_model("llama", outliers=False)
    found = rounded(model)
    write_table(ROUNDED, found, tmp_path / "rounded.parquet")
    own = found[(found["scheme"] == "fp") & (found["cache"] == FLOAT) & (found["text"] == 1)]
    for layer, attention in enumerate(eager(model, TOKENS.view(2, 24)[1:]).attentions):
        expected = attention[0, :, 8:, :2].sum(-1).mean(-1)
        assert own[own["layer"] == layer].sort_values("head")["first_2"].tolist() == pytest.approx(
            expected.tolist(), rel=1e-4
        )


def test_a_cache_that_can_not_serve_a_model_is_a_row_that_says_why(monkeypatch: Any) -> None:
    monkeypatch.setattr(
        rounded_module, "why_not", lambda _model, policy: "it won't" if policy.name == "coarse" else None
    )
    found = rounded(tiny_model("llama"))
    assert set(found[found["cache"] == "coarse"]["reason"]) == {"it won't"}
    assert found[found["cache"] == "fine"]["reason"].isna().all()
    assert "coarse" not in set(summarize_rounded({"tiny": found}, "fp")["cache"])


def planted(levels: list[float], lengths: list[int], noise: float, texts: int = 6) -> Any:
    rng = np.random.default_rng(1)
    curve = np.repeat(levels, lengths)
    return curve + noise * rng.normal(size=(texts, len(curve)))


def test_planted_phases_are_found_with_their_layers_and_names() -> None:
    found = phases_of(planted([0.05, 0.8, 0.5], [5, 18, 7], 0.02))
    assert [(stretch.phase, stretch.first, stretch.last) for stretch in found.stretches] == [
        ("emergence", 0, 4),
        ("plateau", 5, 22),
        ("decline", 23, 29),
    ]
    assert [stretch.level for stretch in found.stretches] == pytest.approx([0.05, 0.8, 0.5], abs=0.01)
    assert all(stretch.first_low <= stretch.first <= stretch.first_high for stretch in found.stretches)
    assert found.agreeing > 0.8


def test_a_level_curve_has_no_phases_but_the_plateau() -> None:
    found = phases_of(planted([0.4], [24], 0.02, texts=40))
    assert [stretch.phase for stretch in found.stretches] == ["plateau"]


def test_texts_that_disagree_widen_the_bounds() -> None:
    early, late = planted([0.1, 0.7], [8, 16], 0.01), planted([0.1, 0.7], [14, 10], 0.01)
    sure = phases_of(early).stretches[1]
    unsure = phases_of(np.concatenate([early[:3], late[:2]]))
    assert sure.first_low == sure.first == sure.first_high == 8
    begins = [stretch.first_high - stretch.first_low for stretch in unsure.stretches]
    assert max(begins) > 0 or unsure.agreeing < 1


@settings(max_examples=30)
@given(st.lists(st.floats(0, 1), min_size=4, max_size=9))
def test_the_segmentation_is_the_best_of_all(values: list[float]) -> None:
    curve = np.array(values)

    def squares(cuts: tuple[int, ...]) -> float:
        parts = np.split(curve, cuts)
        return float(sum(((part - part.mean()) ** 2).sum() for part in parts))

    for stretches, (best, begins) in enumerate(segment(curve[None]), start=1):
        options = [
            cuts
            for cuts in _combinations(len(curve), stretches - 1)
            if min(np.diff([0, *cuts, len(curve)]), default=0) >= 2
        ]
        assert best[0] == pytest.approx(min(map(squares, options)), abs=1e-9)
        assert squares(tuple(begins[0][1:])) == pytest.approx(best[0], abs=1e-9)


def _combinations(count: int, cuts: int) -> list[tuple[int, ...]]:
    return list(itertools.combinations(range(1, count), cuts))


def test_sinks_are_means_over_heads_and_texts_with_their_intervals(traced: Trace, tmp_path: Any) -> None:
    table = summarize_sinks({"tiny": traced.heads})
    write_table(SINKS, table, tmp_path / "sinks.parquet")
    rows = traced.heads[(traced.heads["input"] == "prose") & (traced.heads["length"] == "long")]
    rows = rows[(rows["first_token"] == OWN) & (rows["layer"] == 1)]
    own = table[(table["input"] == "prose") & (table["length"] == "long") & (table["layer"] == 1)]
    own = own[own["first_token"] == OWN]
    assert own["share"].item() == pytest.approx(rows["first_2"].mean())
    texts = rows.groupby("text")["first_2"].mean()
    assert texts.min() <= own["share_low"].item() < own["share"].item() < own["share_high"].item() <= texts.max()
    assert own["texts"].item() == 3


def test_phases_of_all_texts_together_leave_dummies_out(traced: Trace, tmp_path: Any) -> None:
    heads = traced.heads.copy()
    meaningful = heads["input"] == "prose"
    heads.loc[meaningful & (heads["layer"] == 0), "first_2"] = 0.0
    table = summarize_phases({"tiny": heads})
    write_table(PHASES, table, tmp_path / "phases.parquet")
    together = table[(table["input"] == ALL_TEXTS) & (table["length"] == "long")]
    alone = table[(table["input"] == "prose") & (table["length"] == "long")]
    assert together["share"].tolist() == pytest.approx(alone["share"].tolist())


def test_changes_are_paired_text_by_text(tmp_path: Any) -> None:
    rows = [
        {"scheme": scheme, "cache": FLOAT, "text": text, "layer": 0, "head": 0, "first_2": 0.1 * text + shift}
        for scheme, shift in (("fp", 0.0), ("w4", -0.05))
        for text in range(4)
    ]
    rest = dict.fromkeys(("first_1", "first_4", "recent", "entropy", "distance_tokens"), 1.0)
    table = summarize_rounded({"tiny": pd.DataFrame(rows).assign(**rest, reason=None)}, "fp")
    write_table(ATTENTION_SCHEMES, table, tmp_path / "schemes.parquet")
    own = table[(table["scheme"] == "w4") & table["layer"].isna()].iloc[0]
    assert own["share_change"] == pytest.approx(-0.05)
    assert own["share_change_high"] == pytest.approx(-0.05), "the texts differ, their pairs do not"
