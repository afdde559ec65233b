"""Evaluation: perplexity as its protocol says, fidelity to the float model, and paired differences."""

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import load_file
from snakemake.iocontainers import InputFiles
from torch import Tensor, nn
from transformers import PreTrainedModel

from inferometer.calibration.calibrate import calibrate
from inferometer.errors import InferometerError
from inferometer.evaluation import perplexity
from inferometer.evaluation.choices import encode_questions
from inferometer.evaluation.evaluate import Evaluation, evaluate, skipped
from inferometer.evaluation.layers import layer_fidelity
from inferometer.evaluation.perplexity import ROWS_AT_ONCE, Scores, score_windows
from inferometer.evaluation.reference import Reference, ReferenceHead
from inferometer.evaluation.schemes_summary import Measured, pareto, summarize_schemes
from inferometer.evaluation.sensitivity import sensitivities
from inferometer.evaluation.summary import summarize_gains, summarize_perplexity
from inferometer.evaluation.tables import (
    CHOICES,
    FIDELITY,
    GAINS,
    LAYERS,
    PERPLEXITY,
    SCHEMES,
    SENSITIVITY,
    STORAGE,
    WINDOWS,
)
from inferometer.evaluation.write import read_reference, write_evaluation
from inferometer.folding import folded
from inferometer.intervals import bootstrap_mean
from inferometer.models import quantizable_layers, token_windows, tokenize, weight_matrix, weights_bytes
from inferometer.preparation import Preparation, preparation_of
from inferometer.quantization.model import quantized
from inferometer.rotation.proof import prove_rotation
from inferometer.rotation.stored import table_of
from inferometer.rotation.tables import PATHS
from inferometer.schemes import Scheme
from inferometer.smoothing.chapter import smooth
from inferometer.smoothing.tables import SCALES, SITES
from inferometer.tables import read_table, records, write_table
from tests.tiny import CONFIGS, WORDS, tiny_model, tiny_texts, tiny_tokenizer

Array = NDArray[np.float64]

COUNT = 40
DENSE = [kind for kind in CONFIGS if kind != "mixtral"]
W8A8 = {
    "weights": {"bits": 8, "granularity": "per_channel"},
    "activations": {"bits": 8, "granularity": "per_token"},
}
W4A4 = {name: {**part, "bits": 4} for name, part in W8A8.items()}


def _windows(count: int = 3, tokens: int = 40, *, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(64, (1, tokens), generator=generator) for _ in range(count)]


def _sharp(kind: str) -> PreTrainedModel:
    """A tiny model whose weights are so large that rounding is seen in what it predicts."""
    model = tiny_model(kind, outliers=False)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6)
    return model


def _scores(model: PreTrainedModel, windows: list[Tensor]) -> Scores:
    """Scores of a model that is its own reference."""
    return score_windows(model, windows, ReferenceHead(model))


def _nlls(model: PreTrainedModel, windows: list[Tensor]) -> list[float]:
    return [float(nll) for nll in _scores(model, windows).windows["nll"]]


@pytest.mark.parametrize("kind", DENSE)
@torch.no_grad()
def test_scores_are_those_of_a_plain_loop_over_tokens(kind: str) -> None:
    model, windows = tiny_model(kind, outliers=False), _windows()
    scores = _scores(model, windows).windows
    assert scores["window"].tolist() == [0, 1, 2]
    assert scores["tokens"].tolist() == [39, 39, 39]
    for found, window in zip(scores["nll"], windows, strict=True):
        logits = model(window).logits[0].double()
        tokens = window[0].tolist()
        losses = [
            math.log(sum(math.exp(value) for value in row)) - row[following]
            for row, following in zip(logits.tolist()[:-1], tokens[1:], strict=True)
        ]
        assert found == pytest.approx(sum(losses) / len(losses), rel=1e-6)


def test_a_model_that_knows_nothing_has_the_perplexity_of_its_vocabulary() -> None:
    model = tiny_model("gpt_neox")
    with torch.no_grad():
        model.get_output_embeddings().weight.zero_()
    assert np.exp(np.mean(_nlls(model, _windows()))) == pytest.approx(64)


