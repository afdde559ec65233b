"""Configurations: what can't be run is refused in one sentence that names the key."""

import copy
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from snakemake.utils import update_config

from inferometer.config import Config, ConfigError, schema, validate

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

BAD: list[tuple[str, object, str, str]] = [
    # unknown keys, on every level
    ("colour", 1, "`colour`", "known here: calibration, corpora"),
    (f"models/{MODEL}/colour", 1, f"`models.{MODEL}.colour`", "known here"),
    (f"models/{MODEL}/revision", COMMIT, f"`models.{MODEL}.revision`", "known here"),
    ("corpora/wikipedia/colour", 1, "`corpora.wikipedia.colour`", "known here"),
    ("schemes/w8a8/colour", 1, "`schemes.w8a8.colour`", "activations, smoothing, weights"),
    ("schemes/w8a8/weights/group", 1, "`schemes.w8a8.weights.group`", "bits, granularity"),
    ("schemes/w8a8-smooth/smoothing/beta", 1, "`schemes.w8a8-smooth.smoothing.beta`", "alpha"),
    ("study/colour", 1, "`study.colour`", "models, schemes, title"),
    ("calibration/colour", 1, "`calibration.colour`", "known here"),
    ("evaluation/colour", 1, "`evaluation.colour`", "known here"),
    ("figures/colour", 1, "`figures.colour`", "dpi"),
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
    ("schemes/w8a8/weights", {"bits": 8}, "`schemes.w8a8.weights` lacks `granularity`", ""),
    # wrong types
    ("study", 5, "`study`", "type object"),
    ("models", [MODEL], "`models`", "type object"),
    (f"models/{MODEL}", None, f"`models.{MODEL}`", "type object"),
    (f"models/{MODEL}/version", 0.1, f"`models.{MODEL}.version`", "type string"),
    ("schemes/fp", None, "`schemes.fp`", "type object"),
    ("schemes/w8a8/weights/bits", "8", "`schemes.w8a8.weights.bits`", "type integer"),
    ("schemes/w8a8/weights/bits", 8.0, "`schemes.w8a8.weights.bits`", "type integer"),
    ("schemes/w8a8/weights/bits", True, "`schemes.w8a8.weights.bits`", "type integer"),
    ("schemes/w8a8-smooth/smoothing/alpha", "half", "`schemes.w8a8-smooth.smoothing.alpha`", "type number"),
    ("schemes/w8a8-smooth/smoothing/alpha", True, "`schemes.w8a8-smooth.smoothing.alpha`", "type number"),
    ("schemes/w8a8-smooth/smoothing/alpha", math.nan, "`schemes.w8a8-smooth.smoothing.alpha`", "type number"),
    ("calibration/window_tokens", 512.0, "`calibration.window_tokens`", "type integer"),
    ("calibration/layers", "first", "`calibration.layers`", "type array"),
    ("study/models", MODEL, "`study.models`", "type array"),
    ("study/models", [7], "`study.models[0]`", "type string"),
    ("figures/dpi", "high", "`figures.dpi`", "type integer"),
    # out of range
    ("schemes/w8a8-smooth/smoothing/alpha", 1.01, "`schemes.w8a8-smooth.smoothing.alpha`", "at most 1"),
    ("schemes/w8a8-smooth/smoothing/alpha", -0.01, "`schemes.w8a8-smooth.smoothing.alpha`", "at least 0"),
    ("schemes/w8a8/weights/bits", 1, "`schemes.w8a8.weights.bits`", "at least 2"),
    ("schemes/w8a8/activations/bits", 17, "`schemes.w8a8.activations.bits`", "at most 16"),
    ("calibration/window_tokens", 1, "`calibration.window_tokens`", "at least 2"),
    ("evaluation/max_windows", 1, "`evaluation.max_windows`", "at least 2"),
    ("evaluation/max_windows", "some", "`evaluation.max_windows`", "a whole number of at least 2, or all"),
    ("calibration/max_windows", 2.5, "`calibration.max_windows`", "a whole number of at least 2, or all"),
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
    (
        "schemes/w8a8/weights/granularity",
        "per_token",
        "`schemes.w8a8.weights.granularity`",
        "per_tensor, per_channel",
    ),
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
    ("corpora/-wiki", LOCAL_TEXT, "`corpora` defines '-wiki'", "letter or digit at both ends"),
    # names that nothing defines
    ("study/models", ["gpt5"], "`study.models` names 'gpt5'", MODEL),
    ("study/schemes", ["fp", "w2"], "`study.schemes` names 'w2'", "w8a8-smooth"),
    ("calibration/corpus", "pile", "`calibration.corpus` names 'pile'", "openwebtext, wikipedia"),
    ("evaluation/corpus", "pile", "`evaluation.corpus` names 'pile'", "openwebtext, wikipedia"),
    ("evaluation/reference", "float", "`evaluation.reference` names 'float'", "fp"),
    # what does not fit together
    ("evaluation/reference", "w8a8", "`evaluation.reference` names 'w8a8', which quantizes", "fp: {}"),
    ("study/schemes", ["w8a8"], "`study.schemes` lacks the reference 'fp'", "add it"),
    ("schemes/s", {"smoothing": {"alpha": 0.5}}, "`schemes.s` has `smoothing`", "`activations`"),
    (
        "schemes/s",
        {"weights": GRID, "smoothing": {"alpha": 0.5}},
        "`schemes.s` has `smoothing`",
        "`activations`",
    ),
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
]


