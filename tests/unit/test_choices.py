"""Multiple choice: endings scored as by one plain pass each, however rows are laid out, and counted as by hand."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch
from tokenizers import Tokenizer, models
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from inferometer.errors import InferometerError
from inferometer.evaluation.choices import (
    ROW_TOKENS,
    Batch,
    batches_of,
    can_pack,
    encode_questions,
    read_questions,
    score_choices,
)
from inferometer.evaluation.choices_summary import summarize_accuracy
from inferometer.evaluation.tables import ACCURACY, CHOICES
from inferometer.intervals import bootstrap_mean
from inferometer.sources.tables import QUESTIONS
from inferometer.tables import read_table, write_table
from tests.tiny import CONFIGS, CONTEXT_TOKENS, WORDS, tiny_model, tiny_tokenizer

SHARES_ROWS = ["llama", "qwen2", "gemma", "gemma2", "gpt2", "opt", "gpt_neox", "mixtral"]


def _questions(count: int = 7, *, seed: int = 0, most: int = 12, least_ending: int = 1) -> pd.DataFrame:
    """Questions of random WORDS, with contexts and endings of many lengths, in two sets."""
    generator = np.random.default_rng(seed)

    def words(least: int, most: int) -> str:
        return " ".join(generator.choice(WORDS, generator.integers(least, most + 1)))

    rows = []
    for item in range(count):
        context, endings = words(1, most), int(generator.integers(2, 5))
        correct = int(generator.integers(endings))
        for ending in range(endings):
            text = words(least_ending, 6)
            rows.append(("ab"[item % 2], item // 2, context, ending, text, ending == correct))
    return pd.DataFrame(rows, columns=["question_set", "item", "context", "ending", "text", "is_correct"])


def _model(kind: str) -> PreTrainedModel:
    """A tiny model whose weights are so large that it matters what a token attends to, and from where."""
    model = tiny_model(kind, outliers=False)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)
    return model


def _words(texts: pd.Series) -> "pd.Series[int]":
    """How many words each text has; the tokenizer makes each a token."""
    return texts.str.count(" ") + 1


def _score(
    model: PreTrainedModel, questions: pd.DataFrame, *, packed: bool, row_tokens: int = ROW_TOKENS
) -> pd.DataFrame:
    prompts = encode_questions(tiny_tokenizer(), questions, CONTEXT_TOKENS)
    return score_choices(model, questions, batches_of(prompts, packed=packed, row_tokens=row_tokens))


@torch.no_grad()
def _plain(model: PreTrainedModel, questions: pd.DataFrame) -> list[float]:
    """Each ending in a pass of its own, one token after the other, with words looked up one by one."""
    scores = []
    for context, text in zip(questions["context"], questions["text"], strict=True):
        known = [4 + WORDS.index(word) for word in context.split()]
        total = 0.0
        for word in text.split():
            logits = model(torch.tensor([known])).logits[0, -1].double()
            known.append(4 + WORDS.index(word))
            total += float(logits[known[-1]] - logits.exp().sum().log())
        scores.append(total)
    return scores


# --- scores --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SHARES_ROWS)
def test_endings_in_shared_rows_have_the_scores_of_plain_passes(kind: str) -> None:
    model, questions = _model(kind), _questions()
    for row_tokens in (1, 40, ROW_TOKENS):
        table = _score(model, questions, packed=True, row_tokens=row_tokens)
        np.testing.assert_allclose(table["log_likelihood"], _plain(model, questions), rtol=0, atol=2e-5)


@pytest.mark.parametrize("kind", CONFIGS)
def test_endings_in_rows_of_their_own_have_the_scores_of_plain_passes(kind: str) -> None:
    model, questions = _model(kind), _questions()
    for row_tokens in (1, 40, ROW_TOKENS):
        table = _score(model, questions, packed=False, row_tokens=row_tokens)
        np.testing.assert_allclose(table["log_likelihood"], _plain(model, questions), rtol=0, atol=2e-5)


def _without(model: PreTrainedModel, argument: str) -> PreTrainedModel:
    """The same model, which takes an argument and makes nothing of it."""
    forward = model.forward

    def deaf(
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        logits_to_keep: Tensor | int = 0,
    ) -> Any:
        given = {"attention_mask": attention_mask, "position_ids": position_ids}
        return forward(input_ids, logits_to_keep=logits_to_keep, **(given | {argument: None}))

    model.forward = deaf
    return model


def _can_pack(model: PreTrainedModel, questions: pd.DataFrame | None = None) -> bool:
    questions = _questions() if questions is None else questions
    return can_pack(model, encode_questions(tiny_tokenizer(), questions, CONTEXT_TOKENS))


def _one_long_question() -> pd.DataFrame:
    """Questions of which one is far longer than the others, and has endings of one word, which see no other ending."""
    long = _asked(" ".join(WORDS[:50]), "word1", "word2").assign(question_set="long")
    return pd.concat([_questions(), long], ignore_index=True)


def test_a_mask_without_effect_shows_where_the_longest_question_has_endings_of_one_word() -> None:
    assert _can_pack(_model("llama"), _one_long_question())
    assert not _can_pack(_without(_model("llama"), "attention_mask"), _one_long_question())


@pytest.mark.parametrize("kind", SHARES_ROWS)
def test_rows_are_shared_where_the_model_heeds_mask_and_positions(kind: str) -> None:
    assert _can_pack(_model(kind))
    assert not _can_pack(_without(_model(kind), "attention_mask"))
    assert not _can_pack(_without(_model(kind), "position_ids"))


def test_rows_are_not_shared_by_a_model_without_positions_of_tokens() -> None:
    assert not _can_pack(_model("bloom"))


def test_rows_are_not_shared_by_a_model_with_a_state() -> None:
    config = AutoConfig.for_model("mamba", vocab_size=64, hidden_size=32, num_hidden_layers=2, state_size=4)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    model.config.use_cache = False
    questions = _questions()
    assert not _can_pack(model)
    table = _score(model, questions, packed=False)
    np.testing.assert_allclose(table["log_likelihood"], _plain(model, questions), rtol=0, atol=2e-5)


def test_rows_are_not_shared_where_a_question_is_longer_than_a_window_of_attention() -> None:
    assert _can_pack(_model("gemma2"), _questions())  # within the window of 32 tokens
    assert not _can_pack(_model("gemma2"), _one_long_question())


def test_rows_are_not_shared_by_a_model_in_half_precision() -> None:
    assert not _can_pack(_model("llama").bfloat16())


@pytest.mark.parametrize("packed", [True, False])
def test_scores_do_not_depend_on_the_other_questions(packed: bool) -> None:
    model, questions = _model("llama"), _questions(12)
    table = _score(model, questions, packed=packed)
    some = questions[questions["item"].isin([1, 4])].reset_index(drop=True)
    alone = _score(model, some, packed=packed)
    assert len(alone) == len(some)
    merged = alone.merge(table, on=["question_set", "item", "ending"], suffixes=("", "_all"))
    np.testing.assert_allclose(merged["log_likelihood"], merged["log_likelihood_all"], rtol=0, atol=2e-5)


def _round_inputs(model: PreTrainedModel, scale_of: Callable[[Tensor], Tensor]) -> PreTrainedModel:
    """Linear layers of the decoder see their inputs on a grid of 8 bits."""

    def rounded(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        scale = scale_of(inputs[0].abs()) / 127
        return (torch.round(inputs[0] / scale) * scale,)

    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and "head" not in name:
            module.register_forward_pre_hook(rounded)
    return model


def test_rounding_of_each_token_leaves_shared_rows_as_good_as_plain_passes() -> None:
    model, questions = _model("llama"), _questions(12)
    exact = np.array(_plain(model, questions))
    _round_inputs(model, lambda values: values.amax(dim=-1, keepdim=True))
    plain = np.array(_plain(model, questions))
    for packed in (True, False):
        difference = np.abs(_score(model, questions, packed=packed)["log_likelihood"] - plain)
        assert np.median(difference) < 2e-5
        assert difference.max() < np.abs(plain - exact).max()  # where last digits tip a code
    assert np.median(np.abs(plain - exact)) > 1e-3  # so there is something to see


@pytest.mark.parametrize("packed", [True, False])
def test_questions_read_alone_share_no_scale_with_others(packed: bool) -> None:
    model, questions = _round_inputs(_model("llama"), lambda values: values.amax()), _questions(12)
    table = _score(model, questions, packed=packed, row_tokens=1)
    some = questions[(questions["item"] == 3) & (questions["question_set"] == "a")].reset_index(drop=True)
    alone = _score(model, some, packed=packed, row_tokens=1)
    merged = alone.merge(table, on=["question_set", "item", "ending"], suffixes=("", "_all"))
    assert merged["log_likelihood"].tolist() == merged["log_likelihood_all"].tolist()


# --- rows ----------------------------------------------------------------------------------------------------------


def _tokens_of(batches: Sequence[Batch]) -> list[int]:
    return [batch.tokens.numel() for batch in batches]


def test_a_context_is_read_once_and_no_row_is_filled_up() -> None:
    questions = _questions(30)
    words = _words(questions["context"])[questions["ending"] == 0].sum()
    words += (_words(questions["text"]) - 1).sum()
    batches = batches_of(encode_questions(tiny_tokenizer(), questions, CONTEXT_TOKENS), packed=True, row_tokens=100)
    assert sum(_tokens_of(batches)) == words
    assert max(_tokens_of(batches)) <= 100
    assert len(batches) <= 2 * words / 100 + 1


def test_rows_of_their_own_are_sorted_so_that_little_is_filled_up() -> None:
    questions = _questions(60)
    both = _words(questions["context"]) + _words(questions["text"]) - 1
    batches = batches_of(encode_questions(tiny_tokenizer(), questions, CONTEXT_TOKENS), packed=False, row_tokens=100)
    assert both.sum() <= sum(_tokens_of(batches)) < 1.15 * both.sum()
    assert max(_tokens_of(batches)) <= 100


@pytest.mark.parametrize("packed", [True, False])
def test_a_prompt_longer_than_a_row_gets_one_for_itself(packed: bool) -> None:
    prompts = encode_questions(tiny_tokenizer(), _questions(5), CONTEXT_TOKENS)
    count = len(prompts) if packed else sum(len(prompt.endings) for prompt in prompts)
    assert len(batches_of(prompts, packed=packed, row_tokens=1)) == count


class Bigrams(nn.Module):
    """A model in which a token depends on the one before it, and which notes for how many it made logits."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table, self.made = table, 0
        self.device, self.dtype = table.device, table.dtype

    def forward(self, input_ids: Tensor, logits_to_keep: Tensor, **_: Tensor) -> SimpleNamespace:
        """Logits [rows, kept, vocabulary]."""
        logits = self.table[input_ids[:, logits_to_keep]]
        self.made += logits.shape[0] * logits.shape[1]
        return SimpleNamespace(logits=logits)