@pytest.mark.parametrize("rows", [1, 7, 39, 40])
def test_the_size_of_the_parts_that_logits_are_read_in_does_not_matter(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, windows = tiny_model("llama"), _windows()
    monkeypatch.setattr(perplexity, "ROWS_AT_ONCE", windows[0].shape[1])
    whole = _scores(model, windows)
    monkeypatch.setattr(perplexity, "ROWS_AT_ONCE", rows)
    found = _scores(model, windows)
    np.testing.assert_allclose(found.windows["nll"], whole.windows["nll"], rtol=1e-7)
    np.testing.assert_allclose(found.fidelity["nll"], whole.fidelity["nll"], rtol=1e-5)


def test_long_windows_are_read_in_parts_to_their_last_token() -> None:
    tokens = 2 * ROWS_AT_ONCE + 1  # so that the last part holds a single row
    generator = torch.Generator().manual_seed(0)
    logits, reference = (5 * torch.randn(tokens, 64, generator=generator) for _ in range(2))
    targets = torch.randint(64, (tokens,), generator=generator)
    scores = perplexity._token_scores(logits, reference, targets)
    ours, theirs = (values.double().log_softmax(dim=-1) for values in (logits, reference))
    torch.testing.assert_close(scores.nll.double(), -ours[torch.arange(tokens), targets], rtol=1e-5, atol=1e-5)
    divergence = (theirs.exp() * (theirs - ours)).sum(dim=-1)
    torch.testing.assert_close(scores.kl_divergence.double(), divergence, rtol=1e-5, atol=1e-5)
    assert scores.same_top_token.tolist() == (logits.argmax(dim=-1) == reference.argmax(dim=-1)).tolist()


def test_half_precision_logits_are_scored_in_float() -> None:
    model = tiny_model("llama", outliers=False).bfloat16()
    window = _windows(1)[0]
    with torch.no_grad():
        logits = model(window).logits[0, :-1].double()
    expected = -logits.log_softmax(dim=-1)[torch.arange(39), window[0, 1:]].mean()
    assert _nlls(model, [window]) == pytest.approx([float(expected)], rel=1e-6)


def test_windows_of_different_lengths_have_their_own_counts() -> None:
    windows = [*_windows(1, 40), *_windows(1, 2), *_windows(1, 17)]
    scores = _scores(tiny_model("llama"), windows)
    assert scores.windows["tokens"].tolist() == [39, 1, 16]
    assert scores.fidelity["window"].value_counts(sort=False).tolist() == [39, 1, 16]


@pytest.mark.parametrize("name", ["model.norm.weight", "model.layers.1.mlp.up_proj.weight", "lm_head.weight"])
def test_weights_that_are_not_numbers_are_an_error_that_says_so(name: str) -> None:
    model = tiny_model("llama")
    with torch.no_grad():
        model.get_parameter(name)[3] = float("nan")
    with pytest.raises(InferometerError, match=r"logits are not numbers \(NaN\) in window 0; .* `dtype` of the model"):
        _scores(model, _windows())


def test_the_protocol_is_that_of_the_reference_from_texts_to_perplexity() -> None:
    model, tokenizer, texts = tiny_model("llama", outliers=False), tiny_tokenizer(), tiny_texts(20, 13)
    tokens = tokenizer("\n\n".join(texts), return_tensors="pt").input_ids
    length, losses = 32, []
    count = tokens.numel() // length
    assert tokens.numel() % length, "there must be a tail to drop"
    for index in range(count):
        batch = tokens[:, index * length : (index + 1) * length]
        with torch.no_grad():
            loss = model(batch, labels=batch).loss
        losses.append(float(loss) * length)
    expected = math.exp(sum(losses) / (count * length))
    losses = _nlls(model, list(token_windows(tokenize(tokenizer, texts), length, "all", "the text")))
    assert len(losses) == count
    assert math.exp(np.mean(losses)) == pytest.approx(expected, rel=1e-5)


# --- fidelity to the float model ---------------------------------------------------------------------------------


@contextmanager
def _rounded(model: PreTrainedModel, entry: Mapping[str, Any]) -> Iterator[None]:
    with quantized(model, Scheme.of("own", entry), [], {}):
        yield


@torch.no_grad()
def _logits(model: PreTrainedModel, window: Tensor) -> Tensor:
    logits: Tensor = model(window).logits[0].double()
    return logits


def test_a_model_is_no_distance_from_itself() -> None:
    scores = _scores(tiny_model("gemma2"), _windows())
    assert (scores.fidelity["kl_divergence"] == 0).all()
    assert scores.fidelity["same_top_token"].all()
    assert scores.forward_s > 0


@pytest.mark.parametrize("kind", DENSE)
def test_fidelity_is_that_of_two_passes_over_the_same_tokens(kind: str) -> None:
    model, windows = _sharp(kind), _windows()
    head = ReferenceHead(model)
    float_logits = [_logits(model, window) for window in windows]
    hidden = score_windows(model, windows, head).hidden
    with _rounded(model, W4A4):
        scores = score_windows(model, windows, head, hidden)
        rounded_logits = [_logits(model, window) for window in windows]
    for index, (window, expected, found) in enumerate(zip(windows, float_logits, rounded_logits, strict=True)):
        rows = scores.fidelity[scores.fidelity["window"] == index]
        assert rows["position"].tolist() == list(range(1, 40))
        for row, p, q, token in zip(
            rows.itertuples(), expected.softmax(-1), found.softmax(-1), window[0, 1:].tolist(), strict=False
        ):
            divergence = sum(a * math.log(a / b) for a, b in zip(p.tolist(), q.tolist(), strict=True))
            assert row.kl_divergence == pytest.approx(divergence, rel=1e-3, abs=1e-6)
            assert row.nll == pytest.approx(-math.log(float(q[token])), rel=1e-4)
            assert row.same_top_token == (p.tolist().index(max(p.tolist())) == q.tolist().index(max(q.tolist())))
        assert scores.windows["nll"][index] == pytest.approx(rows["nll"].mean(), rel=1e-5)
    assert scores.fidelity["kl_divergence"].max() > 1e-4, "so rounding is seen at all"


@pytest.mark.parametrize("kind", DENSE)
def test_the_float_logits_are_made_again_exactly_while_the_model_is_rounded(kind: str) -> None:
    model, windows = tiny_model(kind), _windows(2)
    head = ReferenceHead(model)
    hidden = score_windows(model, windows, head).hidden
    expected = [_logits(model, window) for window in windows]
    with _rounded(model, W4A4), torch.no_grad():
        for state, logits in zip(hidden, expected, strict=True):
            assert torch.equal(head.logits(state)[0].double(), logits)
        assert not torch.equal(_logits(model, windows[0]), expected[0])


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma"])
def test_the_float_logits_are_made_again_exactly_while_the_model_is_rotated(kind: str, tmp_path: Path) -> None:
    model, windows = tiny_model(kind), _windows(2)
    head = ReferenceHead(model)
    hidden = score_windows(model, windows, head).hidden
    expected = [_logits(model, window) for window in windows]
    scheme, files = _rotated(model, tmp_path)
    preparation = preparation_of(model, scheme, files, [])
    before = model.get_output_embeddings().get_parameter("weight")
    with folded(preparation.changes), quantized(model, scheme, [], preparation.rotations), torch.no_grad():
        assert model.get_output_embeddings().get_parameter("weight") is not before
        for state, logits in zip(hidden, expected, strict=True):
            assert torch.equal(head.logits(state)[0].double(), logits)
        rotated = score_windows(model, windows, head, hidden)
    assert rotated.fidelity["kl_divergence"].max() > 1e-4
    for window, logits in zip(windows, expected, strict=True):
        assert torch.equal(_logits(model, window), logits)


# --- what a scheme's tables do -----------------------------------------------------------------------------------


def _rotated(model: PreTrainedModel, folder: Path, entry: Mapping[str, Any] = W4A4) -> tuple[Scheme, InputFiles]:
    """A rotated scheme, and the table of its rotation as a job's inputs."""
    paths, error = prove_rotation(model, 0, _windows(1)[0])
    write_table(PATHS, table_of(paths, error), folder / "paths.parquet")
    scheme = Scheme.of("own", {**entry, "rotation": {"seed": 0}})
    return scheme, InputFiles(fromdict={"manifest": "model.json", "paths": str(folder / "paths.parquet")})


def _smoothed(model: PreTrainedModel, folder: Path) -> tuple[Scheme, InputFiles]:
    """A smoothed scheme, and the tables of its smoothing as a job's inputs."""
    scheme, windows = Scheme.of("own", W8A8), _windows()
    tables = smooth(model, calibrate(model, windows, [0]).activations, scheme, {"alpha": 0.5, "sites": "all"}, windows)
    write_table(SCALES, tables.scales, folder / "scales.parquet")
    write_table(SITES, tables.sites, folder / "sites.parquet")
    names = ("scales", "sites")
    return scheme, InputFiles(fromdict={name: str(folder / f"{name}.parquet") for name in names})


def _state(model: PreTrainedModel) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def _is_as_before(model: PreTrainedModel, before: Mapping[str, Tensor]) -> bool:
    after = model.state_dict()
    return after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)