@pytest.mark.parametrize(("key", "value", "names", "tells"), BAD)
def test_a_bad_value_is_refused_in_one_sentence_that_names_its_key(
    key: str, value: object, names: str, tells: str
) -> None:
    complaint = _complaint(_default_with(key, value))
    _assert_one_sentence(complaint)
    assert names in complaint
    assert tells in complaint


def test_names_that_yaml_reads_as_numbers_are_refused() -> None:
    config = _load(DEFAULT)
    config["models"][7] = HUB
    assert "`models` defines 7" in _complaint(config)
    config = _load(DEFAULT)
    config["study"][7] = 1
    assert "`study.7`" in _complaint(config)


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
    ("schemes/activations-only", {"activations": {"bits": 8, "granularity": "per_tensor"}}),
    ("calibration/layers", [0, "last", 7]),
    ("calibration/max_windows", "all"),
    ("corpora/own", LOCAL_TEXT),
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
    assert {"schemes.<>.smoothing.alpha", "models.<>.sha256.<>", "models.<>.config.model_type"} <= keys
    for section, content in _load(DEFAULT).items():
        for name, entry in content.items() if isinstance(content, dict) else ():
            assert f"{section}.{name}" in keys or f"{section}.<>" in keys
            for field in entry if isinstance(entry, dict) else ():
                assert f"{section}.<>.{field}" in keys


def test_readme_documents_every_key_of_the_schema_and_no_other() -> None:
    keys, documented = set(_schema_keys(schema(ROOT))), _documented_keys()
    assert sorted(keys - documented) == []
    assert sorted(documented - keys) == []


def _yaml_examples() -> list[str]:
    return re.findall(r"```yaml\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_every_example_of_the_readme_is_valid_over_the_default(tmp_path: Path) -> None:
    examples = _yaml_examples()
    assert len(examples) >= 3
    for path in ("models/my-model", "texts"):
        (tmp_path / path).mkdir(parents=True)
    for file in ("models/my-model.gguf", "texts/mine.txt", "texts/mine.jsonl"):
        (tmp_path / file).touch()
    for example in examples:
        config = _load(DEFAULT)
        update_config(config, yaml.safe_load(example))
        validate(config, ROOT, tmp_path)


def test_the_readme_states_the_defaults_that_the_default_configuration_has() -> None:
    text = README.read_text(encoding="utf-8")
    config = _load(DEFAULT)
    for section in ("calibration", "evaluation", "figures"):
        for key, value in config[section].items():
            shown = f"[{', '.join(map(str, value))}]" if isinstance(value, list) else str(value)
            entry = re.search(rf"^- `{section}\.{key}`.*?(?=^- `|^#|\Z)", text, flags=re.MULTILINE | re.DOTALL)
            assert entry is not None, f"{section}.{key} has no entry"
            assert re.search(rf"Default:\s+`{re.escape(shown)}`", entry.group()), f"{section}.{key}: not {shown}"
    assert f"Default:\n  `{config['device']}`" in text or f"Default: `{config['device']}`" in text
