"""Writing by chance: its distributions against transformers' own, its draws against theory, and what samples share."""

import math
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
from transformers import (
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from inferometer.device import Device
from inferometer.errors import InferometerError
from inferometer.features import entropy
from inferometer.generation import figures
from inferometer.generation.diversity import bleu, distinct, diversity, self_bleu, summarize_diversity
from inferometer.generation.prepare import encode_prompts
from inferometer.generation.sampling import Sampling, draw, sample, sampling_logits, uniforms
from inferometer.generation.tables import DIVERSITY, MEASURES, SAMPLES, TEMPERATURES
from inferometer.intervals import bootstrap_mean
from inferometer.manifest import Manifest
from inferometer.plotting import save
from inferometer.tables import write_table
from inferometer.writing import read, write
from tests.synthetic import MEASURED, SAMPLE_SEEDS, TEMPERATURE_NLL
from tests.synthetic import samples as made_up_samples
from tests.tiny import tiny_model, tiny_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = Device("cpu", "a processor")
PROMPTS = {"one": torch.tensor([[5, 9, 13]]), "two": torch.tensor([[11, 12]])}
SAMPLING = Sampling(temperatures=(1.5, 0, 0.5), seeds=(7, 2, 30), new_tokens=20, top_p=1.0, top_k=0)
SHARPNESS = 20.0  # a tiny model's logits are nearly equal; so much of them makes temperatures matter


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    found = tiny_model("qwen2", outliers=False)
    found.get_output_embeddings().weight.mul_(SHARPNESS)
    return found


def endless() -> PreTrainedTokenizerFast:
    """A tokenizer whose texts have no end."""
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = None
    return tokenizer


@pytest.fixture(scope="module")
def samples(model: PreTrainedModel) -> pd.DataFrame:
    return sample(model, endless(), PROMPTS, SAMPLING, CPU)


def ids_of(table: pd.DataFrame) -> dict[tuple[str, float, int], list[int]]:
    """Token ids by prompt, temperature and seed."""
    rows: list[Any] = list(table.itertuples())
    return {(row.prompt, row.temperature, row.seed): [int(token) for token in row.token_ids.split()] for row in rows}


def at(table: pd.DataFrame, *key: object) -> Any:
    """The row of this key."""
    return table.to_dict("index")[key]


# --- what is drawn from -------------------------------------------------------------------------------------------


def random_logits(rows: int = 6, vocabulary: int = 300) -> Tensor:
    return 3 * torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(0))


def warped(logits: Tensor, temperature: float, top_p: float, top_k: int) -> Tensor:
    """What transformers draws from."""
    warpers = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
    if top_k:
        warpers.append(TopKLogitsWarper(top_k))
    if top_p < 1:
        warpers.append(TopPLogitsWarper(top_p))
    nothing: Any = torch.zeros(len(logits), 1, dtype=torch.long)  # what was written before, which none of them looks at
    scores: Any = logits
    return warpers(nothing, scores).softmax(dim=-1)


@pytest.mark.parametrize("temperature", [0.05, 0.3, 1.0, 2.5])
@pytest.mark.parametrize("top_p", [0.02, 0.5, 0.93, 1.0])
@pytest.mark.parametrize("top_k", [0, 1, 17, 1000])
def test_probabilities_are_those_of_transformers_own_warpers(temperature: float, top_p: float, top_k: int) -> None:
    logits = random_logits()
    ours = sampling_logits(logits, torch.full((6,), temperature), top_p, top_k).softmax(dim=-1)
    theirs = warped(logits, temperature, top_p, top_k)
    assert torch.equal(ours > 0, theirs > 0)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-7)


def test_every_row_has_its_own_temperature() -> None:
    logits, temperatures = random_logits(3), torch.tensor([0.0, 0.5, 2.0])
    together = sampling_logits(logits, temperatures, 0.9, 20)
    for row in range(3):
        assert torch.equal(
            together[row : row + 1], sampling_logits(logits[row : row + 1], temperatures[row : row + 1], 0.9, 20)
        )


