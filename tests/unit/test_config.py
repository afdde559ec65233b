"""Configurations: what can't be run is refused in one sentence that names the key."""

import copy
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from snakemake.utils import update_config

from inferometer.config import Config, ConfigError, schema, validate
from inferometer.scheme_checks import faults
from inferometer.schemes import Scheme

ROOT = Path(__file__).parents[2]
DEFAULT = ROOT / "config" / "config.yaml"
OVERLAYS = sorted(path for path in DEFAULT.parent.glob("*.yaml") if path.name not in ("config.yaml", "schema.yaml"))
README = ROOT / "config" / "README.md"

MODEL = "smollm2-135m-instruct"
DIGEST = "0" * 64
COMMIT = "0" * 40
GRID = {"bits": 8, "granularity": "per_channel"}
DELETED = object()


def _load(path: Path) -> Config:
    config: Config = yaml.safe_load(path.read_text(encoding="utf-8"))
    return config


def _default_with(key: str, value: object) -> Config:
    """The default configuration with one key set or deleted; slashes part it, as names may hold dots."""
    config = copy.deepcopy(_load(DEFAULT))
    *parents, last = key.split("/")
    part: Any = config
    for parent in parents:
        part = part[parent]
    if value is DELETED:
        del part[last]
    else:
        part[last] = value
    return config