class WholeBigrams(Bigrams):
    """The same, as a model that knows no other way than logits for all tokens."""

    def forward(self, input_ids: Tensor, **_: Tensor) -> SimpleNamespace:  # type: ignore[override]
        """Logits [rows, width, vocabulary]."""
        return SimpleNamespace(logits=self.table[input_ids])


def _bigrams(kind: type[Bigrams], table: Tensor) -> PreTrainedModel:
    return cast(PreTrainedModel, kind(table))


def test_logits_are_made_only_where_tokens_are_predicted_from() -> None:
    model, questions = _bigrams(Bigrams, torch.randn(64, 64)), _questions(30)
    _score(model, questions, packed=True)
    first_words = (questions["ending"] == 0).sum()
    further_words = (_words(questions["text"]) - 1).sum()
    assert cast(Any, model).made == first_words + further_words


@pytest.mark.parametrize("packed", [True, False])
def test_a_model_that_makes_all_logits_has_the_same_scores(packed: bool) -> None:
    table, questions = torch.randn(64, 64), _questions(30)
    expected = _score(_bigrams(Bigrams, table), questions, packed=packed)
    pd.testing.assert_frame_equal(_score(_bigrams(WholeBigrams, table), questions, packed=packed), expected)


def test_half_precision_logits_are_scored_in_float() -> None:
    table, questions = (5 * torch.randn(64, 64)).bfloat16(), _questions(30)
    expected = _score(_bigrams(Bigrams, table.double().float()), questions, packed=True)
    found = _score(_bigrams(Bigrams, table), questions, packed=True)
    np.testing.assert_allclose(found["log_likelihood"], expected["log_likelihood"], rtol=1e-6)


