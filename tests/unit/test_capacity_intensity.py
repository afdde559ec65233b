"""Arithmetic intensity and the numbers of two studies, to the last printed digit."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferometer.capacity.catalogue import find_shape
from inferometer.capacity.conventions import (
    MODEL,
    Comparison,
    MhaTwoMatrix,
    RoundedName,
    batch,
    comparisons,
)
from inferometer.capacity.intensity import (
    CONVENTIONS,
    Attention,
    flash,
    layer_work,
    model_attention,
    prefill_limit,
    shared_decode_limit,
)

N, D = 1024, 128
SHAPE = find_shape(MODEL)


def decimals(printed: str) -> int:
    """Digits behind the point of a printed number."""
    return len(printed.partition(".")[2])


@pytest.mark.parametrize("row", comparisons(), ids=lambda row: f"{row.study} {row.quantity}")
def test_every_printed_number_is_reproduced_to_its_last_digit(row: Comparison) -> None:
    assert f"{row.reproduced:.{decimals(row.printed)}f}" == row.printed
    assert row.reason


def test_capacity_of_study_002() -> None:
    convention = MhaTwoMatrix()
    assert convention.parameters(SHAPE) == 6_430_916_608
    assert convention.parameters(SHAPE) * 2 == 12_861_833_216
    assert convention.weights_gb(SHAPE) == 11.98
    assert convention.kv_gb(SHAPE, 1024) == 0.5
    for degree in range(1, 9):
        assert batch(convention, SHAPE, 80, degree) == int(160 * degree - 23.96)
    assert [batch(convention, SHAPE, 80, degree) for degree in (1, 2)] == [136, 296]


def test_capacity_of_study_004() -> None:
    convention = RoundedName()
    assert convention.weights_gb(SHAPE) == 15
    assert convention.kv_gb(SHAPE, 4096) == 0.5
    assert [batch(convention, SHAPE, 80, degree) for degree in (1, 3)] == [130, 450]


def test_exact_answers_stand_beside_the_printed_ones() -> None:
    exact = {(row.study, row.quantity): row.exact for row in comparisons()}
    assert exact["002", "parameters (10⁹)"] == pytest.approx(8.030261248)
    assert exact["002", "KV cache of 1,024 tokens (GiB)"] == 0.125
    assert exact["002", "largest batch on 1 × 80 GiB, 1,024 tokens"] == 520
    assert exact["002", "largest batch on 2 × 80 GiB, 1,024 tokens"] == 1160
    assert exact["004", "largest batch on 1 × 80 GiB, 4,096 tokens"] == 130
    assert exact["004", "largest batch on 3 × 80 GiB, 4,096 tokens"] is None


def test_the_difference_of_study_002_is_explained_to_the_last_parameter() -> None:
    [reason] = [row.reason for row in comparisons() if row.study == "002" and row.quantity.startswith("parameters")]
    too_many, *left_out = (int(found.replace(",", "")) for found in re.findall(r"\d+(?:,\d{3})+", reason))
    assert 6_430_916_608 - too_many + sum(left_out) == SHAPE.parameters


def test_prefill_of_both_studies() -> None:
    plain, softmax = (CONVENTIONS[name].attention(N, N, D).work for name in ("matmul-only", "with-softmax"))
    assert plain.flops == 4 * N**2 * D
    assert softmax.flops == N**2 * (4 * D + 3)
    assert plain.bytes == softmax.bytes == 8 * N * (N + D)
    assert round(plain.intensity, 2) == 56.89
    assert round(softmax.intensity, 1) == 57.2


def test_decode_of_both_studies() -> None:
    plain, softmax = (CONVENTIONS[name].attention(N, 1, D).work for name in ("matmul-only", "with-softmax"))
    assert plain.flops == 4 * N * D
    assert plain.bytes == softmax.bytes == 4 * (N * D + D + 2 * N)
    assert round(plain.intensity, 3) == 0.984
    assert softmax.flops / softmax.bytes == 527_360 / 532_992


@pytest.mark.parametrize("requests", [1, 10, 100])
def test_a_batch_is_flat_in_one_study_and_saturates_in_the_other(requests: int) -> None:
    flat = CONVENTIONS["matmul-only"].attention(N, 1, D, requests).work
    assert flat.intensity == CONVENTIONS["matmul-only"].attention(N, 1, D).work.intensity
    shared = CONVENTIONS["with-softmax"].attention(N, 1, D, requests).work
    assert shared.flops == N * requests * (4 * D + 3)
    assert shared.bytes == 4 * N * D + 8 * requests * N + 4 * requests * D


def test_limits_of_both_studies() -> None:
    assert prefill_limit(D) == D / 2
    assert prefill_limit(D, 3) == (4 * D + 3) / 8
    assert shared_decode_limit(N, D) == N * D / (2 * N + D)
    assert round(shared_decode_limit(N, D)) == 60
    endless = CONVENTIONS["with-softmax"].attention(N, 1, D, 10**7).work.intensity
    assert endless == pytest.approx(shared_decode_limit(N, D, 3), rel=1e-4)
    assert CONVENTIONS["matmul-only"].attention(10**7, 10**7, D).work.intensity == pytest.approx(D / 2, rel=1e-4)


SIZES = st.integers(1, 40)


@given(st.integers(1, 60), st.data(), SIZES, st.sampled_from([1, 2, 4]), st.tuples(SIZES, SIZES))
def test_scores_and_flash_traffic_are_those_that_a_loop_counts(
    context: int, data: st.DataObject, head_dim: int, group: int, blocks: tuple[int, int]
) -> None:
    queries = data.draw(st.integers(1, context))
    attention = Attention(context, queries, head_dim, 2 * group, 2, causal=True)
    last_seen = [context - queries + query + 1 for query in range(queries)]
    assert attention.scores == sum(last_seen)
    rows = [seen for seen in last_seen for _ in range(group)]
    keys_read = 0
    for first in range(0, len(rows), blocks[0]):
        key = 0
        while key < max(rows[first : first + blocks[0]]):  # block after block of keys, until none is seen
            keys_read += min(blocks[1], context - key)
            key += blocks[1]
    expected = 2 * (2 * group * queries * head_dim * 2) + 2 * 2 * keys_read * head_dim * 2
    assert flash(attention, blocks).work.bytes == expected


@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from([(1, 1), (8, 2), (8, 8)]), st.booleans())
def test_flash_never_moves_more_than_standard_in_decode_nor_computes_less(
    context: int, requests: int, heads: tuple[int, int], causal: bool
) -> None:
    standard = Attention(context, 1, 64, *heads, batch=requests, causal=causal)
    assert flash(standard).work.bytes < standard.work.bytes
    assert flash(standard).work.flops == standard.work.flops


@given(st.integers(1, 2000), st.integers(1, 64))
def test_grouped_heads_and_fewer_bits_raise_the_intensity_of_decode(context: int, requests: int) -> None:
    one, grouped = (flash(Attention(context, 1, 128, 32, kv, batch=requests)).work for kv in (32, 8))
    assert grouped.intensity > one.intensity
    by_bits = [flash(model_attention(SHAPE, context, 1, requests, bits)).work.intensity for bits in (16, 8, 4, 2)]
    assert by_bits == sorted(by_bits)
    assert by_bits[0] < 4 * 32 / 8, "never above 4 d H / (4 d K): the queries that share a key"


def test_a_layer_adds_its_projections_and_reads_weights_once() -> None:
    matrices = 2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336
    for requests in (1, 64):
        attention = model_attention(SHAPE, N, 1, requests)
        added = layer_work(attention, SHAPE).flops - attention.work.flops
        assert added == 2 * requests * matrices
    one = layer_work(model_attention(SHAPE, N, 1, 1), SHAPE)
    assert one.bytes > 2 * matrices
    assert one.intensity == pytest.approx(1, abs=0.1), "each weight is read for one multiply-add"
    halved = layer_work(model_attention(SHAPE, N, 1, 1), SHAPE, weight_bits=8)
    assert one.bytes - halved.bytes == matrices
    more = [layer_work(model_attention(SHAPE, N, 1, requests), SHAPE).intensity for requests in (1, 8, 64)]
    assert more == sorted(more)


def test_of_a_mixture_all_experts_are_read_by_many_tokens_and_the_chosen_ones_by_one() -> None:
    shape = find_shape("mixtral-8x7b")
    expert = 3 * 4096 * 14336
    rest = 2 * 4096 * 4096 + 2 * 4096 * 1024 + 8 * 4096
    one, many = (model_attention(shape, N, tokens, 1) for tokens in (1, N))
    weights = layer_work(one, shape, 16).bytes - layer_work(one, shape, 8).bytes
    assert weights == pytest.approx(2 * expert + rest)
    weights = layer_work(many, shape, 16).bytes - layer_work(many, shape, 8).bytes
    assert weights == pytest.approx(8 * expert + rest)
    assert layer_work(one, shape).flops - one.work.flops == 2 * (2 * expert + rest)