def _complaint(config: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        validate(config, ROOT, ROOT)
    return str(caught.value)


def _assert_one_sentence(text: str) -> None:
    assert "\n" not in text
    assert text.endswith(".")
    assert len(text) < 400
    for leak in ("Traceback", "Error", "$ref", "additionalProperties", "Unset"):
        assert leak not in text


HUB = {"source": "hub", "id": "someone/model", "revision": COMMIT}
LOCAL_TEXT = {"source": "local", "path": "config/config.yaml", "format": "txt"}
LOCAL_QUESTIONS = {"source": "local", "path": "config/config.yaml", "format": "hellaswag"}

BAD: list[tuple[str, object, str, str]] = [
    # unknown keys, on every level
    ("colour", 1, "`colour`", "known here: attention, calibration, capacity"),
    (f"models/{MODEL}/colour", 1, f"`models.{MODEL}.colour`", "known here"),
    (f"models/{MODEL}/revision", COMMIT, f"`models.{MODEL}.revision`", "known here"),
    ("corpora/wikipedia/colour", 1, "`corpora.wikipedia.colour`", "known here"),
    ("question_sets/social-iqa/text_key", "a", "`question_sets.social-iqa.text_key`", "known here"),
    ("evaluation/choices/colour", 1, "`evaluation.choices.colour`", "max_items, question_sets"),
    ("schemes/w8a8/colour", 1, "`schemes.w8a8.colour`", "activations, engine, keep, rotation, smoothing, weights"),
    ("schemes/w8a8/weights/group", 1, "`schemes.w8a8.weights.group`", "bits, clip, format, granularity, group_size"),
    ("schemes/w8a8/weights/range", "static", "`schemes.w8a8.weights.range`", "known here"),
    ("schemes/w8a8/activations/rounding", "gptq", "`schemes.w8a8.activations.rounding`", "outlier_threshold"),
    ("schemes/w8a8-rotated/rotation/matrix", 1, "`schemes.w8a8-rotated.rotation.matrix`", "seed"),
    ("evaluation/sensitivity/colour", 1, "`evaluation.sensitivity.colour`", "schemes, window_tokens"),
    ("schemes/w8a8-smooth/smoothing/beta", 1, "`schemes.w8a8-smooth.smoothing.beta`", "alpha"),
    ("study/colour", 1, "`study.colour`", "models, schemes, title"),
    ("calibration/colour", 1, "`calibration.colour`", "known here"),
    ("evaluation/colour", 1, "`evaluation.colour`", "known here"),
    ("figures/colour", 1, "`figures.colour`", "dpi"),
    ("capacity/colour", 1, "`capacity.colour`", "context_tokens, dtype"),
    ("capacity/models", ["llama-9"], "`capacity.models` names 'llama-9'", "llama-3-8b"),
    ("capacity/gpus", ["h900"], "`capacity.gpus` names 'h900'", "h100-80gb"),
    ("capacity/context_tokens", [1024, 0], "`capacity.context_tokens[1]`", "at least 1"),
    ("capacity/kv_bits", [3], "`capacity.kv_bits[0]`", "16, 8, 4, 2"),
    ("capacity/reserve", 1, "`capacity.reserve`", "less than 1"),
    ("capacity/overhead_gib", -1, "`capacity.overhead_gib`", "at least 0"),
    ("capacity/intensity", {"context_tokens": [1]}, "`capacity.intensity` lacks `batches`", ""),
    ("attention/inputs/lengths/long/tokens", 4, "`attention.inputs.lengths.long.tokens`", "at least 8"),
    ("attention/inputs/lengths/long/texts", 1, "`attention.inputs.lengths.long.texts`", "at least 2"),
    ("attention/inputs/corpora", ["novels"], "`attention.inputs.corpora` names 'novels'", "openwebtext, wikipedia"),
    ("attention/inputs/question_sets", ["trivia"], "`attention.inputs.question_sets` names 'trivia'", "social-iqa"),
    ("attention/inputs/corpora", ["wikipedia", "wikipedia"], "`attention.inputs.corpora`", "non-unique"),
    ("attention/first_token/input", "novels", "`attention.first_token.input` is 'novels'", "repeated, random"),
    ("attention/first_token/length", "epic", "`attention.first_token.length` is 'epic'", "short, medium, long"),
    ("attention/first_token/words/bos", "the", "`attention.first_token.words` calls a word 'bos'", "rename it"),
    ("attention/rounding/schemes", ["w8a8-smooth"], "`attention.rounding.schemes` names 'w8a8-smooth'", "simulated"),
    ("attention/rounding/schemes", ["fp"], "`attention.rounding.schemes` names 'fp'", "attention is compared only"),
    ("attention/rounding/policies", ["float"], "`attention.rounding.policies` names 'float'", "static-4"),
    ("attention/rounding/policies", ["static-9"], "`attention.rounding.policies` names 'static-9'", "static-4"),
    (
        "attention/rounding/policies",
        ["saliency"],
        "`attention.rounding.policies` names 'saliency'",
        "or gradients itself",
    ),
    ("attention/rounding/context_tokens", 256, "`attention.rounding.context_tokens` is 256", "set it lower"),
    # lacking keys
    ("device", DELETED, "`device`", "lacks"),
    ("study/title", DELETED, "`study` lacks `title`", ""),
    (f"models/{MODEL}/source", DELETED, f"`models.{MODEL}` lacks `source`", ""),
    (f"models/{MODEL}/wheel_sha256", DELETED, f"`models.{MODEL}` lacks `wheel_sha256`", ""),
    (f"models/{MODEL}", {"source": "hub", "id": "a/b"}, f"`models.{MODEL}` lacks `revision`", ""),
    (f"models/{MODEL}", {"source": "local"}, f"`models.{MODEL}` lacks `path`", ""),
    (
        f"models/{MODEL}",
        {"source": "architecture", "config": {}, "seed": 0},
        f"`models.{MODEL}.config`",
        "model_type",
    ),
    ("corpora/wikipedia/text_key", DELETED, "`corpora.wikipedia` lacks `text_key`", ""),
    ("corpora/wikipedia/format", DELETED, "`corpora.wikipedia` lacks `format`", ""),
    ("question_sets", DELETED, "lacks `question_sets`", ""),
    ("question_sets/social-iqa/format", DELETED, "`question_sets.social-iqa` lacks `format`", ""),
    ("question_sets/social-iqa/file_sha256", DELETED, "`question_sets.social-iqa` lacks `file_sha256`", ""),
    ("evaluation/choices/max_items", DELETED, "`evaluation.choices` lacks `max_items`", ""),
    ("schemes/w8a8-rotated/rotation", {}, "`schemes.w8a8-rotated.rotation` lacks `seed`", ""),
    ("schemes/w8a8-smooth/smoothing", {}, "`schemes.w8a8-smooth.smoothing` lacks `alpha`", ""),
    ("calibration/rounding_windows", DELETED, "`calibration` lacks `rounding_windows`", ""),
    ("evaluation/sensitivity", DELETED, "`evaluation` lacks `sensitivity`", ""),
    # wrong types
    ("study", 5, "`study`", "type object"),
    ("models", [MODEL], "`models`", "type object"),
    (f"models/{MODEL}", None, f"`models.{MODEL}`", "type object"),
    (f"models/{MODEL}/version", 0.1, f"`models.{MODEL}.version`", "type string"),
    ("schemes/fp", None, "`schemes.fp`", "type object"),
    ("schemes/w8a8/weights/bits", "8", "`schemes.w8a8.weights.bits`", "type integer"),
    ("schemes/w8a8/weights/bits", 8.0, "`schemes.w8a8.weights.bits`", "type integer"),
    ("schemes/w8a8/weights/bits", True, "`schemes.w8a8.weights.bits`", "type integer"),
    ("schemes/w8a8-smooth/smoothing/alpha", "half", "`schemes.w8a8-smooth.smoothing.alpha`", "search_per_site"),
    ("schemes/w8a8-smooth/smoothing/alpha", True, "`schemes.w8a8-smooth.smoothing.alpha`", "a number from 0"),
    ("schemes/w8a8-smooth/smoothing/alpha", math.nan, "`schemes.w8a8-smooth.smoothing.alpha`", "a number from 0"),
    ("schemes/w8a8/weights/symmetric", 1, "`schemes.w8a8.weights.symmetric`", "type boolean"),
    ("schemes/w8a8-rotated/rotation/seed", 0.5, "`schemes.w8a8-rotated.rotation.seed`", "type integer"),
    ("schemes/w8a8/keep", "*.down_proj", "`schemes.w8a8.keep`", "type array"),
    ("schemes/w8a8/keep", [5], "`schemes.w8a8.keep[0]`", "type string"),
    ("calibration/window_tokens", 512.0, "`calibration.window_tokens`", "type integer"),
    ("calibration/layers", "first", "`calibration.layers`", "type array"),
    ("study/models", MODEL, "`study.models`", "type array"),
    ("study/models", [7], "`study.models[0]`", "type string"),
    ("figures/dpi", "high", "`figures.dpi`", "type integer"),
    # out of range
    ("schemes/w8a8-smooth/smoothing/alpha", 1.01, "`schemes.w8a8-smooth.smoothing.alpha`", "at most 1"),
    ("schemes/w8a8-smooth/smoothing/alpha", -0.01, "`schemes.w8a8-smooth.smoothing.alpha`", "at least 0"),
    ("schemes/w8a8-rotated/rotation/seed", -1, "`schemes.w8a8-rotated.rotation.seed`", "at least 0"),
    ("schemes/w4a16-g64/weights/group_size", 1, "`schemes.w4a16-g64.weights.group_size`", "at least 2"),
    ("schemes/w8a8/weights/percentile", 50, "`schemes.w8a8.weights.percentile`", "more than 50"),
    ("schemes/w8a8/weights/percentile", 100.5, "`schemes.w8a8.weights.percentile`", "at most 100"),
    ("schemes/w8a8/activations/outlier_threshold", 0, "`schemes.w8a8.activations.outlier_threshold`", "more than 0"),
    ("schemes/w8a8/keep", [], "`schemes.w8a8.keep`", ""),
    ("calibration/rounding_windows", 0, "`calibration.rounding_windows`", "at least 1"),
    ("evaluation/sensitivity/window_tokens", 1, "`evaluation.sensitivity.window_tokens`", "at least 2"),
    ("schemes/w8a8/weights/bits", 1, "`schemes.w8a8.weights.bits`", "at least 2"),
    ("schemes/w8a8/activations/bits", 17, "`schemes.w8a8.activations.bits`", "at most 16"),
    ("calibration/window_tokens", 1, "`calibration.window_tokens`", "at least 2"),
    ("evaluation/max_windows", 1, "`evaluation.max_windows`", "at least 2"),
    ("evaluation/max_windows", "some", "`evaluation.max_windows`", "a whole number of at least 2, or all"),
    ("calibration/max_windows", 2.5, "`calibration.max_windows`", "a whole number of at least 2, or all"),
    ("evaluation/choices/max_items", 1, "`evaluation.choices.max_items`", "at least 2"),
    ("evaluation/choices/max_items", "some", "`evaluation.choices.max_items`", "a whole number of at least 2, or all"),
    ("evaluation/choices/question_sets", [], "`evaluation.choices.question_sets`", ""),
    ("figures/dpi", 10, "`figures.dpi`", "at least 50"),
    ("study/title", "", "`study.title`", ""),
    ("study/models", [], "`study.models`", ""),
    ("study/schemes", ["fp", "fp"], "`study.schemes`", ""),
    ("models", {}, "`models`", ""),
    # not one of the choices
    ("device", "tpu", "`device`", "auto, cpu, cuda"),
    ("device", False, "`device`", "auto, cpu, cuda"),
    ("evaluation/protocol", "other", "`evaluation.protocol`", "smoothquant"),
    (f"models/{MODEL}/source", "ftp", f"`models.{MODEL}.source`", "pypi, hub, local, architecture"),
    (f"models/{MODEL}/dtype", "int8", f"`models.{MODEL}.dtype`", "auto, float32, float16, bfloat16"),
    ("corpora/wikipedia/format", "csv", "`corpora.wikipedia.format`", "txt, jsonl, parquet"),
    ("question_sets/social-iqa/format", "arc", "`question_sets.social-iqa.format`", "socialiqa, mmlu, hellaswag"),
    (
        "schemes/w8a8/weights/granularity",
        "per_token",
        "`schemes.w8a8.weights.granularity`",
        "per_tensor, per_channel, per_group",
    ),
    (
        "schemes/w8a8/activations/granularity",
        "per_channel",
        "`schemes.w8a8.activations.granularity`",
        "per_tensor, per_token, per_group",
    ),
    ("schemes/w8a8/weights/rounding", "awq", "`schemes.w8a8.weights.rounding`", "nearest, gptq"),
    ("schemes/w8a8/weights/clip", "none", "`schemes.w8a8.weights.clip`", "absmax, percentile, mse"),
    ("schemes/w8a8/activations/range", "fixed", "`schemes.w8a8.activations.range`", "dynamic, static"),
    ("schemes/w8a8/engine", "cuda", "`schemes.w8a8.engine`", "simulated, integer, bitsandbytes"),
    ("schemes/w8a8/weights", {"format": "int3"}, "`schemes.w8a8.weights.format`", "fp8_e4m3, fp8_e5m2, mxfp8"),
    ("schemes/w8a8/activations", {"format": "nf4"}, "`schemes.w8a8.activations.format`", "nvfp4"),
    ("schemes/w8a8-smooth/smoothing/method", "gptq", "`schemes.w8a8-smooth.smoothing.method`", "smoothquant, awq"),
    ("schemes/w8a8-smooth/smoothing/sites", "some", "`schemes.w8a8-smooth.smoothing.sites`", "norms, all"),
    ("calibration/layers", ["center"], "`calibration.layers[0]`", "first, middle, last, or the index"),
    ("calibration/layers", ["first", -1], "`calibration.layers[1]`", "at least 0"),
    ("calibration/layers", [1.5], "`calibration.layers[0]`", "first, middle, last, or the index"),
    ("calibration/layers", [True], "`calibration.layers[0]`", "first, middle, last, or the index"),
    ("calibration/layers", ["first", "first"], "`calibration.layers`", ""),
    ("calibration/layers", [], "`calibration.layers`", ""),
    # digests, revisions, names
    (f"models/{MODEL}/file_sha256", "abc", f"`models.{MODEL}.file_sha256`", "pattern"),
    (f"models/{MODEL}/file_sha256", DIGEST.replace("0", "G"), f"`models.{MODEL}.file_sha256`", "pattern"),
    (f"models/{MODEL}/file_sha256", DIGEST + "0", f"`models.{MODEL}.file_sha256`", "pattern"),
    (f"models/{MODEL}/file", "model.bin", f"`models.{MODEL}.file`", "pattern"),
    (f"models/{MODEL}", {**HUB, "revision": "main"}, f"`models.{MODEL}.revision`", "pattern"),
    (f"models/{MODEL}", {**HUB, "id": "a/b/c"}, f"`models.{MODEL}.id`", "pattern"),
    (
        f"models/{MODEL}",
        {**HUB, "sha256": {"model.safetensors": "y"}},
        f"`models.{MODEL}.sha256.model.safetensors`",
        "",
    ),
    ("models/My Model", HUB, "`models` defines 'My Model'", "lower-case"),
    ("schemes/" + "x" * 65, {}, "`schemes` defines", "64"),
    ("question_sets/Own", LOCAL_QUESTIONS, "`question_sets` defines 'Own'", "lower-case"),
    ("corpora/-wiki", LOCAL_TEXT, "`corpora` defines '-wiki'", "letter or digit at both ends"),
    # names that nothing defines
    ("study/models", ["gpt5"], "`study.models` names 'gpt5'", MODEL),
    ("study/schemes", ["fp", "w2"], "`study.schemes` names 'w2'", "w8a8-smooth"),
    ("calibration/corpus", "pile", "`calibration.corpus` names 'pile'", "openwebtext, wikipedia"),
    ("evaluation/corpus", "pile", "`evaluation.corpus` names 'pile'", "openwebtext, wikipedia"),
    ("evaluation/choices/question_sets", ["arc"], "`evaluation.choices.question_sets` names 'arc'", "mmlu-subset"),
    ("evaluation/reference", "float", "`evaluation.reference` names 'float'", "fp"),
    # what does not fit together
    ("evaluation/reference", "w8a8", "`evaluation.reference` names 'w8a8', which quantizes", "fp: {}"),
    ("study/schemes", ["w8a8"], "`study.schemes` lacks the reference 'fp'", "add it"),
    ("evaluation/reference", "w8a8-rotated", "`evaluation.reference` names 'w8a8-rotated'", "fp: {}"),
    ("evaluation/sensitivity/schemes", ["w5"], "`evaluation.sensitivity.schemes` names 'w5'", "w4a4"),
    *(
        ("evaluation/sensitivity/schemes", ["w4a4", name], f"`evaluation.sensitivity.schemes` names '{name}'", "alone")
        for name in ("fp", "w8a8-integer", "w8a8-smooth", "w8a8-rotated", "int8-bnb", "w4a16", "w4a16-awq")
    ),
    # profiling
    ("profiling/repetitions", 0, "`profiling.repetitions` is 0", "at least 2"),
    ("profiling/seconds", -1, "`profiling.seconds` is -1", "at least 0"),
    ("profiling/latency/new_tokens", 1, "`profiling.latency.new_tokens` is 1", "at least 2"),
    ("profiling/latency/prompt_tokens", [0], "`profiling.latency.prompt_tokens[0]` is 0", "at least 1"),
    ("profiling/memory/new_tokens", [8, 16], "`profiling.memory.new_tokens`", "short"),
    ("profiling/kernels/dtypes", ["int8"], "`profiling.kernels.dtypes[0]` is 'int8'", "bfloat16"),
    ("profiling/baseline/prompts", {}, "`profiling.baseline.prompts`", "non-empty"),
    ("profiling/schemes", ["w5"], "`profiling.schemes` names 'w5'", "w8a8-integer"),
    ("profiling/schemes", ["fp", "w8a8"], "`profiling.schemes` names 'w8a8'", "simulated"),
    # KV caches
    ("kv_cache/policies/static-4/bits", 5, "`kv_cache.policies.static-4.bits` is 5", "2, 3, 4, 8"),
    ("kv_cache/policies/quanto-4/bits", 8, "`kv_cache.policies.quanto-4.bits` is 8", "2, 4"),
    ("kv_cache/policies/entropy/widths", [2, 16], "`kv_cache.policies.entropy.widths[1]` is 16", "2, 3, 4, 8"),
    ("kv_cache/policies/entropy/feature", "mood", "`kv_cache.policies.entropy.feature` is 'mood'", "recency"),
    ("kv_cache/policies/entropy/average_bits", 5, "`kv_cache.policies.entropy.average_bits` is 5", "set it between"),
    ("kv_cache/policies/entropy/bits", 4, "unknown configuration key `kv_cache.policies.entropy.bits`", "widths"),
    ("kv_cache/policies/static-4/group_size", 4, "`kv_cache.policies.static-4.group_size` is 4", "at least 8"),
    ("kv_cache/policies/static-4", {"keys": "per_token"}, "`kv_cache.policies.static-4`", "bits"),
    ("kv_cache/schemes/fp", ["float", "static-5"], "`kv_cache.schemes.fp` names 'static-5'", "static-4"),
    ("kv_cache/schemes/fp", ["static-4", "float"], "`kv_cache.schemes.fp` must begin with a float cache", "float: {}"),
    ("kv_cache/schemes/w9", ["float"], "`kv_cache.schemes` names 'w9'", "w8a8-integer"),
    ("kv_cache/schemes/w8a8", ["float"], "`kv_cache.schemes` names 'w8a8', whose arithmetic is simulated", "engine"),
    ("kv_cache/corpus", "pile", "`kv_cache.corpus` names 'pile'", "openwebtext, wikipedia"),
    ("kv_cache/choices/question_sets", ["arc"], "`kv_cache.choices.question_sets` names 'arc'", "mmlu-subset"),
    ("kv_cache/context_tokens", 320, "`kv_cache.context_tokens` is 320", "set it lower"),
    # sampling
    ("generation/sampling/temperatures", [0, -0.1], "`generation.sampling.temperatures[1]` is -0.1", "at least 0"),
    ("generation/sampling/temperatures", [0.5], "`generation.sampling.temperatures`", "too short"),
    ("generation/sampling/temperatures", [0, math.inf], "`generation.sampling.temperatures[1]` is inf", "number"),
    ("generation/sampling/top_p", 0, "`generation.sampling.top_p` is 0", "more than 0"),
    ("generation/sampling/top_p", 1.5, "`generation.sampling.top_p` is 1.5", "at most 1"),
    ("generation/sampling/top_k", -1, "`generation.sampling.top_k` is -1", "at least 0"),
    ("generation/sampling/seeds", [1, -1], "`generation.sampling.seeds[1]` is -1", "at least 0"),
    ("generation/sampling/prompts/fact", "", "`generation.sampling.prompts.fact` is empty", "one character"),
    ("generation/prompts/story", "", "`generation.prompts.story` is empty", "one character"),
    ("generation/sampling/prompts/story", "Tell.", "`generation.sampling.prompts` defines 'story'", "another name"),
    # attention
    ("attention/eviction/corpus", "pile", "`attention.eviction.corpus` names 'pile'", "openwebtext, wikipedia"),
    ("attention/eviction/window_tokens", 126, "`attention.eviction.window_tokens`", "multiple of 4"),
    ("attention/eviction/window_tokens", 4, "`attention.eviction.window_tokens` is 4", "at least 8"),
    ("attention/eviction/sink_tokens", [0, 4], "`attention.eviction.sink_tokens[0]` is 0", "at least 1"),
    ("attention/eviction/sink_tokens", [4, 128], "`attention.eviction.sink_tokens` has 128", "window of 128; set it"),
    # local files
    (
        f"models/{MODEL}",
        {"source": "local", "path": "no/where"},
        f"`models.{MODEL}.path` names no/where",
        "not exist",
    ),
    (
        "corpora/wikipedia",
        {**LOCAL_TEXT, "path": "no.txt"},
        "`corpora.wikipedia.path` names no.txt",
        "not exist",
    ),
    (
        "question_sets/own",
        {**LOCAL_QUESTIONS, "path": "no.jsonl"},
        "`question_sets.own.path` names no.jsonl",
        "not exist",
    ),
]


@pytest.mark.parametrize(("key", "value", "names", "tells"), BAD)
def test_a_bad_value_is_refused_in_one_sentence_that_names_its_key(
    key: str, value: object, names: str, tells: str
) -> None:
    complaint = _complaint(_default_with(key, value))
    _assert_one_sentence(complaint)
    assert names in complaint
    assert tells in complaint


# What of a scheme does not go together: what is changed in an entry, the key that is named, and a part of the reason.

INPUTS = {"bits": 8, "granularity": "per_token"}
BOTH = {"weights": GRID, "activations": INPUTS}
GROUPS = {"bits": 4, "granularity": "per_group", "group_size": 64}
STATIC = {"bits": 8, "granularity": "per_tensor", "range": "static"}
NF4 = {"weights": {"format": "nf4"}, "engine": "bitsandbytes"}

CONTRADICTIONS: list[tuple[dict[str, Any], str, str]] = [
    # grids
    ({"weights": {}}, "weights.bits", "either `bits`"),
    ({"weights": {"granularity": "per_channel"}}, "weights.bits", "either `bits`"),
    ({"weights": {**GRID, "format": "mxfp4"}}, "weights.bits", "and not both"),
    ({"activations": {**INPUTS, "format": "fp8_e4m3"}}, "activations.bits", "and not both"),
    ({"weights": {"bits": 8}}, "weights.granularity", "is missing"),
    ({"weights": {"format": "fp8_e4m3"}}, "weights.granularity", "is missing"),
    ({"activations": {"bits": 8}}, "activations.granularity", "is missing"),
    ({"weights": {"format": "mxfp4", "granularity": "per_channel"}}, "weights.granularity", "brings its own"),
    ({"weights": {"format": "nvfp4", "group_size": 16}}, "weights.group_size", "brings its own"),
    ({"activations": {"format": "mxfp8", "granularity": "per_token"}}, "activations.granularity", "brings its own"),
    ({**NF4, "weights": {"format": "nf4", "granularity": "per_channel"}}, "weights.granularity", "brings its own"),
    ({"weights": {"format": "mxfp4", "symmetric": True}}, "weights.symmetric", "is for integer grids"),
    (
        {"weights": {"format": "fp8_e4m3", "granularity": "per_channel", "clip": "mse"}},
        "weights.clip",
        "is for integer grids",
    ),
    ({"activations": {"format": "nvfp4", "percentile": 99}}, "activations.percentile", "is for integer grids"),
    ({"weights": {"bits": 4, "granularity": "per_group"}}, "weights.group_size", "per_group needs it"),
    ({"weights": {**GRID, "group_size": 64}}, "weights.group_size", "goes with the granularity per_group"),
    ({"activations": {**INPUTS, "group_size": 64}}, "activations.group_size", "goes with the granularity per_group"),
    ({"weights": {**GRID, "clip": "percentile"}}, "weights.percentile", "which needs it"),
    ({"weights": {**GRID, "percentile": 99}}, "weights.percentile", "goes with `clip: percentile`"),
    ({"weights": {**GRID, "clip": "mse", "percentile": 99}}, "weights.percentile", "goes with `clip: percentile`"),
    # activations
    ({"activations": {**INPUTS, "range": "static"}}, "activations.range", "per_tensor only"),
    ({"activations": {**GROUPS, "range": "static"}}, "activations.range", "per_tensor only"),
    (
        {"activations": {"format": "fp8_e4m3", "granularity": "per_tensor", "range": "static"}},
        "activations.range",
        "integer grids",
    ),
    (
        {"weights": GRID, "activations": {**STATIC, "outlier_threshold": 6.0}},
        "activations.outlier_threshold",
        "static ranges",
    ),
    ({"activations": {**INPUTS, "outlier_threshold": 6.0}}, "activations.outlier_threshold", "also round weights"),
    # smoothing and rotation
    ({**BOTH, "smoothing": {"alpha": 0.5}, "rotation": {"seed": 0}}, "smoothing", "undone by `rotation`"),
    ({"smoothing": {"alpha": 0.5}}, "smoothing.alpha", "must round both"),
    ({"weights": GRID, "smoothing": {"alpha": 0.5}}, "smoothing.alpha", "`method: awq`"),
    ({"activations": INPUTS, "smoothing": {"alpha": 0.5}}, "smoothing.alpha", "must round both"),
    ({**BOTH, "smoothing": {"method": "awq", "alpha": 0.5}}, "smoothing.method", "round weights only"),
    ({"smoothing": {"method": "awq", "alpha": 0.5}}, "smoothing.method", "round weights only"),
    # engines
    ({"weights": {"format": "nf4"}}, "engine", "is simulated; the formats llm_int8 and nf4"),
    ({"weights": {"format": "llm_int8"}, "engine": "integer"}, "engine", "is integer; the formats"),
    ({"weights": GRID, "engine": "bitsandbytes"}, "engine", "is bitsandbytes; the formats"),
    ({"engine": "bitsandbytes"}, "engine", "go together only"),
    ({**NF4, "activations": INPUTS}, "activations", "can't be combined with the engine bitsandbytes"),
    ({**NF4, "rotation": {"seed": 0}}, "rotation", "can't be combined with the engine bitsandbytes"),
    (
        {**NF4, "smoothing": {"alpha": 0.5, "method": "awq"}},
        "smoothing",
        "can't be combined with the engine bitsandbytes",
    ),
    ({**NF4, "weights": {"format": "nf4", "rounding": "gptq"}}, "weights.rounding", "rounds as the library does"),
    ({"engine": "integer"}, "weights", "must be on an integer grid"),
    ({"activations": INPUTS, "engine": "integer"}, "weights", "must be on an integer grid"),
    ({"weights": {"format": "mxfp4"}, "engine": "integer"}, "weights", "must be on an integer grid"),
    ({"weights": {**GRID, "bits": 5}, "engine": "integer"}, "weights.bits", "is 5, which the engine integer can't"),
    ({**BOTH, "activations": {**INPUTS, "bits": 6}, "engine": "integer"}, "activations.bits", "is 6, which"),
    ({**BOTH, "activations": {"format": "mxfp8"}, "engine": "integer"}, "activations.bits", "is mxfp8, which"),
    (
        {**BOTH, "activations": {"bits": 8, "granularity": "per_tensor"}, "engine": "integer"},
        "activations.granularity",
        "must be per_token",
    ),
    ({**BOTH, "activations": GROUPS, "engine": "integer"}, "activations.granularity", "must be per_token"),
    (
        {**BOTH, "activations": {**INPUTS, "outlier_threshold": 6.0}, "engine": "integer"},
        "activations.granularity",
        "without outliers",
    ),
    ({**BOTH, "weights": GROUPS, "engine": "integer"}, "weights.granularity", "one scale a row"),
    ({**BOTH, "weights": {**GRID, "symmetric": False}, "engine": "integer"}, "weights.granularity", "and symmetric"),
    # modules in float
    ({"keep": ["*.down_proj"]}, "keep", "the scheme rounds none"),
    ({"rotation": {"seed": 0}, "keep": ["*.down_proj"]}, "keep", "the scheme rounds none"),
]


@pytest.mark.parametrize(("entry", "key", "reason"), CONTRADICTIONS)
def test_parts_of_a_scheme_that_do_not_go_together_are_refused_with_their_key(
    entry: dict[str, Any], key: str, reason: str
) -> None:
    found = list(faults(entry))
    assert any(named == key and reason in why for named, why in found)
    complaint = _complaint(_default_with("schemes/s", entry))
    _assert_one_sentence(complaint)
    first, why = found[0]
    assert complaint == f"configuration key `schemes.s.{first}` {why}."


@pytest.mark.parametrize("format", ["nf4", "llm_int8"])
def test_formats_of_the_library_are_for_weights(format: str) -> None:
    assert "is for the weights of" in dict(faults({"activations": {"format": format}}))["activations.format"]


SOUND: list[dict[str, Any]] = [
    {},
    {"rotation": {"seed": 0}},
    {"weights": GRID},
    {"activations": INPUTS},
    BOTH,
    *({"weights": {**GRID, "clip": clip}} for clip in ("absmax", "mse")),
    {"weights": {**GRID, "clip": "percentile", "percentile": 99.9, "symmetric": False, "rounding": "gptq"}},
    {"weights": GROUPS, "activations": GROUPS, "rotation": {"seed": 3}, "keep": ["*.o_proj"]},
    {"weights": {**GROUPS, "rounding": "gptq"}, "activations": STATIC},
    {"activations": {**STATIC, "clip": "percentile", "percentile": 99.0}},
    *(
        {"weights": {"format": format, "granularity": "per_channel"}, "activations": {"format": "mxfp8"}}
        for format in ("fp8_e4m3", "fp8_e5m2")
    ),
    *({"weights": {"format": format}} for format in ("mxfp8", "mxfp4", "nvfp4")),
    {"weights": {"format": "mxfp4", "rounding": "gptq"}},
    {"weights": GRID, "activations": {"format": "fp8_e4m3", "granularity": "per_token", "range": "dynamic"}},
    {"weights": GRID, "activations": {**INPUTS, "outlier_threshold": 6}},
    {**BOTH, "smoothing": {"alpha": 0}},
    {**BOTH, "smoothing": {"alpha": "search_per_model", "sites": "all", "method": "smoothquant"}},
    {"weights": GROUPS, "smoothing": {"alpha": "search_per_site", "method": "awq"}},
    {**BOTH, "engine": "simulated"},
    {**BOTH, "engine": "integer", "smoothing": {"alpha": 0.5}, "keep": ["*"]},
    {**BOTH, "engine": "integer", "rotation": {"seed": 0}},
    {"weights": {**GRID, "rounding": "gptq", "bits": 4}, "activations": STATIC, "engine": "integer"},
    {"weights": {**GROUPS, "symmetric": False, "rounding": "gptq"}, "engine": "integer"},
    {"weights": GRID, "activations": {**INPUTS, "symmetric": False, "clip": "mse"}, "engine": "integer"},
    NF4,
    {"weights": {"format": "llm_int8"}, "engine": "bitsandbytes", "keep": ["*.0.*"]},
]


@pytest.mark.parametrize("entry", SOUND)
def test_a_scheme_whose_parts_go_together_is_accepted_and_can_be_read(entry: dict[str, Any]) -> None:
    assert list(faults(entry)) == []
    validate(_default_with("schemes/s", entry), ROOT, ROOT)
    scheme = Scheme.of("s", entry)
    assert scheme.quantizes == bool({"weights", "activations"} & entry.keys())
    assert scheme.keep == tuple(entry.get("keep", ()))


def _sized(tmp_path: Path, source: str, fields: dict[str, Any], entry: dict[str, Any]) -> Config:
    """The default with a model whose widths are known, and a scheme."""
    config = _default_with("schemes/s", entry)
    config["study"]["schemes"] = ["fp", "s"]
    config["study"]["models"].append("own")
    if source == "local":
        (tmp_path / "own").mkdir()
        (tmp_path / "own" / "config.json").write_text(json.dumps(fields))
        config["models"]["own"] = {"source": "local", "path": "own"}
    else:
        config["models"]["own"] = {"source": "architecture", "config": fields, "seed": 0}
    return config


@pytest.mark.parametrize("source", ["local", "architecture"])
@pytest.mark.parametrize(
    ("entry", "key", "reason"),
    [
        ({"weights": GROUPS}, "weights.group_size", "is 64, which does not divide the width 96 of own"),
        ({"weights": GRID, "activations": GROUPS}, "activations.group_size", "is 64, which does not divide"),
        ({"weights": {**GROUPS, "group_size": 32}}, "", ""),
        ({"weights": {"format": "mxfp4"}}, "", ""),
        (BOTH, "", ""),
    ],
)
def test_groups_must_divide_the_widths_that_are_known(
    source: str, entry: dict[str, Any], key: str, reason: str, tmp_path: Path
) -> None:
    fields = {"model_type": "llama", "hidden_size": 96, "intermediate_size": 256}
    config = _sized(tmp_path, source, fields, entry)
    if not key:
        validate(config, ROOT, tmp_path)
        return
    with pytest.raises(ConfigError) as caught:
        validate(config, ROOT, tmp_path)
    _assert_one_sentence(str(caught.value))
    assert f"`schemes.s.{key}` {reason}" in str(caught.value)


@pytest.mark.parametrize(
    ("width", "fields"),
    [(48, {"hidden_size": 64, "intermediate_size": 48}), (48, {"n_embd": 48}), (72, {"ffn_dim": 72})],
)
@pytest.mark.parametrize("part", ["weights", "activations"])
def test_blocks_of_formats_must_divide_them_too(width: int, fields: dict[str, Any], part: str, tmp_path: Path) -> None:
    config = _sized(tmp_path, "architecture", {"model_type": "x", **fields}, {part: {"format": "mxfp4"}})
    with pytest.raises(ConfigError, match=rf"`schemes\.s\.{part}\.format` is mxfp4, .* of 32 do not .* {width} of own"):
        validate(config, ROOT, tmp_path)
    config["study"]["schemes"] = ["fp"]
    validate(config, ROOT, tmp_path)


def test_a_local_model_whose_configuration_is_not_json_is_refused(tmp_path: Path) -> None:
    config = _sized(tmp_path, "local", {}, BOTH)
    (tmp_path / "own" / "config.json").write_text("{")
    with pytest.raises(
        ConfigError, match=r"`models\.own\.path`: .*config\.json can't be read as a model's configuration"
    ):
        validate(config, ROOT, tmp_path)


def test_names_that_yaml_reads_as_numbers_are_refused() -> None:
    config = _load(DEFAULT)
    config["models"][7] = HUB
    assert "`models` defines 7" in _complaint(config)
    config = _load(DEFAULT)
    config["study"][7] = 1
    assert "`study` defines 7" in _complaint(config)


@pytest.mark.parametrize("config", [[], None, "text"])
def test_a_configuration_that_is_no_mapping_is_refused(config: object) -> None:
    complaint = _complaint(config)
    _assert_one_sentence(complaint)
    assert "the configuration is" in complaint


GOOD: list[tuple[str, object]] = [
    ("device", "cuda"),
    ("schemes/w8a8-smooth/smoothing/alpha", 0),
    ("schemes/w8a8-smooth/smoothing/alpha", 1.0),
    ("schemes/w8a8/weights/bits", 2),
    ("schemes/w8a8/weights/bits", 16),
    ("schemes/weights-only", {"weights": GRID}),
    ("schemes/w8a8-smooth/smoothing/alpha", "search_per_site"),
    ("evaluation/sensitivity/schemes", []),
    ("evaluation/sensitivity/schemes", ["w8a8", "w4a4", "w8a8-outliers", "w4a4-nvfp4"]),
    ("schemes/w8a8/keep", ["*.down_proj", "model.layers.0.*"]),
    ("schemes/activations-only", {"activations": {"bits": 8, "granularity": "per_tensor"}}),
    ("calibration/layers", [0, "last", 7]),
    ("calibration/max_windows", "all"),
    ("corpora/own", LOCAL_TEXT),
    ("question_sets/own", LOCAL_QUESTIONS),
    ("question_sets/own", {**HUB, "file": "a.parquet", "file_sha256": DIGEST, "format": "hellaswag"}),
    ("evaluation/choices", {"question_sets": ["mmlu-subset"], "max_items": "all"}),
    ("models/own", {"source": "local", "path": "config"}),
    ("models/own", {**HUB, "sha256": {"model.safetensors": DIGEST}, "dtype": "bfloat16"}),
    ("models/own", {"source": "architecture", "config": {"model_type": "llama"}, "layers": 2, "seed": 0}),
    (
        "corpora/own",
        {**HUB, "file": "a.parquet", "file_sha256": DIGEST, "format": "parquet", "text_key": "text"},
    ),
]


@pytest.mark.parametrize(("key", "value"), GOOD)
def test_what_the_documentation_allows_is_accepted(key: str, value: object) -> None:
    validate(_default_with(key, value), ROOT, ROOT)


def test_local_paths_start_at_the_folder_of_the_run(tmp_path: Path) -> None:
    config = _default_with("corpora/own", {"source": "local", "path": "mine.txt", "format": "txt"})
    with pytest.raises(ConfigError, match=r"`corpora.own.path` names mine\.txt"):
        validate(config, ROOT, tmp_path)
    (tmp_path / "mine.txt").write_text("text")
    validate(config, ROOT, tmp_path)


@pytest.mark.parametrize("overlay", [None, *OVERLAYS], ids=lambda path: path.name if path else "default")
def test_the_default_and_every_overlay_over_it_are_valid(overlay: Path | None) -> None:
    config = _load(DEFAULT)
    if overlay:
        update_config(config, _load(overlay))
    validate(config, ROOT, ROOT)


# Schema and documentation in step


def _schema_keys(node: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted keys below a part of the schema, with `<>` where the user chooses a name."""
    root = schema(ROOT)
    if "$ref" in node:
        yield from _schema_keys(root["$defs"][node["$ref"].removeprefix("#/$defs/")], prefix)
    for part in (
        *node.get("allOf", ()),
        *node.get("anyOf", ()),
        *(node[key] for key in ("then", "else") if key in node),
    ):
        yield from _schema_keys(part, prefix)
    children = {**node.get("properties", {}), "<>": node.get("additionalProperties", False)}
    for name, child in children.items():
        if name != "<>" or isinstance(child, dict):
            key = f"{prefix}.{name}" if prefix else name
            yield key
            yield from _schema_keys(child if isinstance(child, dict) else {}, key)


def _documented_keys() -> set[str]:
    """Every dotted key in backticks that begins with a section's name, with `<>` for its placeholders."""
    sections = "|".join(schema(ROOT)["properties"])
    keys = re.findall(rf"`((?:{sections})(?:\.(?:<\w+>|\w+))*)`", README.read_text(encoding="utf-8"))
    return {re.sub(r"<\w+>", "<>", key) for key in keys}


def test_the_walk_through_the_schema_finds_every_key_that_the_default_sets() -> None:
    keys = set(_schema_keys(schema(ROOT)))
    assert {"device", "models.<>.wheel_sha256", "models.<>.revision", "corpora.<>.text_key"} <= keys
    assert {"question_sets.<>.revision", "evaluation.choices.max_items"} <= keys
    assert {"schemes.<>.smoothing.alpha", "models.<>.sha256.<>", "models.<>.config.model_type"} <= keys
    for section, content in _load(DEFAULT).items():
        for name, entry in content.items() if isinstance(content, dict) else ():
            assert f"{section}.{name}" in keys or f"{section}.<>" in keys
            for field in entry if isinstance(entry, dict) else ():
                assert {f"{section}.{name}.{field}", f"{section}.<>.{field}", f"{section}.{name}.<>"} & keys


def test_readme_documents_every_key_of_the_schema_and_no_other() -> None:
    keys, documented = set(_schema_keys(schema(ROOT))), _documented_keys()
    assert sorted(keys - documented) == []
    assert sorted(documented - keys) == []


IMAGES = ("images/train.parquet", "images/test.parquet")


def _yaml_examples() -> list[str]:
    return re.findall(r"```yaml\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_every_example_of_the_readme_is_valid_over_the_default(tmp_path: Path) -> None:
    examples = _yaml_examples()
    assert len(examples) >= 3
    for path in ("models/my-model", "texts", "questions", "images"):
        (tmp_path / path).mkdir(parents=True)
    for file in ("models/my-model.gguf", "texts/mine.txt", "texts/mine.jsonl", "questions/mine.jsonl", *IMAGES):
        (tmp_path / file).touch()
    for example in examples:
        config = _load(DEFAULT)
        update_config(config, yaml.safe_load(example))
        validate(config, ROOT, tmp_path)


def test_the_readme_states_the_defaults_that_the_default_configuration_has() -> None:
    text = README.read_text(encoding="utf-8")
    config = _load(DEFAULT)
    sections = {key: config[key] for key in ("calibration", "evaluation", "figures")}
    for part in ("choices", "sensitivity"):
        sections[f"evaluation.{part}"] = config["evaluation"].pop(part)
    sections |= {f"fundamentals.{part}": content for part, content in config["fundamentals"].items()}
    for section, content in sections.items():
        for key, value in content.items():
            shown = f"[{', '.join(map(str, value))}]" if isinstance(value, list) else str(value)
            entry = re.search(rf"^- `{section}\.{key}`.*?(?=^- `|^#|\Z)", text, flags=re.MULTILINE | re.DOTALL)
            assert entry is not None, f"{section}.{key} has no entry"
            assert re.search(rf"Default:\s+`{re.escape(shown)}`", entry.group()), f"{section}.{key}: not {shown}"
    assert f"Default:\n  `{config['device']}`" in text or f"Default: `{config['device']}`" in text