def test_logits_that_are_not_numbers_are_an_error_that_says_so() -> None:
    table, questions = torch.randn(64, 64), _questions(4)
    ids = encode_questions(tiny_tokenizer(), questions, CONTEXT_TOKENS)
    table[ids[2].context[-1]] = float("nan")
    pattern = r"logits are not numbers \(NaN\) in question 1 of 'a'; .* `dtype` of the model"
    with pytest.raises(InferometerError, match=pattern):
        _score(_bigrams(Bigrams, table), questions, packed=True)


# --- tokens --------------------------------------------------------------------------------------------------------


def _merging_tokenizer() -> PreTrainedTokenizerFast:
    """Letters and spaces, and tokens that form across words: " b", "a b", "bb" and ": "."""
    letters = [" ", "a", "b", ":", "\n"]
    merges = [(":", " "), (" ", "b"), ("a", " b"), ("b", "b")]
    vocabulary = {token: index for index, token in enumerate([*letters, *("".join(pair) for pair in merges)])}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE(vocabulary, merges)))


def _pair_of_the_harness(tokenizer: Any, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """`_encode_pair` of lm-evaluation-harness for causal models, in its own order of steps."""
    spaces = len(context) - len(context.rstrip())
    if spaces > 0:
        continuation = context[-spaces:] + continuation
        context = context[:-spaces]
    whole, start = tokenizer.encode(context + continuation), tokenizer.encode(context)
    return start, whole[len(start) :]


def _asked(context: str, *texts: str) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "question_set": "a",
            "item": 0,
            "context": context,
            "ending": range(len(texts)),
            "text": texts,
            "is_correct": [True] + [False] * (len(texts) - 1),
        }
    )


