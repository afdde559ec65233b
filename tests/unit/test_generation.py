"""The generation chapter: planted loops, words whose rarity is known another way, and what is made of both."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from inferometer.device import Device
from inferometer.errors import InferometerError
from inferometer.features import entropy, received_attention, saliency
from inferometer.generation import figures
from inferometer.generation import trace as trace_module
from inferometer.generation.insertions import AFTER_TOKENS, encode_words, find_contexts, insert, word_tokens
from inferometer.generation.loops import LEAST_TURNS, LONGEST_PERIOD, PASSAGE_TOKENS, Loop, find_loop, repeated
from inferometer.generation.prepare import prepare
from inferometer.generation.summary import STRETCH_TOKENS, summarize_features, summarize_insertions
from inferometer.generation.tables import ALL_WORDS, FEATURES, INSERTED, INSERTIONS, LOGGED, WRITTEN
from inferometer.generation.trace import Trace, own_tokens, trace
from inferometer.intervals import bootstrap_mean
from inferometer.manifest import Manifest
from inferometer.models import tokenize
from inferometer.plotting import save
from inferometer.sources.tables import CORPUS
from inferometer.tables import write_table
from inferometer.writing import encoded
from tests.synthetic import features as made_up_features
from tests.synthetic import insertions as made_up_insertions
from tests.synthetic import written as made_up_written
from tests.tiny import tiny_model, tiny_texts, tiny_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = Device("cpu", "a processor")
CHAT = "{% for message in messages %}word50 {{ message.content }} word51 {% endfor %}word52"


# --- repetition ---------------------------------------------------------------------------------------------------


def turns(period: int, seed: int) -> list[int]:
    """Different tokens of one turn."""
    return [int(token) for token in np.random.default_rng(seed).permutation(10_000)[:period]]


@given(
    st.lists(st.integers(20_000, 30_000), max_size=80),
    st.integers(1, LONGEST_PERIOD),
    st.integers(0, 300),
    st.integers(0, 9),
)
def test_a_planted_loop_is_found_where_it_begins(before: list[int], period: int, more: int, seed: int) -> None:
    turn = turns(period, seed)
    tail = [turn[place % period] for place in range(LEAST_TURNS * period + more)]
    assert find_loop([*before, *tail]) == Loop(len(before), period)


@given(st.integers(2, LONGEST_PERIOD), st.integers(0, 9))
def test_two_turns_are_no_loop(period: int, seed: int) -> None:
    turn = turns(period, seed)
    assert find_loop([*turn, *turn, *turn[:-1]]) is None


@given(st.lists(st.integers(0, 10**9), max_size=300, unique=True))
def test_tokens_that_never_come_again_are_no_loop(tokens: list[int]) -> None:
    assert find_loop(tokens) is None
    assert not any(repeated(tokens))


def test_a_loop_whose_turn_ends_in_a_stutter_is_the_long_one() -> None:
    assert find_loop([1, *([2, 3, 4, 4, 4] * 6)]) == Loop(1, 5)


def test_a_loop_that_was_left_is_none_at_the_end() -> None:
    assert find_loop([*([2, 3] * 20), *range(50, 60)]) is None


@settings(max_examples=200)
@given(st.lists(st.integers(0, 2), max_size=60))
def test_what_is_repeated_is_what_a_search_through_the_whole_text_finds(tokens: list[int]) -> None:
    text = ",".join(map(str, tokens))
    expected = []
    for end in range(1, len(tokens) + 1):
        passage = tokens[max(0, end - PASSAGE_TOKENS) : end]
        earlier = [tokens[place - PASSAGE_TOKENS : place] for place in range(PASSAGE_TOKENS, end)]
        expected.append(len(passage) == PASSAGE_TOKENS and passage in earlier)
    assert repeated(tokens) == expected, text


# --- what was written ---------------------------------------------------------------------------------------------


PROMPTS = {"one": "word1 word5 word9", "two": "word7 word8"}


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return tiny_model(outliers=False)


@pytest.fixture(scope="module")
def traced(model: PreTrainedModel) -> Trace:
    tokenizer = tiny_tokenizer()
    prompts = {name: encoded(tokenizer, text) for name, text in PROMPTS.items()}
    return trace(model, tokenizer, prompts, 20, CPU)


def tokens_of(features: pd.DataFrame, prompt: str) -> Tensor:
    return torch.tensor([features[features["prompt"] == prompt]["token"].tolist()])


def test_every_written_token_is_the_likeliest_after_all_before_it(model: PreTrainedModel, traced: Trace) -> None:
    for prompt, text in PROMPTS.items():
        tokens, start = tokens_of(traced.features, prompt), len(text.split())
        assert tokens.shape[1] == start + 20
        for end in range(start, tokens.shape[1]):
            assert int(model(tokens[:, :end]).logits[0, -1].argmax()) == int(tokens[0, end])


def test_a_tokens_features_are_those_of_the_distribution_that_it_was_drawn_from(
    model: PreTrainedModel, traced: Trace
) -> None:
    own = traced.features[traced.features["prompt"] == "one"].set_index("position")
    tokens = tokens_of(traced.features, "one")
    for position in (1, 7, tokens.shape[1] - 1):
        logits = model(tokens[:, :position]).logits[0, -1]
        assert own["entropy"][position] == pytest.approx(float(entropy(logits)), rel=1e-4)
        log_probability = logits.log_softmax(dim=-1)[tokens[0, position]]
        assert own["rarity"][position] == pytest.approx(-float(log_probability), rel=1e-4)
    assert own[["entropy", "rarity"]].iloc[0].isna().all()


def test_saliency_and_attention_are_those_of_the_whole_text(model: PreTrainedModel, traced: Trace) -> None:
    own = traced.features[traced.features["prompt"] == "two"]
    tokens = tokens_of(traced.features, "two")
    whole, attention = saliency(model, tokens), received_attention(model, tokens)
    assert not isinstance(attention, str)
    assert own["saliency_norm"].tolist() == pytest.approx(whole.norm.tolist(), rel=1e-5)
    assert own["gradient_input"].tolist() == pytest.approx(whole.gradient_input.tolist(), rel=1e-4, abs=1e-6)
    assert own["received_attention"].tolist()[:-1] == pytest.approx(attention.tolist()[:-1], rel=1e-5)
    first = saliency(model, tokens[:, :2], last_only=True).norm.tolist()
    assert own["first_saliency_norm"].tolist()[:2] == pytest.approx(first, rel=1e-5)
    assert own["first_saliency_norm"].iloc[2:].isna().all()


def test_loops_and_ends_are_those_of_the_written_tokens(traced: Trace) -> None:
    features, rows = traced.features, traced.written.set_index("prompt")
    for prompt in PROMPTS:
        own = features[(features["prompt"] == prompt) & features["generated"]]
        loop = find_loop(own["token"].tolist())
        assert loop is not None, "a tiny model writes one word over and over"
        assert (rows["loop_after"][prompt], rows["loop_period"][prompt]) == (loop.start, loop.period)
        assert own["repeats"].tolist() == repeated(own["token"].tolist())
    assert not features[~features["generated"]]["repeats"].any()


def test_an_end_of_the_text_is_noted_and_written_over(model: PreTrainedModel) -> None:
    tokenizer = tiny_tokenizer()
    likeliest = int(model(torch.tensor([[5]])).logits[0, -1].argmax())
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(likeliest)
    row = trace(model, tokenizer, {"one": torch.tensor([[5]])}, 6, CPU).written.iloc[0]
    assert (row["ended_after"], row["text"], row["new_tokens"]) == (0, "", 6)


def test_tables_are_what_they_are_declared_to_be(traced: Trace, tmp_path: Path) -> None:
    write_table(WRITTEN, traced.written, tmp_path / "written.parquet")
    write_table(FEATURES, traced.features, tmp_path / "features.parquet")
    write_table(LOGGED, summarize_features({"tiny": traced.features}), tmp_path / "logged.parquet")


def test_a_model_that_hides_its_attention_is_traced_without(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(trace_module, "received_attention", lambda *_: "it keeps that to itself")
    found = trace(model, tiny_tokenizer(), {"one": torch.tensor([[5, 6]])}, 4, CPU)
    assert found.written["no_attention"].tolist() == ["it keeps that to itself"]
    assert found.features["received_attention"].isna().all()
    write_table(FEATURES, found.features, tmp_path / "features.parquet")
    write_table(LOGGED, summarize_features({"tiny": found.features}), tmp_path / "logged.parquet")


def test_a_prompts_own_tokens_are_told_from_the_chat_format() -> None:
    tokenizer = tiny_tokenizer()
    text = "word1 word2 word3"
    assert own_tokens(tokenizer, encoded(tokenizer, text)[0].tolist()) == range(3)
    tokenizer.chat_template = CHAT
    prompt = encoded(tokenizer, text)[0].tolist()
    assert tokenizer.decode(prompt) == "word50 word1 word2 word3 word51 word52"
    assert own_tokens(tokenizer, prompt) == range(1, 4)
    same = encoded(tokenizer, "word51")[0].tolist()  # the text begins as what comes after it does
    assert len(own_tokens(tokenizer, same)) == 1


# --- words that do not belong -------------------------------------------------------------------------------------


WORDS = {"rare": ["word3", "unheard"], "common": ["word4"]}


@pytest.fixture(scope="module")
def contexts() -> Tensor:
    tokenizer = tiny_tokenizer()
    return find_contexts(tokenizer, tokenize(tokenizer, tiny_texts()), 36, 20, "prose")


def test_contexts_are_spread_over_the_text_and_do_not_overlap() -> None:
    tokenizer, tokens = tiny_tokenizer(), torch.arange(4, 64).repeat(20)
    found = find_contexts(tokenizer, tokens, 32, 4, "prose")
    assert found.shape == (4, 32)
    assert found[:, 0].tolist() == [int(tokens[start]) for start in (0, 300, 600, 900)]
    assert all((row[1:] - row[:-1]).abs().max() < 60 for row in found)


def test_a_word_begins_in_the_middle_of_every_context() -> None:
    tokenizer = tiny_tokenizer()
    unknown = tokenizer.unk_token_id
    tokens = torch.tensor([unknown if place % 32 < 20 else 10 for place in range(640)])
    found = find_contexts(tokenizer, tokens, 32, 4, "prose")
    assert (found[:, 16] == 10).all(), "<unk> begins with no letter"


@pytest.mark.parametrize("tokens", [torch.full((100,), 10), torch.full((5000,), 3)])
def test_a_text_without_so_many_contexts_is_refused(tokens: Tensor) -> None:
    with pytest.raises(InferometerError, match=r"corpus 'prose' \(`generation.insertions.corpus`\) has \d+ tokens"):
        find_contexts(tiny_tokenizer(), tokens, 32, 4, "prose")


def plain_losses(model: PreTrainedModel, tokens: Tensor) -> Tensor:
    """The cross-entropy of each of tokens [tokens] but the first."""
    return cross_entropy(model(tokens[None]).logits[0, :-1], tokens[1:], reduction="none")


def test_rarities_of_a_word_are_those_of_a_plain_pass_over_the_text_with_it(
    model: PreTrainedModel, contexts: Tensor
) -> None:
    words = {"rare": {"two": [7, 9]}, "common": {"one": [11]}}
    table = insert(model, contexts, words, CPU).set_index(["word", "context"]).sort_index()
    assert len(contexts) > 16, "more than are run at once"
    for context in (0, 17):
        before, after = contexts[context, :18].tolist(), contexts[context, 18 : 18 + AFTER_TOKENS].tolist()
        for word, ids in (("two", [7, 9]), ("one", [11])):
            tokens = torch.tensor([*before, *ids, *after])
            losses = plain_losses(model, tokens)
            own, rest = losses[17 : 17 + len(ids)], losses[17 + len(ids) :]
            row: Any = table.loc[(word, context)]
            assert row["rarity"] == pytest.approx(float(own.mean()), rel=1e-4)
            assert row["word_rarity"] == pytest.approx(float(own.sum()), rel=1e-4)
            assert row["first_rarity"] == pytest.approx(float(own[0]), rel=1e-4)
            assert row["after_rarity"] == pytest.approx(float(rest.mean()), rel=1e-4)
        rest = plain_losses(model, torch.tensor([*before, *after]))[17:]
        assert row["stood_rarity"] == pytest.approx(float(rest[0]), rel=1e-4)
        assert row["stood_after_rarity"] == pytest.approx(float(rest.mean()), rel=1e-4)


def test_the_word_that_stood_there_is_as_rare_inserted_as_it_was(model: PreTrainedModel, contexts: Tensor) -> None:
    same = contexts[:1].repeat(3, 1)
    table = insert(model, same, {"rare": {"same": [int(same[0, 18])]}}, CPU)
    assert table["rarity"].tolist() == pytest.approx(table["stood_rarity"].tolist(), rel=1e-5)


def test_words_are_encoded_as_within_a_sentence() -> None:
    tokenizer = tiny_tokenizer()
    assert word_tokens(tokenizer, "word3") == tokenizer.convert_tokens_to_ids(["word3"])
    assert encode_words(tokenizer, WORDS)["rare"]["unheard"] == [tokenizer.unk_token_id]


def test_a_word_of_no_token_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inferometer.generation.insertions.word_tokens", lambda *_: [])
    with pytest.raises(InferometerError, match=r"`generation.insertions.words.rare` names 'word3', of which"):
        encode_words(tiny_tokenizer(), WORDS)


def _manifest(context_tokens: int) -> Manifest:
    facts = {"parameters": 1, "layers": 1, "hidden_size": 1, "vocabulary": 64, "context_tokens": context_tokens}
    texts = {"name": "tiny", "origin": "here", "architecture": "Llama", "dtype": "float32"}
    return Manifest(**texts, **facts, random_weights=False, seed=None, files=())  # type: ignore[arg-type]


def _settings(**changes: object) -> dict[str, object]:
    insertions = {"corpus": "prose", "context_tokens": 32, "contexts": 2, "words": WORDS}
    return {"prompts": PROMPTS, "new_tokens": 30, "insertions": insertions, **changes}


def test_everything_is_prepared_before_weights_are_read(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.parquet"
    texts = tiny_texts()
    write_table(CORPUS, pd.DataFrame({"text_index": range(len(texts)), "text": texts}), corpus)
    prepared = prepare(_manifest(64), tiny_tokenizer(), corpus, _settings())
    assert {name: prompt.shape[1] for name, prompt in prepared.prompts.items()} == {"one": 3, "two": 2}
    assert prepared.contexts.shape == (2, 32)
    assert list(prepared.words) == ["rare", "common"]
    with pytest.raises(InferometerError, match=r"`generation\.new_tokens`: 3 tokens of a prompt and 62 written"):
        prepare(_manifest(64), tiny_tokenizer(), corpus, _settings(new_tokens=62))
    with pytest.raises(InferometerError, match=r"`generation\.insertions\.context_tokens`: 16 tokens"):
        prepare(_manifest(32), tiny_tokenizer(), corpus, _settings(new_tokens=2))


# --- what is made of it -------------------------------------------------------------------------------------------


def test_stretches_are_means_over_each_64_written_tokens() -> None:
    features = made_up_features()
    logged = summarize_features({"tiny": features}).set_index(["prompt", "tokens"])
    assert logged.index.tolist() == [(prompt, tokens) for prompt in ("advice", "tale") for tokens in (64, 128)]
    own = features[(features["prompt"] == "tale") & features["generated"]].sort_values("position")
    assert logged["entropy"]["tale", 128] == pytest.approx(own["entropy"].iloc[64:].mean())
    assert logged["repeated"]["tale", 128] == pytest.approx(own["repeats"].iloc[64:].mean())
    assert logged["repeated"]["advice", 128] == 0
    assert (logged["stretch_tokens"] == STRETCH_TOKENS).all()


def test_what_is_left_of_the_last_stretch_counts_as_one() -> None:
    features = made_up_features()
    shorter = features[features["position"] < 100]
    logged = summarize_features({"tiny": shorter[shorter["prompt"] == "tale"]})
    assert logged["stretch_tokens"].tolist() == [64, 100 - 4 - 64]
    assert logged["tokens"].tolist() == [64, 96]


def test_one_word_has_the_interval_of_its_texts_and_all_of_a_kind_that_of_words_and_texts(tmp_path: Path) -> None:
    table = made_up_insertions()
    inserted = summarize_insertions({"tiny": table})
    write_table(INSERTED, inserted, tmp_path / "inserted.parquet")
    rows = inserted.set_index("word")
    own = table[table["word"] == "petrichor"]
    expected = bootstrap_mean(own["rarity"].to_numpy())
    assert rows["rarity"]["petrichor"] == pytest.approx(expected.estimate)
    assert rows["rarity_low"]["petrichor"] == pytest.approx(expected.low, abs=0.02)
    assert rows["rarity_high"]["petrichor"] == pytest.approx(expected.high, abs=0.02)
    together = inserted[(inserted["kind"] == "rare") & (inserted["word"] == ALL_WORDS)].iloc[0]
    both = table[table["kind"] == "rare"]
    assert together["rarity"] == pytest.approx(both["rarity"].mean())
    assert together["words"] == 2
    assert (
        together["rarity_high"] - together["rarity_low"]
        > rows["rarity_high"]["petrichor"] - rows["rarity_low"]["petrichor"]
    )
    assert together["increase"] == pytest.approx((both["rarity"] - both["stood_rarity"]).mean())
    assert together["after_increase"] == pytest.approx(0.25)
    assert (together["after_increase_low"], together["after_increase_high"]) == pytest.approx((0.25, 0.25))


def test_rows_in_any_order_give_the_same_summary() -> None:
    table = made_up_insertions()
    shuffled = table.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(summarize_insertions({"a": table}), summarize_insertions({"a": shuffled}))


def test_raw_insertions_are_what_they_are_declared_to_be(
    model: PreTrainedModel, contexts: Tensor, tmp_path: Path
) -> None:
    table = insert(model, contexts[:3], encode_words(tiny_tokenizer(), WORDS), CPU)
    write_table(INSERTIONS, table, tmp_path / "insertions.parquet")
    assert len(table) == 3 * 3


def test_figures_draw_every_prompt_and_every_word(tmp_path: Path) -> None:
    figure = figures.plot_features(made_up_features(), made_up_written())
    assert [axes.get_title(loc="left") for axes in figure.axes[:2]] == ["advice", "tale"]
    assert [axes.get_ylabel() for axes in figure.axes] == ["entropy (nats)", "", "rarity (nats)", ""]
    for axes in figure.axes:
        points = np.asarray(axes.lines[0].get_ydata(), dtype=float)
        assert points.max() <= axes.get_ylim()[1], "no point is cut off"
    tale = figure.axes[1]
    assert [line.get_linestyle() for line in tale.lines[2:]] == [":"], "where the loop begins"
    assert np.asarray(tale.lines[2].get_xdata(), dtype=float)[0] == 65
    assert [line.get_linestyle() for line in figure.axes[0].lines[2:]] == ["--"], "where the text ends"
    save(figure, tmp_path / "features.svg", 60)
    words = figures.plot_insertions(summarize_insertions({"tiny": made_up_insertions()}), "tiny")
    left = words.axes[0]
    labels = [label.get_text() for label in left.get_yticklabels()]
    assert labels == ["all common words", "river", "all rare words", "petrichor", "tmesis"]
    save(words, tmp_path / "insertions.svg", 60)


def test_the_running_mean_is_that_of_the_last_16_tokens() -> None:
    figure = figures.plot_features(made_up_features(), made_up_written())
    single, running = (np.asarray(line.get_ydata(), dtype=float) for line in figure.axes[1].lines[:2])
    assert running[40] == pytest.approx(single[25:41].mean())
    assert running[3] == pytest.approx(single[:4].mean())
    assert all(math.isfinite(left) for left, _ in pairwise(running))


def test_words_that_differ_everywhere_alike_make_the_interval_as_wide_as_they_differ() -> None:
    table = made_up_insertions().query("kind == 'rare'")
    by_word = table.assign(rarity=np.where(table["word"] == "tmesis", 10.0, 2.0))
    together = summarize_insertions({"tiny": by_word}).set_index("word").loc[ALL_WORDS]
    assert (together["rarity_low"], together["rarity"], together["rarity_high"]) == (2.0, 6.0, 10.0)
