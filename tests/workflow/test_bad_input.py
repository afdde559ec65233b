"""Faults that the user can mend: a failing status, one sentence that says what to mend, and nothing half-written."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.tiny import tiny_checkpoint
from tests.workflow.snakemake_runs import ROTATED, Change, Outcome, Study, dry_runs, setting

pytestmark = pytest.mark.timeout(1800)  # the first test waits for a whole study

WRONG_DIGEST = "0" * 64


def assert_nothing_half_written(study: Study) -> None:
    """No file is left that a later run could take for a whole one."""
    left = [path for pattern in ("*.partial", "*.retired") for path in study.folder.rglob(pattern)]
    assert left == []


INVALID: dict[str, tuple[Change, str]] = {
    "an unknown key": (setting(1, "evaluation", "windows"), "unknown configuration key `evaluation.windows`; known"),
    "a wrong type": (setting("4", "calibration", "max_windows"), "`calibration.max_windows` is '4'"),
    "alpha above 1": (setting(1.5, "schemes", "w8a8-smooth", "smoothing", "alpha"), "it must be at most 1."),
    "alpha below 0": (setting(-0.1, "schemes", "w8a8-smooth", "smoothing", "alpha"), "it must be at least 0."),
    "groups that no width can be cut into": (
        setting(5, "schemes", ROTATED, "weights", "group_size"),
        f"`schemes.{ROTATED}.weights.group_size` is 5, which does not divide the width 32 of tiny",
    ),
    "smoothing of a rotated scheme": (
        setting({"alpha": 0.5}, "schemes", ROTATED, "smoothing"),
        f"`schemes.{ROTATED}.smoothing` is undone by `rotation`",
    ),
    "single layers of a rotated scheme": (
        setting([ROTATED], "evaluation", "sensitivity", "schemes"),
        f"`evaluation.sensitivity.schemes` names {ROTATED!r}, but single layers can be rounded alone only in",
    ),
    "one bit": (
        setting(1, "schemes", "w8a8", "weights", "bits"),
        "`schemes.w8a8.weights.bits` is 1; it must be at least 2.",
    ),
    "seventeen bits": (
        setting(17, "schemes", "w8a8", "weights", "bits"),
        "`schemes.w8a8.weights.bits` is 17; it must be at most 16.",
    ),
    "an unknown scheme": (
        setting(["fp", "w2a2"], "study", "schemes"),
        "`study.schemes` names 'w2a2', which `schemes` does not define",
    ),
    "an unknown corpus": (
        setting("novels", "evaluation", "corpus"),
        "`evaluation.corpus` names 'novels', which `corpora` does not define",
    ),
    "an unknown corpus of words that do not belong": (
        setting("novels", "generation", "insertions", "corpus"),
        "`generation.insertions.corpus` names 'novels', which `corpora` does not define",
    ),
    "a word that is two": (
        setting(["two words"], "generation", "insertions", "words", "rare"),
        "`generation.insertions.words.rare[0]` is 'two words'; it must match the pattern",
    ),
    "a temperature below 0": (
        setting([0, -0.5], "generation", "sampling", "temperatures"),
        "`generation.sampling.temperatures[1]` is -0.5; it must be at least 0.",
    ),
    "a model that is not there": (
        setting("models/none", "models", "tiny", "path"),
        "`models.tiny.path` names models/none, which does not exist.",
    ),
    "a text that is not there": (
        setting("texts/none.txt", "corpora", "calibration-text", "path"),
        "`corpora.calibration-text.path` names texts/none.txt, which does not exist.",
    ),
    "shapes alone": (setting(["shape"], "study", "models"), "`study.models` names only shapes with random weights"),
}


@pytest.fixture(scope="module")
def refusals(study: Study) -> dict[str, Outcome]:
    """A dry run with every invalid configuration."""
    return dict(zip(INVALID, dry_runs(study.changed(change) for change, _ in INVALID.values()), strict=True))


@pytest.mark.parametrize("what", INVALID)
def test_an_invalid_configuration_is_refused_in_a_dry_run_already(refusals: dict[str, Outcome], what: str) -> None:
    outcome, (_, sentence) = refusals[what], INVALID[what]
    assert outcome.status != 0
    assert sentence in outcome.sentence
    assert "Traceback" not in outcome.output
    assert "Building DAG" not in outcome.output


def test_an_invalid_configuration_is_refused_in_a_real_run_and_touches_nothing(own_copy: Study) -> None:
    kept = sorted(own_copy.results.rglob("*"))
    change, sentence = INVALID["an unknown key"]
    outcome = own_copy.changed(change).snakemake("--forceall")
    assert outcome.status != 0
    assert sentence in outcome.sentence
    assert "Traceback" not in outcome.output
    assert sorted(own_copy.results.rglob("*")) == kept


def cut_short(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])


def not_causal(folder: Path) -> None:
    config = {"model_type": "bert", "architectures": ["BertForMaskedLM"]}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def not_numbers(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"][0] = torch.nan
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["max_position_embeddings"] = 128  # longer than the window that another model is refused for
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def unchanged(_folder: Path) -> None:
    pass


@dataclass(frozen=True)
class Fault:
    """A model or text that fails in one job: how it is made, what is asked for, and what the user reads."""

    target: str
    log: str
    sentence: str


MODEL_FAULTS: dict[str, tuple[Callable[[Path], None], dict[str, Any], Fault]] = {
    "truncated": (
        cut_short,
        {},
        Fault(
            "truncated/sources/model.json",
            "fetch_model/truncated.log",
            "model 'truncated': model.safetensors is damaged or cut short",
        ),
    ),
    "masked": (
        not_causal,
        {},
        Fault(
            "masked/sources/model.json",
            "fetch_model/masked.log",
            "model 'masked' is not a causal language model: its config.json says BertForMaskedLM",
        ),
    ),
    "pinned-model": (
        unchanged,
        {"sha256": {"model.safetensors": WRONG_DIGEST}},
        Fault(
            "pinned-model/sources/model.json",
            "fetch_model/pinned-model.log",
            "model.safetensors of model 'pinned-model' does not match its pinned hash",
        ),
    ),
    "not-numbers": (
        not_numbers,
        {},
        Fault(
            "not-numbers/evaluation/fp/perplexity.parquet",
            "evaluate_reference/not-numbers/fp.log",
            "the model's logits are not numbers (NaN) in window 0",
        ),
    ),
}
TEXT_FAULTS: dict[str, tuple[str, dict[str, Any], Fault]] = {
    "empty": (
        "",
        {},
        Fault(
            "sources/corpora/empty.parquet",
            "fetch_corpus/empty.log",
            "corpus 'empty' is empty: empty.txt holds no text",
        ),
    ),
    "pinned-text": (
        "word1 word2",
        {"file_sha256": WRONG_DIGEST},
        Fault(
            "sources/corpora/pinned-text.parquet",
            "fetch_corpus/pinned-text.log",
            "pinned-text.txt of corpus 'pinned-text' does not match its pinned hash",
        ),
    ),
    "short": (
        "word1 word2",
        {},
        Fault(
            "tiny/calibration/activations.parquet",
            "calibrate/tiny.log",
            "corpus 'short' (`calibration.corpus`) has 2 tokens, fewer than one window of 32",
        ),
    ),
}
FAULTS = {
    **{name: fault for name, (*_, fault) in (*MODEL_FAULTS.items(), *TEXT_FAULTS.items())},
    "window": Fault(
        "tiny/evaluation/fp/perplexity.parquet",
        "evaluate_reference/tiny/fp.log",
        "configuration key `evaluation.window_tokens` is 65, but tiny has a context of 64 tokens",
    ),
    "attention": Fault(
        "tiny/attention/heads.parquet",
        "capture_attention/tiny.log",
        "configuration key `attention.inputs.lengths.long.tokens` is 65, but tiny has a context of 64 tokens",
    ),
    "eviction": Fault(
        "tiny/attention/eviction.parquet",
        "evict_sinks/tiny.log",
        "configuration key `attention.eviction.window_tokens` is 20, and texts are 4 times as long, but tiny has",
    ),
    "insertions": Fault(
        "tiny/generation/insertions.parquet",
        "trace_generation/tiny.log",
        "corpus 'short' (`generation.insertions.corpus`) has 2 tokens, too few for 3 texts of 32",
    ),
}


@dataclass(frozen=True)
class Failed:
    """One run of a study with all the faulty models and texts, which went on after each failure."""

    study: Study
    outcome: Outcome


@pytest.fixture(scope="module")
def failed(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Failed:
    """A study whose every asked-for file has a fault of its own on the way."""
    own = study.copy(tmp_path_factory.mktemp("failed") / "study")
    for name, (spoil, _, _) in MODEL_FAULTS.items():
        spoil(tiny_checkpoint(own.folder / "models" / name))
    for name, (text, _, _) in TEXT_FAULTS.items():
        (own.folder / "texts" / f"{name}.txt").write_text(text, encoding="utf-8")

    def define(config: dict[str, Any]) -> None:
        for name, (_, options, _) in MODEL_FAULTS.items():
            config["models"][name] = {"source": "local", "path": f"models/{name}", **options}
        for name, (_, options, _) in TEXT_FAULTS.items():
            entry = {"source": "local", "path": f"texts/{name}.txt", "format": "txt"}
            config["corpora"][name] = {**entry, **options}
        config["calibration"]["corpus"] = "short"
        config["evaluation"]["window_tokens"] = 65
        config["generation"]["insertions"]["corpus"] = "short"
        config["attention"]["inputs"]["lengths"]["long"]["tokens"] = 65
        config["attention"]["eviction"]["window_tokens"] = 20

    own = own.changed(define)
    unreadable_weights(own)
    targets = [f"results/{fault.target}" for fault in FAULTS.values()]
    return Failed(own, own.snakemake("--keep-going", targets=targets))


def unreadable_weights(study: Study) -> None:
    """Weights of the right size that no loader can open: whoever reads them stumbles."""
    weights = study.results / "tiny" / "sources" / "checkpoint" / "model.safetensors"
    size = weights.stat().st_size
    weights.unlink()
    weights.write_bytes(b"\xff" * size)


@pytest.mark.parametrize("name", FAULTS)
def test_a_faulty_input_fails_in_one_sentence_and_leaves_no_output(failed: Failed, name: str) -> None:
    fault = FAULTS[name]
    assert failed.outcome.status != 0
    assert fault.sentence in failed.outcome.sentence
    assert f"results/logs/{fault.log}" in failed.outcome.output
    log = (failed.study.results / "logs" / fault.log).read_text(encoding="utf-8")
    assert fault.sentence in log
    assert "Traceback" not in log
    assert not (failed.study.results / fault.target).exists()


def test_faulty_inputs_show_no_traceback_and_leave_nothing_half_written(failed: Failed) -> None:
    assert "Traceback" not in failed.outcome.output
    assert_nothing_half_written(failed.study)
    for name in MODEL_FAULTS.keys() - {"not-numbers"}:
        left = [path for path in (failed.study.results / name).rglob("*") if not path.is_dir()]
        assert left == [], name


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_cuda_where_there_is_none_is_refused_in_one_sentence(own_copy: Study) -> None:
    target = "results/tiny/evaluation/fp/perplexity.parquet"
    outcome = own_copy.changed(setting("cuda", "device")).snakemake(targets=[target])
    assert outcome.status != 0
    assert "configuration key `device` is cuda, but torch finds no CUDA device here" in outcome.sentence
    assert "Traceback" not in outcome.output
    assert not (own_copy.folder / target).exists()
    assert_nothing_half_written(own_copy)


BEYOND_THE_CONTEXT: dict[str, tuple[str, Change, str]] = {
    "latency": (
        "profiling/latency.parquet",
        setting([4, 64], "profiling", "latency", "prompt_tokens"),
        "configuration key `profiling.latency.prompt_tokens`: 64 tokens of a prompt and 3 written",
    ),
    "generation": (
        "generation/features.parquet",
        setting(60, "generation", "new_tokens"),
        "configuration key `generation.new_tokens`: 14 tokens of a prompt and 60 written",
    ),
    "samples": (
        "generation/samples.parquet",
        setting(60, "generation", "sampling", "new_tokens"),
        "configuration key `generation.sampling.new_tokens`: 14 tokens of a prompt and 60 written",
    ),
}


@pytest.mark.parametrize("what", BEYOND_THE_CONTEXT)
def test_a_prompt_beyond_the_context_is_refused_in_one_sentence(own_copy: Study, what: str) -> None:
    table, change, sentence = BEYOND_THE_CONTEXT[what]
    target = f"results/tiny/{table}"
    outcome = own_copy.changed(change).snakemake(targets=[target])
    assert outcome.status != 0
    assert sentence in outcome.sentence
    assert "context of tiny, 64 tokens; set it lower." in outcome.sentence
    assert "Traceback" not in outcome.output
    assert not (own_copy.folder / target).exists()
    assert_nothing_half_written(own_copy)


def test_a_hostile_title_is_only_text_on_the_page_of_a_study_of_the_float_model_alone(own_copy: Study) -> None:
    title = "<script>alert('title')</script> & \"<b>quotes</b>\""
    hostile = own_copy.changed(setting(title, "study", "title")).changed(setting(["fp"], "study", "schemes"))
    outcome = hostile.snakemake()
    assert outcome.status == 0, outcome.output
    summaries = {"summarize_perplexity", "summarize_schemes", "summarize_runs"}
    about = {"judge_claims", "list_rules", "plot_rules", "report"}
    assert outcome.jobs == summaries | about | {"plot_perplexity", "plot_pareto", "compare_bytes"}
    page = (own_copy.results / "report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "<b>quotes" not in page
    assert "&lt;script&gt;alert" in page


def test_a_run_takes_up_where_a_fault_was_mended(failed: Failed, tmp_path: Path) -> None:
    mended = failed.study.copy(tmp_path / "study")
    shutil.rmtree(mended.folder / "models" / "truncated")
    tiny_checkpoint(mended.folder / "models" / "truncated")
    target = "results/truncated/evaluation/fp/perplexity.parquet"
    assert mended.would_run(target) == {"fetch_model truncated", "evaluate_reference truncated/fp"}