@pytest.mark.parametrize("context", ["b:", "b: ", "b:  ", "ab", "bb:", "b:\n"])
def test_texts_are_encoded_as_in_the_reference(context: str) -> None:
    tokenizer, questions = _merging_tokenizer(), _asked(context, "b", "abb", "bb a", "a ")
    [prompt] = encode_questions(tokenizer, questions, CONTEXT_TOKENS)
    for place, text in enumerate(questions["text"]):
        start, rest = _pair_of_the_harness(tokenizer, context, f" {text}")
        assert prompt.context == start
        assert prompt.endings[place] == rest
        assert prompt.owners[place] == place


def test_context_and_ending_encoded_apart_would_be_other_tokens() -> None:
    tokenizer = _merging_tokenizer()
    [prompt] = encode_questions(tokenizer, _asked("b:", "bb", "a"), CONTEXT_TOKENS)
    apart = [tokenizer.encode(f" {text}") for text in ("bb", "a")]
    assert prompt.endings[0] != apart[0]
    assert prompt.endings[1] != apart[1]


def test_a_text_too_long_for_the_model_loses_its_start_as_in_the_reference() -> None:
    questions = _asked(" ".join(WORDS[:50]), " ".join(WORDS[50:54]), " ".join(WORDS[54:60]), WORDS[59])
    room = 32
    prompts = encode_questions(tiny_tokenizer(), questions, room)
    read = {
        owner: (prompt.context, ending)
        for prompt in prompts
        for ending, owner in zip(prompt.endings, prompt.owners, strict=True)
    }
    for owner, text in enumerate(questions["text"]):
        whole, ending = tiny_tokenizer().encode(f"{questions['context'][0]} {text}"), len(text.split())
        kept = whole[-(room + 1) :]
        assert read[owner] == (kept[:-ending], kept[-ending:])
    model = _model("llama")
    table = score_choices(model, questions, batches_of(prompts, packed=True))
    plain = score_choices(model, questions, batches_of(prompts, packed=False))
    np.testing.assert_allclose(table["log_likelihood"], plain["log_likelihood"], rtol=0, atol=2e-5)


def test_endings_of_no_tokens_and_of_too_many_are_refused() -> None:
    with pytest.raises(
        InferometerError, match="ending 1 of question 0 of 'a' has 9 tokens, but must have between 1 and 8"
    ):
        encode_questions(tiny_tokenizer(), _asked("word1", "word2", " ".join(WORDS[:9])), 8)
    assert encode_questions(tiny_tokenizer(), _asked("word1", "word2", " ".join(WORDS[:8])), 8)
    tokenizer = _merging_tokenizer()
    with pytest.raises(InferometerError, match="ending 0 of question 0 of 'a' has 0 tokens"):
        encode_questions(tokenizer, _asked("a", "b", "a"), 8)  # "a b" is one token