@pytest.mark.parametrize("temperature", [0.0, 1e-30, 1e-3])
def test_without_warmth_only_the_likeliest_is_left_and_nothing_overflows(temperature: float) -> None:
    logits = 1e4 * random_logits()
    probability = sampling_logits(logits, torch.full((6,), temperature)).softmax(dim=-1)
    assert torch.equal(probability.argmax(dim=-1), logits.argmax(dim=-1))
    assert torch.equal(probability.amax(dim=-1), torch.ones(6))
    assert torch.equal(entropy(sampling_logits(logits, torch.full((6,), temperature))), torch.zeros(6))


@given(st.lists(st.floats(-20, 20), min_size=2, max_size=30), st.floats(0, 4), st.floats(0, 4))
def test_the_warmer_the_less_sure(logits: list[float], one: float, other: float) -> None:
    rows = torch.tensor([logits, logits])
    cold, warm = entropy(sampling_logits(rows, torch.tensor(sorted((one, other))))).tolist()
    assert cold <= warm + 1e-4


# --- draws --------------------------------------------------------------------------------------------------------


def test_draws_cut_the_line_from_0_to_1_into_the_probabilities() -> None:
    parts = torch.tensor([4.0, 0.0, 1.0, 8.0, 0.0, 3.0, 0.0])
    exact = torch.arange(1, 17, dtype=torch.float64) / 16 - 1 / 64
    drawn = draw(parts.log().expand(16, -1), exact)
    assert torch.bincount(drawn, minlength=7).tolist() == parts.tolist()


def test_a_token_without_probability_is_never_drawn() -> None:
    logits = torch.tensor([[-torch.inf, 0.3, -torch.inf, 1.7, -torch.inf]]).expand(2, -1)
    assert draw(logits, torch.tensor([5e-324, 1.0], dtype=torch.float64)).tolist() == [1, 3]


def chi_square(counts: Tensor, expected: Tensor) -> float:
    """Pearson's statistic over the cells of which at least 5 are expected, and one of all the others together."""
    often = expected >= 5
    seen, wanted = (torch.cat([part[often], part[~often].sum()[None]]) for part in (counts.double(), expected.double()))
    return float(((seen - wanted) ** 2 / wanted.clamp(min=1e-9)).sum())


def test_draws_are_uniform_and_hang_on_seed_and_prompt_alone() -> None:
    prompt = PROMPTS["one"]
    many = uniforms(prompt, 3, 20_000)
    assert 0 < float(many.min()) <= float(many.max()) <= 1
    cells = torch.bincount((many * 20).ceil().long() - 1, minlength=20)
    assert chi_square(cells, torch.full((20,), 1000.0)) < 43.8, "the 99.9th percentile of 19 degrees of freedom"
    assert torch.equal(many[:50], uniforms(prompt, 3, 50))
    for other in (uniforms(prompt, 4, 50), uniforms(PROMPTS["two"], 3, 50)):
        assert not torch.isclose(many[:50], other).any()


def test_a_models_first_tokens_come_as_often_as_their_probabilities_say(model: PreTrainedModel) -> None:
    seeds = tuple(range(4000))
    table = sample(model, endless(), {"one": PROMPTS["one"]}, Sampling((0.8,), seeds, 1, 1.0, 0), CPU)
    drawn = torch.tensor([int(ids) for ids in table["token_ids"]])
    probability = warped(model(PROMPTS["one"]).logits[:, -1], 0.8, 1.0, 0)[0]
    expected = len(seeds) * probability
    cells = int((expected >= 5).sum())
    assert 5 <= cells <= 60
    assert chi_square(torch.bincount(drawn, minlength=64), expected) < cells + 3.1 * math.sqrt(2 * cells) + 5


# --- what is written ----------------------------------------------------------------------------------------------


def test_every_temperature_has_every_seed_and_0_has_one(samples: pd.DataFrame) -> None:
    expected = [(0.0, 7), *((temperature, seed) for temperature in (0.5, 1.5) for seed in (7, 2, 30))]
    for prompt in PROMPTS:
        own = samples[samples["prompt"] == prompt]
        assert list(zip(own["temperature"], own["seed"], strict=True)) == expected