def test_smoothing_reaches_the_model_from_a_jobs_inputs(tmp_path: Path) -> None:
    model, window = tiny_model("llama"), _windows(1)[0]
    scheme, files = _smoothed(model, tmp_path)
    before, expected = _state(model), _logits(model, window)
    preparation = preparation_of(model, scheme, files, [])
    assert not preparation.rotations
    with folded(preparation.changes):
        changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
        assert torch.dist(_logits(model, window), expected) < 1e-4 * expected.norm()
    assert {name for name in before if "layernorm" in name or "proj" in name} == changed
    assert _is_as_before(model, before)


def test_a_rotation_reaches_the_model_from_a_jobs_inputs(tmp_path: Path) -> None:
    model, window = tiny_model("llama"), _windows(1)[0]
    fine = {"weights": {"bits": 16, "granularity": "per_channel"}}
    scheme, files = _rotated(model, tmp_path, fine)
    before, expected = _state(model), _logits(model, window)
    preparation = preparation_of(model, scheme, files, [])
    assert set(preparation.rotations) == {f"model.layers.{layer}.mlp.down_proj" for layer in range(3)} | set(
        preparation.rotations
    )
    with folded(preparation.changes):
        assert not torch.equal(model.get_parameter("model.embed_tokens.weight"), before["model.embed_tokens.weight"])
        with quantized(model, scheme, [], preparation.rotations):
            assert torch.dist(_logits(model, window), expected) < 1e-2 * expected.norm()
    assert _is_as_before(model, before)


def test_a_scheme_without_tables_changes_nothing_before_rounding() -> None:
    files = InputFiles(fromdict={"manifest": "model.json", "corpus": "text.parquet"})
    windows = _windows(2)
    preparation = preparation_of(tiny_model("llama"), Scheme.of("own", W8A8), files, windows)
    assert (list(preparation.changes), dict(preparation.rotations)) == ([], {})
    assert preparation.calibration is windows


# --- layer by layer ----------------------------------------------------------------------------------------------


def _reference_rounding(values: Tensor, bits: int) -> Tensor:
    """Every vector along the last dimension rounded to its own grid, as the SmoothQuant reference does it."""
    largest = 2 ** (bits - 1) - 1
    scale = values.abs().amax(dim=-1, keepdim=True).clamp(min=1e-5).div(largest)
    return values.div(scale).round().mul(scale)


def _decibels(found: Tensor, expected: Tensor) -> float:
    found, expected = found.double(), expected.double()
    return 10 * math.log10(float((expected**2).sum()) / float(((found - expected) ** 2).sum()))


def _copy_with(model: PreTrainedModel, names: list[str], bits: int) -> PreTrainedModel:
    """A copy of the model in which these layers alone are rounded, weights per output and inputs per token."""
    own: PreTrainedModel = copy.deepcopy(model)
    for name in names:
        layer = own.get_submodule(name)
        assert isinstance(layer.weight, nn.Parameter)
        if isinstance(layer, nn.Linear):
            layer.weight.copy_(_reference_rounding(layer.weight, bits))
        else:  # Conv1D has inputs first
            layer.weight.copy_(_reference_rounding(layer.weight.T, bits).T)
        layer.register_forward_pre_hook(lambda _, arguments: (_reference_rounding(arguments[0], bits),))
    return own


@pytest.mark.parametrize(("kind", "bits"), [("llama", 8), ("gpt2", 4), ("opt", 4)])
@torch.no_grad()
def test_noise_of_layers_is_that_of_their_own_inputs_alone(kind: str, bits: int) -> None:
    model, window = tiny_model(kind), _windows(1)[0]
    entry = {name: {**part, "bits": bits} for name, part in W8A8.items()}
    floats = quantizable_layers(model)
    inputs: dict[str, Tensor] = {}
    rounded = _copy_with(model, list(floats), bits)
    for name in floats:
        rounded.get_submodule(name).register_forward_pre_hook(
            lambda _, arguments, name=name: inputs.setdefault(name, arguments[0]), prepend=True
        )
    rounded(window)
    with quantized(model, Scheme.of("own", entry), [], {}) as layers:
        table = layer_fidelity(model, layers, window).set_index("layer")
    assert table.index.tolist() == list(floats)
    for name, layer in floats.items():
        weight, bias = weight_matrix(layer), layer.bias
        ours = _reference_rounding(weight, bits)
        output = nn.functional.linear(_reference_rounding(inputs[name], bits), ours, bias)
        expected = nn.functional.linear(inputs[name], weight, bias)
        row = table.loc[name]
        assert row["weight_sqnr_db"] == pytest.approx(_decibels(ours, weight), abs=0.05)
        assert row["output_sqnr_db"] == pytest.approx(_decibels(output, expected), abs=0.3)
        assert row["float_bytes"] == 4 * weight.numel()
        assert row["stored_bytes"] == math.ceil(weight.numel() * bits / 8 + 4 * weight.shape[0])


def test_layers_that_are_kept_in_float_have_no_row() -> None:
    model, window = tiny_model("llama"), _windows(1)[0]
    scheme = Scheme.of("own", {**W8A8, "keep": ["*.mlp.*"]})
    with quantized(model, scheme, [], {}) as layers:
        table = layer_fidelity(model, layers, window)
    assert len(table) == 3 * 4
    assert not table["layer"].str.contains("mlp").any()