def test_tokens_and_characters_are_counted() -> None:
    table = _score(_model("llama"), _asked("word1", "word2 word33", "word4"), packed=True)
    assert table["tokens"].tolist() == [2, 1]
    assert table["characters"].tolist() == [12, 5]
    assert table["is_correct"].tolist() == [True, False]


# --- questions -----------------------------------------------------------------------------------------------------


def _write_questions(path: Path, items: int) -> Path:
    questions = [(item, f"Question {item}?", ending, "yes", ending == 0) for item in range(items) for ending in (0, 1)]
    columns = ["item", "context", "ending", "text", "is_correct"]
    write_table(QUESTIONS, pd.DataFrame(questions, columns=columns), path)
    return path


@pytest.mark.parametrize(
    ("most", "first", "second"),
    [("all", range(10), range(3)), (4, [0, 2, 5, 7], range(3)), (10, range(10), range(3)), (2, [0, 5], [0, 1])],
)
def test_questions_are_taken_evenly_from_each_set(
    tmp_path: Path, most: int | str, first: Sequence[int], second: Sequence[int]
) -> None:
    files = {"long": _write_questions(tmp_path / "long", 10), "short": _write_questions(tmp_path / "short", 3)}
    questions = read_questions(files, most)
    assert questions.index.tolist() == list(range(len(questions)))
    for name, expected in (("long", first), ("short", second)):
        picked = questions[questions["question_set"] == name]
        assert picked["item"].tolist() == [item for item in expected for _ in range(2)]
        assert picked["ending"].tolist() == [0, 1] * len(expected)


# --- accuracies ----------------------------------------------------------------------------------------------------


def _table(scores: Sequence[Sequence[float]], correct: Sequence[int], **changes: Any) -> pd.DataFrame:
    """A CHOICES table: `scores` of the endings of each item, which have 10, 20, 30, … characters."""
    rows = [
        (item, ending, score, 3, 10 * (ending + 1), ending == right)
        for item, (endings, right) in enumerate(zip(scores, correct, strict=True))
        for ending, score in enumerate(endings)
    ]
    columns = ["item", "ending", "log_likelihood", "tokens", "characters", "is_correct"]
    labels: dict[str, Any] = {"question_set": "quiz", "device": "cpu", "dtype": "float32"}
    return pd.DataFrame(rows, columns=columns).assign(**(labels | changes))


def _row(choices: dict[tuple[str, str], pd.DataFrame], scheme: str, question_set: str = "quiz") -> pd.Series:
    table = summarize_accuracy(choices, "fp")
    [(_, row)] = table[(table["scheme"] == scheme) & (table["question_set"] == question_set)].iterrows()
    return row


def test_accuracies_are_those_counted_by_hand() -> None:
    scores = [
        [-4.0, -5.0],  # best 0; per character -0.4 and -0.25, best 1
        [-4.0, -9.0],  # best 0; per character -0.4 and -0.45, best 0
        [-3.0, -3.0, -9.0],  # best 0, the first of equal ones; per character -0.3, -0.15, -0.3, best 1
        [-9.0, -8.0, -6.0],  # best 2; per character -0.9, -0.4, -0.2, best 2
    ]
    row = _row({("a", "fp"): _table(scores, [0, 0, 0, 1])}, "fp")
    assert (row["items"], row["acc"], row["acc_norm"]) == (4, 3 / 4, 1 / 4)
    assert row["chance"] == pytest.approx((1 / 2 + 1 / 2 + 1 / 3 + 1 / 3) / 4)
    own = bootstrap_mean(np.array([1.0, 1, 1, 0]))
    assert (row["acc_low"], row["acc_high"]) == (own.low, own.high)
    own = bootstrap_mean(np.array([0.0, 1, 0, 0]))
    assert (row["acc_norm_low"], row["acc_norm_high"]) == (own.low, own.high)
    assert row[[name for name in row.index if "change" in name]].tolist() == [0.0] * 6