def test_at_temperature_0_the_likeliest_tokens_are_written(model: PreTrainedModel, samples: pd.DataFrame) -> None:
    for name, prompt in PROMPTS.items():
        token, cache = read(model, prompt)
        greedy = torch.cat([token, write(model, token, cache, SAMPLING.new_tokens - 1)], dim=1)[0].tolist()
        assert ids_of(samples)[name, 0.0, 7] == greedy


def test_a_text_does_not_hang_on_what_is_written_beside_it(model: PreTrainedModel, samples: pd.DataFrame) -> None:
    tokenizer, whole = endless(), samples.set_index(["prompt", "temperature", "seed"]).sort_index()
    for other in (Sampling((1.5,), (2,), 20, 1.0, 0), Sampling((0.25, 0.5, 1.5, 3.0), (30, 2, 1, 8, 9), 20, 1.0, 0)):
        table = sample(model, tokenizer, {"two": PROMPTS["two"]}, other, CPU).set_index(
            ["prompt", "temperature", "seed"]
        )
        shared = table.index.intersection(whole.index)
        assert len(shared) in (1, 4)
        assert table.loc[shared, "token_ids"].tolist() == whole.loc[shared, "token_ids"].tolist()
        for column in ("nll", "entropy", "sampling_entropy"):
            assert table.loc[shared, column].tolist() == pytest.approx(whole.loc[shared, column].tolist(), rel=1e-4)


def test_texts_differ_by_seed_and_grow_wilder_with_temperature(samples: pd.DataFrame) -> None:
    for prompt in PROMPTS:
        own = samples[samples["prompt"] == prompt]
        assert own["token_ids"].nunique() == len(own)
        by_temperature = own.groupby("temperature")[["nll", "sampling_entropy"]].mean()
        assert by_temperature["nll"][1.5] > by_temperature["nll"][0.5]
        assert by_temperature["sampling_entropy"].is_monotonic_increasing


def test_means_along_a_text_are_those_of_a_plain_pass_over_it(model: PreTrainedModel) -> None:
    sampling = Sampling((0.7,), (1, 2), 12, 0.9, 30)
    table = sample(model, endless(), {"one": PROMPTS["one"]}, sampling, CPU)
    row: Any
    for row in table.itertuples():
        text = torch.tensor([[int(token) for token in row.token_ids.split()]])
        assert text.shape[1] == row.tokens == 12
        logits = model(torch.cat([PROMPTS["one"], text], dim=1)).logits[0, 2:-1]
        assert row.nll == pytest.approx(float(cross_entropy(logits, text[0])), rel=1e-4)
        assert row.entropy == pytest.approx(float(entropy(logits).mean()), rel=1e-4)
        probability = warped(logits, 0.7, 0.9, 30)
        assert row.sampling_entropy == pytest.approx(float(torch.special.entr(probability).sum(-1).mean()), rel=1e-3)
        assert (probability.gather(-1, text[0][:, None]) > 0).all(), "nothing outside of the nucleus is drawn"


def test_one_token_to_choose_from_makes_every_temperature_greedy(model: PreTrainedModel) -> None:
    for top_p, top_k in ((1.0, 1), (1e-6, 0)):
        sampling = Sampling((0, 2.0), (1, 2), 8, top_p, top_k)
        assert sample(model, endless(), PROMPTS, sampling, CPU).groupby("prompt")["text"].nunique().eq(1).all()


def test_a_text_goes_up_to_its_end_and_no_further(model: PreTrainedModel, samples: pd.DataFrame) -> None:
    greedy = ids_of(samples)["one", 0.0, 7]
    end = next(token for token in greedy[2:] if token not in greedy[:2])
    place, tokenizer = greedy.index(end), tiny_tokenizer()
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end)
    table = sample(model, tokenizer, {"one": PROMPTS["one"]}, SAMPLING, CPU)
    before = ids_of(samples)
    row: Any
    for row in table.itertuples():
        whole = before["one", row.temperature, row.seed]
        ended = whole.index(end) if end in whole else None
        assert [int(token) for token in row.token_ids.split()] == whole[:ended]
        assert row.tokens == (len(whole) if ended is None else ended + 1)
        assert (None if pd.isna(row.ended_after) else row.ended_after) == ended
        assert row.text == str(tokenizer.decode(whole[:ended], skip_special_tokens=True)).strip()
    row = table.iloc[0]
    logits = model(torch.cat([PROMPTS["one"], torch.tensor([greedy[:place]])], dim=1)).logits[0, 2:]
    assert row["nll"] == pytest.approx(float(cross_entropy(logits, torch.tensor(greedy[: place + 1]))), rel=1e-4)