def test_layers_with_rotated_inputs_are_compared_on_what_they_read(tmp_path: Path) -> None:
    model, window = tiny_model("llama"), _windows(1)[0]
    fine = {name: {**part, "bits": 16} for name, part in W8A8.items()}
    scheme, files = _rotated(model, tmp_path, fine)
    preparation = preparation_of(model, scheme, files, [])
    with folded(preparation.changes), quantized(model, scheme, [], preparation.rotations) as layers:
        table = layer_fidelity(model, layers, window)
    assert len(table) == 3 * 7
    assert table["output_sqnr_db"].min() > 60


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt-narrow"])
@torch.no_grad()
def test_sensitivity_is_that_of_a_model_in_which_one_layer_alone_is_rounded(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow = {**CONFIGS["opt"], "word_embed_proj_dim": 16}
    monkeypatch.setitem(CONFIGS, "opt-narrow", narrow)
    model, window = _sharp(kind), _windows(1, 24)[0]
    names = list(quantizable_layers(model))
    assert any("project_" in name for name in names) == (kind == "opt-narrow")
    before = dict(model.named_modules())
    rows = list(sensitivities(model, Scheme.of("own", W4A4), window))
    assert [row["layer"] for row in rows] == names
    assert {row["tokens"] for row in rows} == {24}
    expected = _logits(model, window).log_softmax(-1)
    for row in rows:
        found = _logits(_copy_with(model, [row["layer"]], 4), window).log_softmax(-1)
        divergence = float((expected.exp() * (expected - found)).sum(-1).mean())
        assert divergence > 1e-8
        assert row["kl_divergence"] == pytest.approx(divergence, rel=0.02, abs=2e-7)
    assert dict(model.named_modules()) == before, "the very same modules are back"


def test_sensitivity_leaves_out_what_a_scheme_keeps_and_fits_its_table(tmp_path: Path) -> None:
    model = tiny_model("llama")
    scheme = Scheme.of("own", {**W4A4, "keep": ["*.down_proj", "model.layers.1.*"]})
    table = pd.DataFrame(sensitivities(model, scheme, _windows(1, 16)[0]))
    assert len(table) == 2 * 6
    write_table(SENSITIVITY, table, tmp_path / "table.parquet")
    assert len(read_table(SENSITIVITY, tmp_path / "table.parquet")) == len(table)


# --- a whole evaluation ------------------------------------------------------------------------------------------


def _questions(count: int = 4) -> pd.DataFrame:
    """Questions of random WORDS with three endings each, the first of which is right."""
    generator = np.random.default_rng(0)
    rows = [
        ("quiz", item, context, ending, " ".join(generator.choice(WORDS, 1 + ending)), ending == 0)
        for item in range(count)
        for context in [" ".join(generator.choice(WORDS, 3 + item))]
        for ending in range(3)
    ]
    return pd.DataFrame(rows, columns=["question_set", "item", "context", "ending", "text", "is_correct"])


def _evaluate(
    model: PreTrainedModel,
    entry: Mapping[str, Any],
    reference: Evaluation | None = None,
    questions: pd.DataFrame | None = None,
    preparation: Preparation | None = None,
) -> Evaluation:
    questions = _questions() if questions is None else questions
    prompts = encode_questions(tiny_tokenizer(), questions, 64)
    nothing = Preparation((), {}, ())
    scheme = Scheme.of("own", entry)
    left = None if reference is None else Reference(reference.scores.hidden, reference.packs)
    return evaluate(model, scheme, preparation or nothing, _windows(), left, questions, prompts, lambda: None)


def test_the_float_model_is_its_own_reference_and_stores_all_of_itself() -> None:
    model = tiny_model("llama")
    before = _state(model)
    result = _evaluate(model, {})
    assert _is_as_before(model, before)
    [storage] = records(result.storage)
    total = weights_bytes(model)
    assert storage == {
        "engine": "float",
        "kernels": None,
        "rounded_layers": 0,
        "rounded_weights": 0,
        "rounded_bytes": 0,
        "float_bytes": total,
        "weights_bytes": total,
        "outlier_share": None,
        "skipped": None,
    }
    assert (result.scores.fidelity["kl_divergence"] == 0).all()
    assert result.layers.empty
    assert len(result.choices) == 12


@torch.no_grad()
def test_every_part_of_an_evaluation_is_of_the_rounded_model() -> None:
    model = _sharp("llama")
    reference = _evaluate(model, {})
    before = _state(model)
    result = _evaluate(model, W4A4, reference)
    assert _is_as_before(model, before)
    by_hand = _copy_with(model, list(quantizable_layers(model)), 4)
    expected = [float(nn.functional.cross_entropy(_logits(by_hand, w)[:-1], w[0, 1:])) for w in _windows()]
    assert result.scores.windows["nll"].tolist() == pytest.approx(expected, rel=1e-4)
    [first] = result.choices.head(1).itertuples()
    [prompt] = encode_questions(tiny_tokenizer(), _questions().head(1), 64)
    tokens = torch.tensor([[*prompt.context, *prompt.endings[0]]])
    ending = _logits(by_hand, tokens).log_softmax(-1)[len(prompt.context) - 1]
    assert first.log_likelihood == pytest.approx(float(ending[prompt.endings[0][0]]), rel=1e-3)
    assert result.scores.fidelity["kl_divergence"].mean() > 1e-4
    assert len(result.layers) == 3 * 7


GROUPS = {"bits": 4, "granularity": "per_group", "group_size": 16, "symmetric": False}


@pytest.mark.parametrize(
    ("entry", "bits_of"),
    [
        pytest.param(W8A8, lambda rows, inputs: rows * (8 * inputs + 32), id="w8a8"),
        pytest.param({**W8A8, "engine": "integer"}, lambda rows, inputs: rows * (8 * inputs + 32), id="integer"),
        pytest.param({"weights": GROUPS}, lambda rows, inputs: rows * (4 * inputs + inputs // 16 * 20), id="groups"),
        pytest.param(
            {"weights": {"format": "nvfp4"}},
            lambda rows, inputs: rows * (4 * inputs + inputs // 16 * 8) + 32,
            id="nvfp4",
        ),
        pytest.param(
            {"activations": W8A8["activations"]}, lambda rows, inputs: rows * inputs * 32, id="activations alone"
        ),
        pytest.param(
            {**W8A8, "keep": ["*.mlp.*"]}, lambda rows, inputs: rows * (8 * inputs + 32), id="some kept in float"
        ),
    ],
)
def test_bytes_are_exact(entry: dict[str, Any], bits_of: Any) -> None:
    model = tiny_model("llama")
    reference = _evaluate(model, {})
    result = _evaluate(model, entry, reference)
    [storage] = records(result.storage)
    rounded = [
        weight_matrix(layer)
        for name, layer in quantizable_layers(model).items()
        if not ("keep" in entry and ".mlp." in name)
    ]
    stored = sum(math.ceil(bits_of(*weight.shape) / 8) for weight in rounded)
    others = weights_bytes(model) - sum(4 * weight.numel() for weight in rounded)
    assert storage["rounded_layers"] == len(rounded)
    assert storage["rounded_weights"] == sum(weight.numel() for weight in rounded)
    assert storage["rounded_bytes"] == stored == result.layers["stored_bytes"].sum()
    assert storage["float_bytes"] == others
    assert storage["weights_bytes"] == stored + others
    assert storage["engine"] == entry.get("engine", "simulated")
    assert (storage["kernels"] is not None) == (storage["engine"] == "integer")


def test_a_rotated_model_also_stores_a_head_of_its_own(tmp_path: Path) -> None:
    model = tiny_model("llama")
    reference = _evaluate(model, {})
    scheme, files = _rotated(model, tmp_path)
    preparation = preparation_of(model, scheme, files, [])
    entry = {**W4A4, "rotation": {"seed": 0}}
    plain, rotated = (
        records(_evaluate(model, entry, reference, preparation=own).storage)[0] for own in (None, preparation)
    )
    assert rotated["rounded_bytes"] == plain["rounded_bytes"]
    assert rotated["float_bytes"] - plain["float_bytes"] == 64 * 32 * 4


def test_calibration_text_reaches_the_schemes_that_need_it() -> None:
    model = _sharp("llama")
    reference = _evaluate(model, {})
    results = []
    for rounding in ("nearest", "gptq"):
        entry = {"weights": {"bits": 3, "granularity": "per_channel", "rounding": rounding}}
        preparation = Preparation((), {}, _windows(8, seed=1))
        results.append(_evaluate(model, entry, reference, preparation=preparation))
    nearest, compensated = (result.scores.fidelity["kl_divergence"].mean() for result in results)
    assert nearest != compensated
    assert (results[0].layers["weight_sqnr_db"] > results[1].layers["weight_sqnr_db"]).mean() > 0.9


def test_outliers_are_counted_over_all_layers() -> None:
    model = tiny_model("llama")
    reference = _evaluate(model, {})
    for threshold, least, most in ((1e-9, 1, 1), (1e9, 0, 0), (6.0, 0.01, 0.5)):
        entry = {**W8A8, "activations": {**W8A8["activations"], "outlier_threshold": threshold}}
        [storage] = records(_evaluate(model, entry, reference).storage)
        assert least <= storage["outlier_share"] <= most


@pytest.mark.parametrize(
    "activations",
    [
        {"bits": 4, "granularity": "per_tensor"},
        {"bits": 4, "granularity": "per_token", "outlier_threshold": 1.0},
        {"format": "nvfp4"},
        {"format": "fp8_e5m2", "granularity": "per_tensor"},
        {"bits": 4, "granularity": "per_token"},
        {"format": "mxfp4"},
    ],
)
def test_no_question_depends_on_another(activations: dict[str, Any]) -> None:
    model, questions = tiny_model("llama"), _questions()
    reference = _evaluate(model, {})
    entry = {"weights": W8A8["weights"], "activations": activations, "keep": ["*.down_proj"]}  # 48 is no multiple of 32
    together = _evaluate(model, entry, reference).choices["log_likelihood"].tolist()
    for item in range(4):
        own = questions[questions["item"] == item].reset_index(drop=True)
        alone = _evaluate(model, entry, reference, own).choices["log_likelihood"].tolist()
        assert together[3 * item : 3 * item + 3] == pytest.approx(alone, rel=1e-4)


ORIGIN = {"corpus": "wiki", "protocol": "smoothquant"}
MACHINE = {"device": "cpu", "dtype": "float32"}
TABLES = {"windows": WINDOWS, "fidelity": FIDELITY, "choices": CHOICES, "layers": LAYERS, "storage": STORAGE}


def _files(folder: Path, *more: str) -> InputFiles:
    """Files by name, as a job has them."""
    return InputFiles(fromdict={name: str(folder / f"{name}.parquet") for name in (*TABLES, *more)})


def test_an_evaluation_is_written_as_declared_and_its_hidden_states_come_back_exactly(tmp_path: Path) -> None:
    result = _evaluate(tiny_model("llama"), {})
    write_evaluation(result, _files(tmp_path, "hidden"), ORIGIN, MACHINE)
    for name, table in TABLES.items():
        assert (
            len(read_table(table, tmp_path / f"{name}.parquet"))
            == {
                "windows": 3,
                "fidelity": 3 * 39,
                "choices": 12,
                "layers": 0,
                "storage": 1,
            }[name]
        )
    found = read_reference(tmp_path / "hidden.parquet", _windows(3), 32)
    assert found.packs == result.packs
    assert len(found.hidden) == 3
    assert all(torch.equal(one, other) for one, other in zip(found.hidden, result.scores.hidden, strict=True))


def test_hidden_states_are_written_only_where_they_are_asked_for(tmp_path: Path) -> None:
    model = tiny_model("llama")
    result = _evaluate(model, W8A8, _evaluate(model, {}))
    write_evaluation(result, _files(tmp_path), ORIGIN, MACHINE)
    assert sorted(path.stem for path in tmp_path.iterdir()) == sorted(TABLES)


def test_hidden_states_that_can_not_be_read_are_an_error_that_names_the_file(tmp_path: Path) -> None:
    write_evaluation(_evaluate(tiny_model("llama"), {}), _files(tmp_path, "hidden"), ORIGIN, MACHINE)
    path = tmp_path / "hidden.parquet"
    assert load_file(path).keys() == {"hidden", "packs"}
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InferometerError, match=r"cannot read the tensors .*hidden.parquet: .*; delete it and run"):
        read_reference(path, _windows(3), 32)


@pytest.mark.parametrize(("windows", "width"), [(2, 32), (3, 48)], ids=["other windows", "another width"])
def test_hidden_states_of_another_text_or_model_are_refused(tmp_path: Path, windows: int, width: int) -> None:
    write_evaluation(_evaluate(tiny_model("llama"), {}), _files(tmp_path, "hidden"), ORIGIN, MACHINE)
    with pytest.raises(InferometerError, match=r"hidden\.parquet holds hidden states of another model or text"):
        read_reference(tmp_path / "hidden.parquet", _windows(windows), width)


def test_a_skipped_scheme_leaves_empty_tables_and_its_reason(tmp_path: Path) -> None:
    scheme = Scheme.of("own", {"weights": {"format": "nf4"}, "engine": "bitsandbytes"})
    write_evaluation(skipped(scheme, "There is no library."), _files(tmp_path), ORIGIN, MACHINE)
    for name, table in TABLES.items():
        assert len(read_table(table, tmp_path / f"{name}.parquet")) == (name == "storage")
    [storage] = records(read_table(STORAGE, tmp_path / "storage.parquet"))
    assert (storage["engine"], storage["skipped"]) == ("bitsandbytes", "There is no library.")
    assert storage["weights_bytes"] == storage["rounded_layers"] == 0


# --- summaries ---------------------------------------------------------------------------------------------------


def _table(nll: Array, **changes: Any) -> pd.DataFrame:
    """A WINDOWS table with these scores."""
    identity: dict[str, Any] = {"corpus": "wiki", "protocol": "smoothquant", "device": "cpu", "dtype": "float32"}
    return pd.DataFrame({"window": range(len(nll)), "tokens": 511, "nll": nll}).assign(**identity | changes)


def _study(seed: int = 0, count: int = COUNT) -> dict[tuple[str, str], pd.DataFrame]:
    """Correlated scores of two models under four schemes: text that is hard is hard for all of them."""
    generator = np.random.default_rng(seed)
    windows = {}
    for model, level in (("a", 3.0), ("b", 2.5)):
        difficulty = generator.normal(level, 0.3, count)
        for scheme, cost in (("fp", 0.0), ("w8a8", 0.03), ("w8a8-smooth", 0.012), ("w4a4", 5.0)):
            noise = generator.normal(cost, cost / 5, count) if cost else 0.0
            windows[model, scheme] = _table(difficulty + noise)
    return windows


def _nll(windows: dict[tuple[str, str], pd.DataFrame], model: str, scheme: str) -> Array:
    return windows[model, scheme]["nll"].to_numpy()


def _row(table: pd.DataFrame, model: str, scheme: str) -> pd.Series:
    [(_, row)] = table[(table["model"] == model) & (table["scheme"] == scheme)].iterrows()
    return row


def test_a_perplexity_and_its_ratio_are_those_computed_by_hand() -> None:
    windows = {
        ("a", "fp"): _table(np.log([2.0, 8.0])),
        ("a", "w8a8"): _table(np.log([4.0, 64.0])),
    }
    row = _row(summarize_perplexity(windows, "fp"), "a", "w8a8")
    assert row["perplexity"] == pytest.approx(16)  # the geometric mean of 4 and 64
    assert row["ratio"] == pytest.approx(4)  # of 2 and 8
    assert (row["ratio_low"], row["ratio_high"]) == pytest.approx((2, 8))
    assert (row["perplexity_low"], row["perplexity_high"]) == pytest.approx((4, 64))
    assert (row["windows"], row["tokens"], row["window_tokens"]) == (2, 1022, 512)


def test_every_row_is_that_of_its_own_windows() -> None:
    windows = _study()
    table = summarize_perplexity(windows, "fp")
    assert len(table) == len(windows)
    for model, scheme in windows:
        row, nll, reference = _row(table, model, scheme), _nll(windows, model, scheme), _nll(windows, model, "fp")
        own, paired = bootstrap_mean(nll), bootstrap_mean(nll - reference)
        for name, interval in (("perplexity", own), ("ratio", paired)):
            found = [row[name], row[f"{name}_low"], row[f"{name}_high"]]
            assert found == pytest.approx(np.exp([interval.estimate, interval.low, interval.high]).tolist())
        assert row["ratio"] == pytest.approx(row["perplexity"] / _row(table, model, "fp")["perplexity"])


def test_the_ratio_of_the_reference_is_exactly_one() -> None:
    table = summarize_perplexity(_study(), "fp")
    for model in ("a", "b"):
        row = _row(table, model, "fp")
        assert (row["ratio"], row["ratio_low"], row["ratio_high"]) == (1.0, 1.0, 1.0)


def test_the_paired_interval_is_far_narrower_than_that_of_two_perplexities_apart() -> None:
    table = summarize_perplexity(_study(), "fp")
    row, base = _row(table, "a", "w8a8"), _row(table, "a", "fp")
    assert 1 < row["ratio_low"] < row["ratio"] < row["ratio_high"]
    apart = row["perplexity_high"] / base["perplexity_low"] - row["perplexity_low"] / base["perplexity_high"]
    assert row["ratio_high"] - row["ratio_low"] < apart / 20
    assert row["perplexity_low"] < base["perplexity"] < row["perplexity_high"], "unpaired, the difference drowns"


def test_windows_are_paired_by_their_number_and_not_by_their_place() -> None:
    windows = _study()
    expected = summarize_perplexity(windows, "fp"), summarize_gains(windows, {"w8a8-smooth": "w8a8"}, "fp")
    shuffled = {key: table.sample(frac=1, random_state=number) for number, (key, table) in enumerate(windows.items())}
    found = summarize_perplexity(shuffled, "fp"), summarize_gains(shuffled, {"w8a8-smooth": "w8a8"}, "fp")
    for one, other in zip(found, expected, strict=True):
        pd.testing.assert_frame_equal(one, other)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(_table(np.ones(COUNT - 1)), id="one window fewer"),
        pytest.param(_table(np.ones(COUNT), corpus="news"), id="another corpus"),
        pytest.param(_table(np.ones(COUNT), protocol="strided"), id="another protocol"),
        pytest.param(_table(np.ones(COUNT), tokens=255), id="shorter windows"),
        pytest.param(_table(np.ones(COUNT), window=range(1, COUNT + 1)), id="windows from elsewhere"),
    ],
)
def test_other_windows_are_never_paired(other: pd.DataFrame) -> None:
    windows = {("a", "fp"): _table(np.ones(COUNT)), ("a", "w8a8"): other, ("a", "w8a8-smooth"): _table(np.ones(COUNT))}
    with pytest.raises(InferometerError, match="w8a8 and fp of a were not scored on the same windows"):
        summarize_perplexity(windows, "fp")
    with pytest.raises(InferometerError, match="w8a8 and fp of a were not scored on the same windows"):
        summarize_gains(windows, {"w8a8-smooth": "w8a8"}, "fp")


def test_models_may_have_windows_of_their_own() -> None:
    windows = _study() | {
        ("c", "fp"): _table(np.arange(5.0), tokens=127),
        ("c", "w8a8"): _table(np.ones(5), tokens=127),
    }
    row = _row(summarize_perplexity(windows, "fp"), "c", "w8a8")
    assert (row["windows"], row["window_tokens"]) == (5, 128)


def test_gains_are_those_computed_by_hand() -> None:
    windows = {
        ("a", "fp"): _table(np.log([4.0, 4.0])),
        ("a", "w8a8"): _table(np.log([8.0, 8.0])),
        ("a", "w8a8-smooth"): _table(np.log([5.0, 5.0])),
    }
    [(_, row)] = summarize_gains(windows, {"w8a8-smooth": "w8a8"}, "fp").iterrows()
    assert (row["model"], row["scheme"], row["base"]) == ("a", "w8a8-smooth", "w8a8")
    assert [row["ratio"], row["ratio_low"], row["ratio_high"]] == pytest.approx([5 / 8] * 3)
    assert [row["gap_closed"], row["gap_closed_low"], row["gap_closed_high"]] == pytest.approx([3 / 4] * 3)


def test_gains_are_paired_with_intervals_around_them() -> None:
    windows = _study()
    table = summarize_gains(windows, {"w8a8-smooth": "w8a8"}, "fp")
    assert table["model"].tolist() == ["a", "b"]
    for row in table.to_dict("records"):
        fp, base, scheme = (_nll(windows, row["model"], name) for name in ("fp", "w8a8", "w8a8-smooth"))
        means = [math.exp(nll.mean()) for nll in (fp, base, scheme)]
        assert row["gap_closed"] == pytest.approx((means[1] - means[2]) / (means[1] - means[0]))
        assert row["ratio"] == pytest.approx(means[2] / means[1])
        paired = bootstrap_mean(scheme - base)
        assert [row["ratio_low"], row["ratio_high"]] == pytest.approx(np.exp([paired.low, paired.high]).tolist())
        assert row["gap_closed_low"] < row["gap_closed"] < row["gap_closed_high"]
        assert row["gap_closed_low"] > 0.4
        assert row["gap_closed_high"] < 0.8


@pytest.mark.parametrize("deviation", [0.0, 0.1])
def test_no_share_of_a_gap_is_given_where_no_gap_is_shown(deviation: float) -> None:
    windows = _study()
    noise = np.random.default_rng(1).normal(0, 1, COUNT)
    windows["a", "w8a8"] = _table(_nll(windows, "a", "fp") + deviation * (noise - noise.mean()) + deviation / 100)
    row = _row(summarize_gains(windows, {"w8a8-smooth": "w8a8"}, "fp"), "a", "w8a8-smooth")
    assert row[["gap_closed", "gap_closed_low", "gap_closed_high"]].isna().all()
    assert row["ratio"] > 1


def test_a_scheme_that_makes_things_worse_closes_less_than_nothing() -> None:
    windows = _study()
    row = _row(summarize_gains(windows, {"w8a8": "w8a8-smooth"}, "fp"), "a", "w8a8")
    assert row["ratio_low"] > 1
    assert row["gap_closed_high"] < 0


def test_a_study_without_smoothing_has_an_empty_table_of_gains(tmp_path: Path) -> None:
    table = summarize_gains(_study(), {}, "fp")
    write_table(GAINS, table, tmp_path / "gains.parquet")
    assert read_table(GAINS, tmp_path / "gains.parquet").empty


def test_summaries_are_the_declared_tables(tmp_path: Path) -> None:
    windows = _study()
    windows["a", "w8a8"] = windows["a", "fp"].copy()  # with a null in it
    for table, frame in (
        (PERPLEXITY, summarize_perplexity(windows, "fp")),
        (GAINS, summarize_gains(windows, {"w8a8-smooth": "w8a8"}, "fp")),
    ):
        write_table(table, frame, tmp_path / "table.parquet")
        assert len(read_table(table, tmp_path / "table.parquet")) == len(frame)


def test_scores_of_a_model_are_the_declared_table(tmp_path: Path) -> None:
    scores = _scores(tiny_model("llama"), _windows()).windows.assign(
        corpus="wiki", protocol="smoothquant", device="cpu", dtype="float32"
    )
    write_table(WINDOWS, scores, tmp_path / "windows.parquet")
    pd.testing.assert_frame_equal(
        read_table(WINDOWS, tmp_path / "windows.parquet"), scores[[column.name for column in WINDOWS.columns]]
    )


@settings(max_examples=15)
@given(st.lists(st.tuples(st.floats(0, 12), st.floats(-2, 6)), min_size=2, max_size=12))
def test_estimates_lie_within_their_intervals_or_at_most_at_their_ends(pairs: list[tuple[float, float]]) -> None:
    base, cost = (np.array(values) for values in zip(*pairs, strict=True))
    table = summarize_perplexity({("a", "fp"): _table(base), ("a", "w8a8"): _table(base + cost)}, "fp")
    for row in table.to_dict("records"):
        assert row["perplexity"] > 0
        assert row["ratio_low"] <= row["ratio_high"]
        assert np.exp(cost.min()) * (1 - 1e-9) <= row["ratio_high"] or row["scheme"] == "fp"
        assert row["ratio_low"] <= np.exp(cost.max()) * (1 + 1e-9) or row["scheme"] == "fp"


# --- all schemes in one table ------------------------------------------------------------------------------------


def _measured(divergences: list[float], correct: list[bool], stored: int = 100) -> Measured:
    """Tables of a scheme with a divergence for each of two windows, and questions of two endings."""
    fidelity = pd.DataFrame(
        {
            "window": [0, 0, 0, 1],  # windows of different lengths count alike
            "position": [1, 2, 3, 1],
            "nll": 1.0,
            "kl_divergence": [divergences[0] - 0.01, divergences[0], divergences[0] + 0.01, divergences[1]],
            "same_top_token": [True, True, False, True],
        }
    )
    choices = pd.DataFrame(
        [
            {
                "question_set": "ab"[item % 2],
                "item": item,
                "ending": ending,
                "is_correct": ending == 0,
                "log_likelihood": -1.0 if (ending == 0) == right else -2.0,
                "tokens": 1,
                "characters": 5,
                **MACHINE,
            }
            for item, right in enumerate(correct)
            for ending in range(2)
        ]
    )
    layers = pd.DataFrame(
        {
            "layer": ["a", "b", "c"],
            "weight_sqnr_db": [10.0, 20.0, 90.0],
            "output_sqnr_db": [5.0, np.nan, 7.0],
            "stored_bytes": stored // 3,
            "float_bytes": 400,
            "kernel": None,
        }
    )
    storage = {
        "engine": "simulated",
        "kernels": None,
        "rounded_layers": 3,
        "rounded_weights": 200,
        "rounded_bytes": stored,
        "float_bytes": 50,
        "weights_bytes": stored + 50,
        "outlier_share": None,
        "skipped": None,
    }
    return Measured(fidelity, choices, layers, pd.DataFrame([storage]))


def _skipped_tables() -> Measured:
    empty = skipped(Scheme.of("own", {"weights": {"format": "nf4"}, "engine": "bitsandbytes"}), "There is none.")
    return Measured(empty.scores.fidelity, empty.choices, empty.layers, empty.storage)


def _all_schemes() -> pd.DataFrame:
    windows = {
        ("a", "fp"): _table(np.log([2.0, 8.0])),
        ("a", "w8a8"): _table(np.log([4.0, 64.0])),
        ("a", "nf4-bnb"): _table(np.empty(0)),
    }
    cells = {
        ("a", "fp"): _measured([0.01, 0.01], [True, True, True, False]),
        ("a", "w8a8"): _measured([0.2, 0.4], [True, False, False, False]),
        ("a", "nf4-bnb"): _skipped_tables(),
    }
    return summarize_schemes(cells, summarize_perplexity(windows, "fp"), "fp")


def test_a_row_of_all_schemes_is_that_computed_by_hand() -> None:
    row = _row(_all_schemes(), "a", "w8a8")
    assert row["perplexity"] == pytest.approx(16)
    assert row["ratio"] == pytest.approx(4)
    assert row["kl_divergence"] == pytest.approx(0.3)  # the mean of both windows, and not of four tokens
    assert (row["kl_divergence_low"], row["kl_divergence_high"]) == pytest.approx((0.2, 0.4))
    assert row["top_agreement"] == pytest.approx((2 / 3 + 1) / 2)
    assert row["accuracy"] == pytest.approx(1 / 4)
    assert row["accuracy_change"] == pytest.approx(1 / 4 - 3 / 4)
    assert row["accuracy_change_low"] < row["accuracy_change"] < row["accuracy_change_high"] <= 0
    assert row["weight_sqnr_db"] == 20
    assert row["output_sqnr_db"] == 6
    assert row["bits_per_weight"] == 4  # 100 bytes for 200 weights
    assert row["weights_bytes"] == 150
    assert (row["device"], row["dtype"]) == ("cpu", "float32")


def test_a_skipped_scheme_has_a_row_with_its_reason_and_no_metric(tmp_path: Path) -> None:
    table = _all_schemes()
    write_table(SCHEMES, table, tmp_path / "schemes.parquet")
    rows = {row["scheme"]: row for row in records(read_table(SCHEMES, tmp_path / "schemes.parquet"))}
    assert rows.keys() == {"fp", "w8a8", "nf4-bnb"}
    row = rows["nf4-bnb"]
    assert row["skipped"] == "There is none."
    metrics = ("perplexity", "ratio", "kl_divergence", "top_agreement", "accuracy", "accuracy_change")
    names = [f"{name}{end}" for name in metrics for end in ("", "_low", "_high")]
    assert all(row[name] is None for name in [*names, "weight_sqnr_db", "output_sqnr_db", "bits_per_weight", "dtype"])
    assert all(rows["w8a8"][name] is not None for name in names)


def test_a_skipped_scheme_has_no_perplexity() -> None:
    windows = {("a", "fp"): _table(np.ones(3)), ("a", "nf4-bnb"): _table(np.empty(0))}
    assert summarize_perplexity(windows, "fp")["scheme"].tolist() == ["fp"]


@pytest.mark.parametrize(
    ("schemes", "front"),
    [
        ({"fp": (100, 1.0)}, ["fp"]),
        ({"fp": (100, 1.0), "small": (20, 1.5)}, ["small", "fp"]),
        ({"fp": (100, 1.0), "small": (20, 1.5), "beaten": (30, 1.6)}, ["small", "fp"]),
        ({"fp": (100, 1.0), "better": (50, 0.9)}, ["better"]),
        ({"fp": (100, 1.0), "same size": (20, 1.5), "smaller ratio": (20, 1.4)}, ["smaller ratio", "fp"]),
        ({"fp": (100, 1.0), "equal": (20, 1.0)}, ["equal"]),
        ({"c": (30, 1.1), "a": (10, 3.0), "fp": (100, 1.0), "b": (20, 1.2)}, ["a", "b", "c", "fp"]),
    ],
)
def test_the_front_is_what_no_other_scheme_beats_in_both(
    schemes: dict[str, tuple[int, float]], front: list[str]
) -> None:
    rows = [{"scheme": name, "weights_bytes": size, "ratio": ratio} for name, (size, ratio) in schemes.items()]
    assert pareto(pd.DataFrame(rows)) == front


def test_no_scheme_off_the_front_is_unbeaten_and_none_on_it_is_beaten() -> None:
    generator = np.random.default_rng(0)
    rows = pd.DataFrame(
        {
            "scheme": [f"s{number}" for number in range(60)],
            "weights_bytes": generator.integers(1, 40, 60),
            "ratio": generator.integers(1, 40, 60) / 10,
        }
    )
    front = pareto(rows)
    for row in rows.itertuples():
        better = rows[(rows["weights_bytes"] <= row.weights_bytes) & (rows["ratio"] <= row.ratio)]
        beaten = ((better["weights_bytes"] < row.weights_bytes) | (better["ratio"] < row.ratio)).any()
        assert not (beaten and row.scheme in front)
        assert beaten or row.scheme in front or (better["scheme"].isin(front)).any()