def test_changes_are_paired_item_by_item() -> None:
    generator = np.random.default_rng(0)
    scores, correct = generator.normal(-9, 1, (60, 3)), generator.integers(0, 3, 60).tolist()
    other = scores + generator.normal(0, 0.1, scores.shape)
    choices = {("a", "fp"): _table(scores.tolist(), correct), ("a", "w8a8"): _table(other.tolist(), correct)}
    before, after = (values.argmax(axis=1) == correct for values in (scores, other))
    paired = bootstrap_mean(after.astype(float) - before)
    row = _row(choices, "w8a8")
    assert [row["acc_change"], row["acc_change_low"], row["acc_change_high"]] == [
        paired.estimate,
        paired.low,
        paired.high,
    ]
    assert row["acc_change_high"] - row["acc_change_low"] < (row["acc_high"] - row["acc_low"]) / 2
    shuffled = choices | {("a", "w8a8"): choices["a", "w8a8"].sample(frac=1, random_state=0)}
    pd.testing.assert_series_equal(_row(shuffled, "w8a8"), row)


def test_every_set_has_a_row_of_its_own() -> None:
    right, wrong = _table([[-1.0, -2.0]] * 3, [0] * 3), _table([[-1.0, -2.0]] * 5, [1] * 5, question_set="riddles")
    choices = {("a", "fp"): pd.concat([right, wrong], ignore_index=True)}
    assert (_row(choices, "fp")["acc"], _row(choices, "fp")["items"]) == (1, 3)
    assert (_row(choices, "fp", "riddles")["acc"], _row(choices, "fp", "riddles")["items"]) == (0, 5)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(_table([[-1.0, -2.0]] * 3, [0] * 3), id="one item fewer"),
        pytest.param(_table([[-1.0, -2.0]] * 4, [0] * 4, question_set="riddles"), id="another set"),
        pytest.param(_table([[-1.0, -2.0]] * 4, [0, 0, 0, 1]), id="another answer"),
        pytest.param(_table([[-1.0, -2.0]] * 4, [0] * 4, tokens=4), id="other tokens"),
        pytest.param(_table([[-1.0, -2.0]] * 4, [0] * 4, characters=9), id="other texts"),
    ],
)
def test_other_questions_are_never_paired(other: pd.DataFrame) -> None:
    choices = {("a", "fp"): _table([[-1.0, -2.0]] * 4, [0] * 4), ("a", "w8a8"): other}
    with pytest.raises(InferometerError, match="w8a8 and fp of a were not scored on the same questions"):
        summarize_accuracy(choices, "fp")


def test_a_model_that_knows_the_answers_has_them_all_and_none_with_labels_shifted() -> None:
    follows = torch.full((64, 64), -5.0)
    follows[:, ::2] = 5.0  # words of even numbers follow on all
    items, generator = 20, np.random.default_rng(1)
    rows = []
    for item in range(items):
        right = int(generator.integers(3))
        for ending in range(3):
            word = WORDS[2 * int(generator.integers(30)) + (ending != right)]
            rows.append(("quiz", item, "word1 word2", ending, word, ending == right))
    questions = pd.DataFrame(rows, columns=["question_set", "item", "context", "ending", "text", "is_correct"])
    shifted = questions.assign(is_correct=np.roll(questions["is_correct"].to_numpy().reshape(-1, 3), 1, axis=1).ravel())
    found = []
    for asked in (questions, shifted):
        scores = _score(_bigrams(Bigrams, follows), asked, packed=True).assign(device="cpu", dtype="float32")
        found.append(_row({("a", "fp"): scores}, "fp")["acc"])
    assert found == [1.0, 0.0]


def test_scores_and_accuracies_are_the_declared_tables(tmp_path: Path) -> None:
    scores = _score(_model("llama"), _questions(), packed=True).assign(device="cpu", dtype="float32")
    write_table(CHOICES, scores, tmp_path / "choices.parquet")
    stored = read_table(CHOICES, tmp_path / "choices.parquet")
    assert len(stored) == len(scores)
    accuracy = summarize_accuracy({("a", "fp"): stored, ("a", "w8a8"): stored}, "fp")
    write_table(ACCURACY, accuracy, tmp_path / "accuracy.parquet")
    assert len(read_table(ACCURACY, tmp_path / "accuracy.parquet")) == 4