def test_writing_stops_when_all_texts_have_ended(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    monkeypatch.setattr(model, "forward", counted(model.forward, passes))
    greedy = sample(model, endless(), {"one": PROMPTS["one"]}, Sampling((0,), (0, 1), 9, 1.0, 0), CPU)
    assert len(passes) == 9
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(ids_of(greedy)["one", 0.0, 0][0])
    passes.clear()
    row = sample(model, tokenizer, {"one": PROMPTS["one"]}, Sampling((0,), (0, 1), 9, 1.0, 0), CPU).iloc[0]
    assert (len(passes), row["tokens"], row["ended_after"], row["token_ids"], row["repeated"]) == (1, 1, 0, "", 0)


def counted(forward: Any, passes: list[int]) -> Any:
    """A function that notes each of its calls."""

    def noting(*arguments: Any, **settings: Any) -> Any:
        passes.append(1)
        return forward(*arguments, **settings)

    return noting


def test_a_prompt_of_no_token_is_refused() -> None:
    facts = {"parameters": 1, "layers": 1, "hidden_size": 1, "vocabulary": 64, "context_tokens": 64}
    texts = {"name": "tiny", "origin": "here", "architecture": "Llama", "dtype": "float32"}
    manifest = Manifest(**texts, **facts, random_weights=False, seed=None, files=())  # type: ignore[arg-type]
    with pytest.raises(InferometerError, match="makes no token of the prompt 'blank' under `generation`"):
        encode_prompts(manifest, tiny_tokenizer(), {"fine": "word1", "blank": " "}, 4, "generation.new_tokens")


# --- how much texts differ ----------------------------------------------------------------------------------------


def words(text: str) -> list[int]:
    """Words as numbers."""
    return [sum(256**place * letter for place, letter in enumerate(word.encode())) for word in text.split()]


MAT = [words("the cat is on the mat"), words("there is a cat on the mat")]  # the example of the paper on BLEU


def test_distinct_counts_different_ngrams_of_all_texts_together() -> None:
    texts = [[1, 2, 1, 2], [1, 2, 3]]
    assert distinct(texts, 1) == 3 / 7
    assert distinct(texts, 2) == 3 / 5  # 12 21 12, 12 23
    assert distinct([[1, 2, 3, 1, 2, 3]], 4) == 1.0
    assert distinct([[1, 2, 1, 2, 1, 2]], 4) == 2 / 3
    assert distinct([[1]], 2) == 0.0


def test_bleu_is_that_of_examples_worked_by_hand() -> None:
    stuttered = bleu(words("the the the the the the the"), MAT)
    assert stuttered == pytest.approx((2 / 7 * 0.1 / 6 * 0.1 / 5 * 0.1 / 4) ** 0.25)
    # the cat on the mat: 5 of 5 words, 3 of 4 pairs (not "the cat on"'s second), 2 of 3 triples, 1 of 2 quadruples
    assert bleu(words("the cat on the mat"), MAT) == pytest.approx(
        math.exp(1 - 6 / 5) * (1 * 1 * 2 / 3 * 1 / 2) ** 0.25
    )
    longer = words("the cat is on the mat now")
    assert bleu(longer, MAT) == pytest.approx((6 / 7 * 5 / 6 * 4 / 5 * 3 / 4) ** 0.25), "no penalty: one is as long"


def test_an_ngram_counts_as_often_as_one_reference_has_it() -> None:
    assert bleu([1, 1, 1, 1], [[1, 1, 2, 3], [1, 2, 3, 4]]) == pytest.approx(
        (2 / 4 * 1 / 3 * 0.1 / 2 * 0.1 / 1) ** 0.25
    )


def test_short_and_empty_texts_agree_with_themselves_alone() -> None:
    assert bleu([1, 2], [[1, 2], [3, 4]]) == pytest.approx(1.0)
    assert (bleu([], [[], [1]]), bleu([], [[1]])) == (1.0, 0.0)


@settings(max_examples=100)
@given(st.lists(st.lists(st.integers(0, 4), max_size=12), min_size=2, max_size=5))
def test_self_bleu_lies_between_0_and_1_whatever_the_order(texts: list[list[int]]) -> None:
    score = self_bleu(texts)
    assert 0 <= score <= 1 + 1e-12
    assert self_bleu(texts[::-1]) == pytest.approx(score)
    assert self_bleu([texts[0]] * 3) == pytest.approx(1.0)


def test_diversity_is_that_of_the_samples_of_each_prompt() -> None:
    table = diversity(made_up_samples()).set_index(["prompt", "temperature"])
    assert table["samples"].groupby("temperature").unique().tolist() == [1, 2, 2]
    greedy = at(table, "tale", 0.0)  # one text of 4 tokens over and over, counted twice
    assert (greedy["distinct_1"], greedy["distinct_2"]) == (4 / 64, 4 / 62)
    assert (greedy["self_bleu"], greedy["unique"]) == (pytest.approx(1.0), 1 / len(SAMPLE_SEEDS))
    assert greedy["repeated_4"] == 1 - 4 / 29
    assert greedy["repeated_8"] == (32 - 7 - 4) / 32
    warm = at(table, "tale", 1.0)  # two texts that share nothing
    assert (warm["distinct_1"], warm["distinct_2"], warm["unique"], warm["repeated_4"]) == (1, 1, 1, 0)
    assert warm["self_bleu"] == pytest.approx((0.1**4 / (32 * 31 * 30 * 29)) ** 0.25)


def test_intervals_are_over_prompts_and_changes_are_paired() -> None:
    table = diversity(made_up_samples())
    rows = summarize_diversity({"tiny": table}).set_index(["measure", "temperature"])
    assert {measure for measure, _ in rows.index} == set(MEASURES)
    by_prompt = table.set_index(["temperature", "prompt"])["nll"]
    expected = bootstrap_mean(by_prompt[1.0].to_numpy())
    perplexity = at(rows, "perplexity", 1.0)
    assert perplexity["value"] == pytest.approx(math.exp(TEMPERATURE_NLL[1.0] + 0.1))
    assert [perplexity["value_low"], perplexity["value_high"]] == pytest.approx(np.exp([expected.low, expected.high]))
    assert perplexity["change"] == pytest.approx(math.exp(1.6) - math.exp(0.6))
    entropies = at(rows, "entropy", 1.0)
    assert (entropies["change_low"], entropies["change_high"]) == (1.0, 1.0), "the same for every prompt, so certain"
    assert not rows.xs(0.0, level="temperature")[["change", "change_low", "change_high"]].to_numpy().any()
    shuffled = summarize_diversity({"tiny": table.sample(frac=1, random_state=0)})
    pd.testing.assert_frame_equal(rows.reset_index(), shuffled[rows.reset_index().columns], check_exact=False)


def test_tables_are_what_they_are_declared_to_be(samples: pd.DataFrame, tmp_path: Path) -> None:
    write_table(SAMPLES, samples, tmp_path / "samples.parquet")
    table = diversity(samples)
    write_table(DIVERSITY, table, tmp_path / "diversity.parquet")
    write_table(TEMPERATURES, summarize_diversity({"tiny": table}), tmp_path / "temperatures.parquet")


def test_the_figure_draws_every_measure_at_every_temperature(tmp_path: Path) -> None:
    figure = figures.plot_diversity(summarize_diversity({MEASURED: diversity(made_up_samples())}), MEASURED)
    drawn = [label for axes in figure.axes for label in axes.get_legend_handles_labels()[1]]
    assert sorted(drawn) == sorted(label for _, label in MEASURES.values())
    for axes in figure.axes:
        for line in axes.get_lines():
            values = np.asarray(line.get_ydata(), dtype=float)
            assert axes.get_ylim()[0] <= values.min() <= values.max() <= axes.get_ylim()[1]
    save(figure, tmp_path / "diversity.svg", 60)
