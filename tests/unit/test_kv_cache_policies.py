"""Policies: budgets that hold whatever comes, and what each feature gives its bits to."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel

from inferometer.device import Device
from inferometer.errors import InferometerError
from inferometer.evaluation.choices import encode_questions
from inferometer.features import rarity
from inferometer.kv_cache.choices import score_questions, with_shots
from inferometer.kv_cache.compare import Texts, compare
from inferometer.kv_cache.perplexity import score_window
from inferometer.kv_cache.policies import TOLERANCE, Budget, Policy, shares
from inferometer.kv_cache.session import Session, follow, read_context, why_not
from inferometer.kv_cache.tables import CACHE_CHOICES, CACHE_LATENCY, CACHE_MEMORY, CACHE_PERPLEXITY, CACHE_TRACE
from inferometer.kv_cache.trace import trace
from inferometer.kv_cache.write import write_policy
from inferometer.tables import read_table, write_table
from inferometer.timing import Enough
from tests.tiny import tiny_model, tiny_tokenizer

GROUP = {"group_size": 8}
FLOAT_CACHE = Policy.of("float", {})
ENTROPY = Policy.of("entropy", {"feature": "entropy", "widths": [2, 3, 4], "average_bits": 3, **GROUP})
RANDOM = Policy.of("random", {"feature": "random", "widths": [2, 3, 4], "average_bits": 3, **GROUP})
RECENCY = Policy.of("recency", {"feature": "recency", "widths": [2, 4], "average_bits": 3, **GROUP})
SINKS = Policy.of("sinks", {"feature": "sinks", "widths": [2, 4], "average_bits": 2.5, "sink_tokens": 3, **GROUP})
ATTENDED = Policy.of("attended", {"feature": "received_attention", "widths": [2, 4], "average_bits": 3, **GROUP})
SALIENCY = Policy.of("saliency", {"feature": "saliency", "widths": [2, 4], "average_bits": 3, **GROUP})


def static(bits: int, **entry: object) -> Policy:
    """All tokens on the same bits."""
    return Policy.of(f"static-{bits}", {"bits": bits, **GROUP, **entry})


def tokens_of(count: int, *, seed: int = 0) -> torch.Tensor:
    """Any tokens."""
    return torch.randint(2, 64, (1, count), generator=torch.Generator().manual_seed(seed))


# Budgets

WIDTHS = st.lists(st.sampled_from([2, 3, 4, 8]), min_size=2, max_size=4, unique=True)


@given(WIDTHS, st.floats(0, 1))
def test_shares_have_the_mean_that_was_asked_for(widths: list[int], place: float) -> None:
    average = min(widths) + place * (max(widths) - min(widths))
    own = shares(widths, average)
    assert sum(own) == pytest.approx(1)
    assert np.dot(own, widths) == pytest.approx(average, abs=1e-6)
    assert min(own) >= 0


@given(
    WIDTHS,
    st.floats(0, 1),
    st.lists(st.lists(st.one_of(st.floats(-1e9, 1e9), st.just(math.inf)), max_size=9), min_size=1, max_size=40),
)
def test_a_budget_holds_after_every_call_whatever_the_priorities(
    widths: list[int], place: float, calls: list[list[float]]
) -> None:
    average = min(widths) + place * (max(widths) - min(widths))
    budget = Budget(widths, average)
    given_bits: list[int] = []
    for priorities in calls:
        given_bits += budget.bits(priorities)
        slack = max((max(widths) - min(widths)) / 2, TOLERANCE * average * len(given_bits))
        assert abs(sum(given_bits) - average * len(given_bits)) <= slack + 1e-6
    assert set(given_bits) <= set(widths)


@pytest.mark.parametrize("sequence", ["rising", "falling", "constant", "spikes", "switching"])
def test_adversarial_sequences_end_within_a_percent(sequence: str) -> None:
    steps = np.arange(2000)
    values = {
        "rising": steps,
        "falling": -steps,
        "constant": 0 * steps,
        "spikes": np.where(steps % 97 == 0, 1e6, 0),
        "switching": np.where(steps < 1000, 0.0, 9.0),
    }[sequence]
    budget = Budget([2, 3, 4, 8], 3.2)
    given_bits = [bits for value in values.tolist() for bits in budget.bits([float(value)])]
    assert np.mean(given_bits) == pytest.approx(3.2, rel=0.01)


def test_tokens_of_high_priority_get_more_bits() -> None:
    values = np.random.default_rng(0).random(600)
    given_bits = np.array(Budget([2, 3, 4], 3).bits(values.tolist()))
    assert values[given_bits == 4].mean() > values[given_bits == 3].mean() > values[given_bits == 2].mean()
    assert np.corrcoef(values, given_bits)[0, 1] > 0.8


def test_an_average_that_no_mixture_has_is_refused() -> None:
    with pytest.raises(InferometerError, match="an average of 5 bits can't be met by widths of 2 to 4 bits"):
        Budget([2, 4], 5)


# Sessions


@pytest.mark.parametrize(
    "policy", [ENTROPY, RANDOM, RECENCY, SINKS, SALIENCY, ATTENDED], ids=lambda policy: policy.name
)
def test_policies_stay_within_their_bits_and_keep_all_tokens(policy: Policy) -> None:
    model, tokens = tiny_model(), tokens_of(60)
    session = Session(model, policy)
    context = read_context(model, tokens[:, :20], {str(policy.feature)})
    session.fill(context)
    steps = list(follow(model, session, tokens[:, 20:], context.logits, 7))
    assert sum(map(len, steps)) == 40
    assert session.tokens == session.cache.get_seq_length() == len(session.bits) == 60
    assert policy.average_bits is not None
    assert abs(sum(session.bits) - 60 * policy.average_bits) <= max(policy.widths) - min(policy.widths)


def test_sinks_and_recent_tokens_get_the_most() -> None:
    model, tokens = tiny_model(), tokens_of(40)
    found = {}
    for policy in (SINKS, RECENCY):
        session = Session(model, policy)
        session.fill(read_context(model, tokens, set()))
        found[policy.name] = session.bits
    assert found["sinks"][:3] == [4, 4, 4]
    assert found["recency"] == [2] * 20 + [4] * 20


def test_bits_follow_the_entropy_that_the_model_itself_had() -> None:
    model, tokens = tiny_model(), tokens_of(60)
    context = read_context(model, tokens, {"entropy"})
    with torch.no_grad():
        logits = model(tokens).logits[0, :-1].double()
    probability = logits.softmax(-1)
    expected = -(probability * probability.log()).sum(-1)
    assert context.known["entropy"][0] == math.inf
    assert torch.allclose(torch.tensor(context.known["entropy"][1:]).double(), expected, atol=1e-4)
    session = Session(model, ENTROPY)
    session.fill(context)
    bits = np.array(session.bits[1:])
    assert expected.numpy()[bits == 4].mean() > expected.numpy()[bits == 2].mean()


def test_features_that_need_passes_of_their_own_leave_one_context_behind() -> None:
    model, tokens = tiny_model(), tokens_of(24)
    first = read_context(model, tokens[:, :10], {"entropy"})
    plain = read_context(model, tokens[:, 10:], {"entropy"}, first)
    both = read_context(model, tokens[:, 10:], {"entropy", "saliency", "received_attention"}, first)
    assert both.known["entropy"] == pytest.approx(plain.known["entropy"], abs=1e-3)
    assert all(
        torch.allclose(ours[0], theirs[0], atol=1e-4) for ours, theirs in zip(both.states, plain.states, strict=True)
    )
    received = both.known["received_attention"]
    assert len(received) == len(both.known["saliency"]) == 14
    assert received[-1] == pytest.approx(np.mean(received[:-1]))
    with torch.no_grad():
        weights = tiny_attention(model, tokens)
    expected = weights[10:, 10:].tril(-1).sum(0)[:-1] / torch.arange(13, 0, -1)
    assert received[:-1] == pytest.approx(expected.tolist(), abs=1e-5)


def tiny_attention(model: PreTrainedModel, tokens: torch.Tensor) -> torch.Tensor:
    """Mean attention weights [tokens, tokens] of all layers and heads, read in one pass."""
    model.set_attn_implementation("eager")
    weights = model(tokens, output_attentions=True).attentions
    model.set_attn_implementation("sdpa")
    return torch.stack([layer[0].mean(0) for layer in weights]).mean(0)


def test_copies_of_a_session_go_their_own_ways() -> None:
    model, tokens = tiny_model(), tokens_of(30)
    for policy in (FLOAT_CACHE, static(4), ENTROPY):
        session = Session(model, policy)
        context = read_context(model, tokens[:, :20], {"entropy"})
        session.fill(context)
        other = session.copy()
        list(follow(model, other, tokens[:, 20:], context.logits, 4))
        assert (session.tokens, other.tokens) == (20, 30)
        again = list(follow(model, session, tokens[:, 20:], context.logits, 4))
        fresh = session.copy()
        assert fresh.cache is not session.cache
        assert torch.isfinite(torch.cat(again)).all()


def test_all_tokens_of_a_context_are_kept_where_attention_slides() -> None:
    model, tokens = tiny_model("gemma2"), tokens_of(60)  # a window of 32
    context = read_context(model, tokens[:, :50], set())
    assert {keys.shape[2] for keys, _ in context.states} == {50}
    with torch.no_grad():
        expected = model(tokens).logits[0, 49:-1]
    for policy in (FLOAT_CACHE, static(8)):
        session = Session(model, policy)
        session.fill(context)
        found = torch.cat(list(follow(model, session, tokens[:, 50:], context.logits, 3)))
        assert torch.allclose(found, expected, atol=5e-2 * float(expected.abs().max()))


def test_a_context_read_in_two_parts_is_the_context_read_at_once() -> None:
    model, tokens = tiny_model(), tokens_of(24)
    whole = read_context(model, tokens, {"entropy"})
    first = read_context(model, tokens[:, :10], {"entropy"})
    second = read_context(model, tokens[:, 10:], {"entropy"}, first)
    assert torch.allclose(whole.logits, second.logits, atol=1e-4)
    assert whole.known["entropy"] == pytest.approx(first.known["entropy"] + second.known["entropy"], abs=1e-3)
    for (keys, _), (early, _), (late, _) in zip(whole.states, first.states, second.states, strict=True):
        assert torch.allclose(keys, torch.cat([early, late], dim=2), atol=1e-4)


# What is measured


def test_with_a_float_cache_windows_score_as_in_one_pass() -> None:
    model, window = tiny_model(), tokens_of(40)
    scored = score_window(model, [FLOAT_CACHE, static(2)], window, 10, 7)
    rows, sizes = scored["float"]
    with torch.no_grad():
        expected = rarity(model(window).logits[0, :-1], window[0, 1:])[9:]
    assert rows["position"].tolist() == list(range(10, 40))
    assert rows["nll"].to_numpy() == pytest.approx(expected.numpy(), abs=1e-3)
    assert rows["kl_divergence"].abs().max() < 1e-6
    assert rows["same_top_token"].all()
    assert (sizes["tokens"], sizes["effective_bits"]) == (40, 32)
    other, packed = scored["static-2"]
    assert other["kl_divergence"].mean() > 0.01
    assert float(packed["effective_bits"] or 32) < 12


def _questions(items: int) -> pd.DataFrame:
    rows = [
        ("riddles", item, ending, f"word{item} word{item + 20} word7", f"word{30 + item} word{ending + 2}", ending == 1)
        for item in range(items)
        for ending in range(3)
    ]
    return pd.DataFrame(rows, columns=["question_set", "item", "ending", "context", "text", "is_correct"])


@pytest.mark.parametrize("packs", [True, False])
def test_questions_score_as_in_one_pass_with_a_float_cache_and_otherwise_with_few_bits(packs: bool) -> None:
    model, tokenizer, all_questions = tiny_model(), tiny_tokenizer(), _questions(9)
    questions = all_questions[all_questions["item"] >= 6].reset_index(drop=True)
    shown = with_shots(questions, all_questions, 2)
    solved = "word0 word20 word7 word30 word3\n\nword1 word21 word7 word31 word3\n\n"
    assert shown["context"].iloc[0] == solved + "word6 word26 word7"
    prompts = encode_questions(tokenizer, shown, 64)
    scored = list(score_questions(model, [FLOAT_CACHE, static(2), ENTROPY], prompts, packs=packs))
    assert [prompt.owners for prompt, _ in scored] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    for prompt, found in scored:
        for ending, score in zip(prompt.endings, found["float"][0], strict=True):
            text = torch.tensor([prompt.context + ending])
            with torch.no_grad():
                expected = -rarity(model(text).logits[0, :-1], text[0, 1:])[-len(ending) :].sum()
            assert score == pytest.approx(float(expected), abs=1e-3)
        assert found["static-2"][0] != pytest.approx(found["float"][0], abs=1e-2)
        assert found["float"][1]["tokens"] == len(prompt.context) - 1


def test_all_policies_are_measured_and_written_and_those_that_can_not_run_say_why(tmp_path) -> None:  # type: ignore[no-untyped-def]
    model, tokenizer, questions = tiny_model(), tiny_tokenizer(), _questions(3)
    prompts = encode_questions(tokenizer, questions, 64)
    texts = Texts([tokens_of(30), tokens_of(30, seed=1)], 10, 8, questions, {"riddles": prompts}, [tokens_of(16)])
    impossible = Policy.of("impossible", {"bits": 4, "keys": "per_token", "group_size": 3})
    policies = [FLOAT_CACHE, static(4), ENTROPY, impossible]
    found = compare(model, policies, texts, Enough(2), Device("cpu", "any"))
    assert (
        why_not(model, impossible) == "groups of 3 do not divide the 8 channels of a head; choose another `group_size`."
    )
    for policy in policies:
        tables = {
            "perplexity": CACHE_PERPLEXITY, "choices": CACHE_CHOICES, "latency": CACHE_LATENCY, "memory": CACHE_MEMORY
        }  # fmt: skip
        files = {name: tmp_path / policy.name / f"{name}.parquet" for name in tables}
        write_policy({"fp": found[policy.name]}, files, {"dtype": "float32", "device": "cpu"})
        perplexity, choices, latency, memory = (read_table(table, files[name]) for name, table in tables.items())
        if policy is impossible:
            assert perplexity.empty
            assert choices.empty
            assert set(latency["reason"]) == set(memory["reason"]) == {why_not(model, impossible)}
            continue
        assert len(perplexity) == 40
        assert len(choices) == 9
        assert len(latency) >= 2
        assert memory["experiment"].value_counts().to_dict() == {"choices": 3, "perplexity": 2, "prompt": 1}
        exact = memory[memory["experiment"] == "perplexity"]
        assert (exact["cache_bytes"] >= exact["predicted_bytes"]).all()


def test_a_trace_says_what_each_token_got(tmp_path) -> None:  # type: ignore[no-untyped-def]
    model, prompt = tiny_model(), tokens_of(10)
    table = trace(model, tiny_tokenizer(), ENTROPY, prompt, 20)
    write_table(CACHE_TRACE, table, tmp_path / "trace.parquet")
    assert table["position"].tolist() == list(range(30))
    assert table["written"].tolist() == [False] * 10 + [True] * 20
    assert table["running_bits"].iloc[-1] == pytest.approx(table["bits"].mean())
    assert table["bits"].mean() == pytest.approx(3, abs=0.1)
    assert pd.isna(table["entropy"].iloc[0])
    assert table["entropy"].iloc[1:].between(0, math.log(64)).all()
