"""Reading and validating a study's configuration, before anything is downloaded or loaded."""

import functools
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import yaml
from jsonschema import ValidationError
from jsonschema.exceptions import best_match

from inferometer.attention.names import DUMMIES, FIRST_TOKENS
from inferometer.bounded_yaml import parts_of_value, read_yaml, too_much
from inferometer.capacity.catalogue import config_file, gpu_names, model_names
from inferometer.chapters import WEIGHTLESS
from inferometer.claims.ledger import read_claims
from inferometer.errors import InferometerError
from inferometer.quantization.formats import BLOCKS
from inferometer.scheme_checks import calibrates, faults
from inferometer.sources.reasons import reason_of
from inferometer.strict_schema import LONGEST_LIST, LONGEST_VALUE, StrictValidator, brief, dotted, listed, shortened

Config = dict[str, Any]

LOOKING = ("saliency", "received_attention")  # features that change how attention is computed while they are taken

SCHEMA_FILE = Path("config/schema.yaml")
DEFAULT_FILE = Path("config/config.yaml")
INTEGER_BITS = 63  # what tables and tensors hold, beside the sign
LEDGER_FILE = Path("report/claims.yaml")


class ConfigError(InferometerError):
    """A configuration that can't be run; the message names the key."""


@functools.cache
def schema(root: Path) -> Mapping[str, Any]:
    """The JSON schema of the configuration, read from `config/schema.yaml` under `root`."""
    return cast(Mapping[str, Any], yaml.safe_load((root / SCHEMA_FILE).read_text(encoding="utf-8")))


def _sentence(error: ValidationError) -> str:
    where = dotted(error.absolute_path)
    prefix = f"configuration key `{where}`" if where else "the configuration"
    value: Any = error.instance
    expected: Any = error.validator_value
    if "propertyNames" in error.absolute_schema_path:
        return (
            f"{prefix} defines {brief(value)}; a name has up to 64 lower-case letters, digits, dots, hyphens and "
            "underscores, with a letter or digit at both ends."
        )
    match error.validator:
        case "additionalProperties":
            known = sorted(cast(Mapping[str, Any], error.schema).get("properties", {}))
            unknown = [f"`{dotted([*error.absolute_path, str(key)])}`" for key in value if key not in known]
            return f"unknown configuration key {listed(unknown)}; known here: {', '.join(known)}."
        case "required":
            missing = [key for key in expected if key not in value]
            return f"{prefix} lacks {', '.join(f'`{key}`' for key in missing)}."
        case "enum":
            return f"{prefix} is {brief(value)}; it must be one of {', '.join(map(str, expected))}."
        case "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum":
            bounds = {"minimum": "at least", "maximum": "at most", "exclusiveMinimum": "more than"}
            bound = bounds.get(str(error.validator), "less than")
            return f"{prefix} is {brief(value)}; it must be {bound} {expected}."
        case "anyOf":
            return f"{prefix} is {brief(value)}; it must be {cast(Mapping[str, Any], error.schema)['description']}."
        case "type":
            return f"{prefix} is {brief(value)}; it must be of type {expected}."
        case "minItems":
            return f"{prefix} is a list of {len(value)}, which is too short; list at least {expected}."
        case "minLength":
            return f"{prefix} is empty; write at least one character."
        case "pattern":
            return f"{prefix} is {brief(value)}; it must match the pattern {expected}."
        case _:
            return f"{prefix}: {shortened(error.message, LONGEST_LIST)}."


def _check_plain(value: Any, path: tuple[str | int, ...] = ()) -> None:
    """Nothing may be in a configuration but what every later step can write down: the schema leaves parts open."""
    where = f"configuration key `{dotted(path)}`" if path else "the configuration"
    match value:
        case dict():
            for key, part in value.items():
                if not isinstance(key, str):
                    raise ConfigError(f"{where} defines {brief(key)}, which is no text; put it in quotes.")
                _check_plain(part, (*path, key))
        case list():
            for place, part in enumerate(value):
                _check_plain(part, (*path, place))
        case int() if value.bit_length() > INTEGER_BITS:
            raise ConfigError(f"{where} is a whole number of {value.bit_length()} bits; {INTEGER_BITS} are the most.")
        case None | str() | int() | float():
            pass
        case _:
            raise ConfigError(
                f"{where} is {brief(value)}, which is no text, number, list or mapping; put it in quotes if it is text."
            )


def _check_names(config: Config) -> None:
    """Every name that one part of the configuration uses must be defined in another."""
    uses = [
        *(("study.models", "models", name) for name in config["study"]["models"]),
        *(("study.schemes", "schemes", name) for name in config["study"]["schemes"]),
        ("calibration.corpus", "corpora", config["calibration"]["corpus"]),
        ("evaluation.corpus", "corpora", config["evaluation"]["corpus"]),
        *(
            ("evaluation.choices.question_sets", "question_sets", name)
            for name in config["evaluation"]["choices"]["question_sets"]
        ),
        *(
            ("evaluation.sensitivity.schemes", "schemes", name)
            for name in config["evaluation"]["sensitivity"]["schemes"]
        ),
        ("evaluation.reference", "schemes", config["evaluation"]["reference"]),
        *(("profiling.schemes", "schemes", name) for name in config["profiling"]["schemes"]),
        *(("kv_cache.schemes", "schemes", name) for name in config["kv_cache"]["schemes"]),
        ("kv_cache.corpus", "corpora", config["kv_cache"]["corpus"]),
        *(
            ("kv_cache.choices.question_sets", "question_sets", name)
            for name in config["kv_cache"]["choices"]["question_sets"]
        ),
        ("generation.insertions.corpus", "corpora", config["generation"]["insertions"]["corpus"]),
        *(("attention.inputs.corpora", "corpora", name) for name in config["attention"]["inputs"]["corpora"]),
        *(
            ("attention.inputs.question_sets", "question_sets", name)
            for name in config["attention"]["inputs"]["question_sets"]
        ),
        *(("attention.rounding.schemes", "schemes", name) for name in config["attention"]["rounding"]["schemes"]),
        ("attention.rounding.corpus", "corpora", config["attention"]["rounding"]["corpus"]),
        ("attention.eviction.corpus", "corpora", config["attention"]["eviction"]["corpus"]),
        ("fundamentals.digits.image_set", "image_sets", config["fundamentals"]["digits"]["image_set"]),
    ]
    for key, section, name in uses:
        if name not in config[section]:
            known = listed(sorted(config[section]))
            raise ConfigError(
                f"configuration key `{key}` names {name!r}, which `{section}` does not define; it defines {known}."
            )
    reference = config["evaluation"]["reference"]
    if config["schemes"][reference]:
        raise ConfigError(
            f"configuration key `evaluation.reference` names {reference!r}, which quantizes; "
            "name a scheme without weights and activations, such as `fp: {}`."
        )
    if reference not in config["study"]["schemes"]:
        raise ConfigError(
            f"configuration key `study.schemes` lacks the reference {reference!r}, "
            "against which every other scheme is paired; add it."
        )
    weighing = [chapter for chapter in config["study"]["chapters"] if chapter not in WEIGHTLESS]
    shapes = all(config["models"][name]["source"] == "architecture" for name in config["study"]["models"])
    if shapes and weighing:
        raise ConfigError(
            "configuration key `study.models` names only shapes with random weights, of which `study.chapters` can't "
            f"measure {', '.join(weighing)}; add a model with weights, or leave these chapters out."
        )


def _check_catalogue(config: Config) -> None:
    """Models and GPUs of the capacity chapter must be among those that are shipped."""
    for key, known in (("models", model_names()), ("gpus", gpu_names())):
        for name in config["capacity"][key]:
            if name not in known:
                raise ConfigError(
                    f"configuration key `capacity.{key}` names {name!r}, which is not shipped; there are "
                    f"{', '.join(known)}."
                )


def _check_schemes(config: Config) -> None:
    """Parts of a scheme that make no sense together, and schemes whose single layers can't be measured."""
    for name, entry in config["schemes"].items():
        for key, reason in faults(entry):
            raise ConfigError(f"configuration key `schemes.{name}.{key}` {reason}.")
    for chapter, part, what in (
        ("evaluation", "sensitivity", "single layers can be rounded alone"),
        ("attention", "rounding", "attention is compared"),
    ):
        for name in config[chapter][part]["schemes"]:
            entry = config["schemes"][name]
            changes = [change for change in ("smoothing", "rotation") if change in entry]
            if not entry or calibrates(entry) or changes or entry.get("engine", "simulated") != "simulated":
                raise ConfigError(
                    f"configuration key `{chapter}.{part}.schemes` names {name!r}, but {what} only in simulated "
                    "schemes without smoothing, rotation, gptq and static ranges."
                )


def _check_really_computed(config: Config, key: str, name: str) -> None:
    """Only arithmetic that is really done may be timed, and only what a scheme alone decides changes its time."""
    entry = config["schemes"][name]
    if entry and entry.get("engine", "simulated") == "simulated":
        raise ConfigError(
            f"configuration key `{key}` names {name!r}, whose arithmetic is simulated, so that its "
            "time says nothing; name float schemes and those with `engine: integer` or `bitsandbytes`."
        )
    if calibrates(entry) or any(part in entry for part in ("smoothing", "rotation")):
        raise ConfigError(
            f"configuration key `{key}` names {name!r}, which is fitted to a text or folded into the "
            "weights first; name the scheme with the same grids that simply rounds, which takes the same time."
        )


def _check_profiled(config: Config) -> None:
    """What is timed must be what runs."""
    for name in config["profiling"]["schemes"]:
        _check_really_computed(config, "profiling.schemes", name)


def _check_caches(config: Config) -> None:
    """Policies must be able to meet their budgets, and each weight scheme needs a float cache to be held against."""
    own = config["kv_cache"]
    policies = own["policies"]
    for name, entry in policies.items():
        if "feature" not in entry:
            continue
        low, high = min(entry["widths"]), max(entry["widths"])
        if not low <= entry["average_bits"] <= high:
            raise ConfigError(
                f"configuration key `kv_cache.policies.{name}.average_bits` is {entry['average_bits']}, which no "
                f"mixture of widths from {low} to {high} bits has on average; set it between them."
            )
    for scheme, names in own["schemes"].items():
        _check_really_computed(config, "kv_cache.schemes", scheme)
        for name in names:
            if name not in policies:
                raise ConfigError(
                    f"configuration key `kv_cache.schemes.{scheme}` names {name!r}, which `kv_cache.policies` does not "
                    f"define; it defines {listed(sorted(policies))}."
                )
        if not policies[names[0]] == {}:
            raise ConfigError(
                f"configuration key `kv_cache.schemes.{scheme}` must begin with a float cache, such as `float: {{}}`, "
                "against which every other policy is paired."
            )
    if own["context_tokens"] >= own["window_tokens"]:
        raise ConfigError(
            f"configuration key `kv_cache.context_tokens` is {own['context_tokens']}, which leaves nothing of a window "
            f"of {own['window_tokens']} tokens to be predicted; set it lower."
        )


def _check_prompts(config: Config) -> None:
    """The prompts that are sampled are those of both lists, so no name may be in both."""
    own = config["generation"]
    for name in own["sampling"]["prompts"]:
        if name in own["prompts"]:
            raise ConfigError(
                f"configuration key `generation.sampling.prompts` defines {name!r}, which `generation.prompts` defines "
                "too; those are sampled as well, so give it another name."
            )


def _check_attention(config: Config) -> None:
    """Inputs need names of their own, other first tokens a text, and policies must round something."""
    own = config["attention"]
    names = [*own["inputs"]["corpora"], *own["inputs"]["question_sets"]]
    for name in names:
        if [*names, *DUMMIES].count(name) > 1:
            raise ConfigError(
                f"configuration key `attention.inputs` names {name!r} twice, or as a dummy text is called; rename it."
            )
    for key, known in (("input", [*names, *DUMMIES]), ("length", list(own["inputs"]["lengths"]))):
        if own["first_token"][key] not in known:
            raise ConfigError(
                f"configuration key `attention.first_token.{key}` is {own['first_token'][key]!r}, which "
                f"`attention.inputs` does not have; it has {listed(known)}."
            )
    for name in own["first_token"]["words"]:
        if name in FIRST_TOKENS:
            raise ConfigError(
                f"configuration key `attention.first_token.words` calls a word {name!r}, as texts are called that "
                "begin otherwise; rename it."
            )
    policies = config["kv_cache"]["policies"]
    for name in own["rounding"]["policies"]:
        if not policies.get(name):
            rounding = sorted(policy for policy, entry in policies.items() if entry)
            raise ConfigError(
                f"configuration key `attention.rounding.policies` names {name!r}, which is no policy of "
                f"`kv_cache.policies` that rounds; those are {listed(rounding)}."
            )
        if policies[name].get("feature") in LOOKING:
            raise ConfigError(
                f"configuration key `attention.rounding.policies` names {name!r}, which looks at attention or "
                "gradients itself to choose bits; name policies that don't."
            )
    if own["rounding"]["context_tokens"] >= own["rounding"]["window_tokens"]:
        raise ConfigError(
            f"configuration key `attention.rounding.context_tokens` is {own['rounding']['context_tokens']}, which "
            f"leaves nothing to be captured of a window of {own['rounding']['window_tokens']} tokens; set it lower."
        )


def _check_eviction(config: Config) -> None:
    """A window must have room for more than its sinks."""
    own = config["attention"]["eviction"]
    if max(own["sink_tokens"]) >= own["window_tokens"]:
        raise ConfigError(
            f"configuration key `attention.eviction.sink_tokens` has {max(own['sink_tokens'])}, which leaves no room "
            f"for the latest tokens in a window of {own['window_tokens']}; set it lower."
        )


def _widths(config: Config, folder: Path) -> Iterator[tuple[str, int]]:
    """Widths of linear layers' inputs that are known before anything is fetched: the model's name and the width."""
    for name in config["study"]["models"]:
        entry = config["models"][name]
        fields: Mapping[str, Any] = entry.get("config", {})
        if entry["source"] == "local" and (stated := folder / entry["path"] / "config.json").exists():
            try:
                fields = config_file(stated)
            except InferometerError as error:
                raise ConfigError(f"configuration key `models.{name}.path`: {error}") from error
        for key in ("hidden_size", "intermediate_size", "n_embd", "ffn_dim", "n_inner"):
            if isinstance(fields.get(key), int):
                yield name, fields[key]


def _check_group_sizes(config: Config, folder: Path) -> None:
    for model, width in _widths(config, folder):
        for scheme in config["study"]["schemes"]:
            for part in ("weights", "activations"):
                entry = config["schemes"][scheme].get(part, {})
                if (size := entry.get("group_size")) is not None and width % size:
                    raise ConfigError(
                        f"configuration key `schemes.{scheme}.{part}.group_size` is {size}, which does not divide the "
                        f"width {width} of {model}; choose a divisor."
                    )
                if (block := BLOCKS.get(entry.get("format"))) is not None and width % block:
                    raise ConfigError(
                        f"configuration key `schemes.{scheme}.{part}.format` is {entry['format']}, whose blocks of "
                        f"{block} do not divide the width {width} of {model}; choose another."
                    )


def _missing(path: Path, *, may_be_folder: bool) -> str | None:
    """Why nothing can be read from a path, as the end of a sentence; a device or a pipe would be read for ever."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode) and may_be_folder:
            next(path.iterdir(), None)
    except FileNotFoundError:
        return "does not exist"
    except (OSError, ValueError) as error:
        return f"can't be read ({reason_of(error)})"
    if stat.S_ISREG(mode) or (stat.S_ISDIR(mode) and may_be_folder):
        return None
    return "is neither a file nor a folder" if may_be_folder else "is not a file"


def _check_braces(key: str, path: str) -> None:
    if set("{}") & set(path):
        raise ConfigError(
            f"configuration key `{key}` has a brace, which would pass for a wildcard; rename the file or folder."
        )


def _check_local_files(config: Config, folder: Path) -> None:
    for section in ("models", "corpora", "question_sets", "image_sets"):
        for name, entry in config[section].items():
            for key in ("path", "train", "test"):
                if entry["source"] != "local" or key not in entry:
                    continue
                _check_braces(f"{section}.{name}.{key}", entry[key])
                if reason := _missing(folder / entry[key], may_be_folder=section == "models"):
                    raise ConfigError(
                        f"configuration key `{section}.{name}.{key}` names {shortened(entry[key], LONGEST_VALUE)}, "
                        f"which {reason}."
                    )


def _check_claims(config: Config, root: Path, folder: Path) -> None:
    """Files of claims must exist and be such, and no claim may have the id of another, the shipped ones included."""
    for name in config["claims"]:
        _check_braces("claims", name)
        if reason := _missing(folder / name, may_be_folder=False):
            shown = shortened(name, LONGEST_VALUE)
            raise ConfigError(f"configuration key `claims` names {shown}, which {reason}; make it or take it out.")
    try:
        read_claims([root / LEDGER_FILE, *(folder / name for name in config["claims"])])
    except InferometerError as error:
        raise ConfigError(f"configuration key `claims`: {error}") from error


def _laid_over(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with what the overlay says: mappings are merged at every depth, and all else is replaced."""
    merged = {
        key: _laid_over(base[key], value) if isinstance(base.get(key), dict) and isinstance(value, dict) else value
        for key, value in overlay.items()
    }
    return {**base, **merged}


def read_study(root: Path, overlay: Path | None) -> Config:
    """The default configuration with an overlay's keys, as Snakemake lays them over it, not checked yet.

    Raises InferometerError naming a file that can't be read.
    """
    config = read_yaml(root / DEFAULT_FILE, "the configuration")
    if overlay is None:
        return cast(Config, config)
    own = read_yaml(overlay, "the configuration")
    if not isinstance(own, dict):
        raise InferometerError(f"the configuration {overlay} is no mapping of keys to values.")
    return _laid_over(config, own)


def check(config: Config, root: Path) -> None:
    """Raise ConfigError with one sentence that names the key, unless the configuration is that of a study.

    `root` holds the project; no file that the configuration names is looked for.
    """
    if reason := too_much(config, parts_of_value):
        raise ConfigError(f"the configuration can't be read: {reason}; shorten it.")
    _check_plain(config)
    error = best_match(StrictValidator(schema(root)).iter_errors(config))
    if error is not None:
        raise ConfigError(_sentence(error))
    _check_names(config)
    _check_catalogue(config)
    _check_schemes(config)
    _check_profiled(config)
    _check_caches(config)
    _check_prompts(config)
    _check_attention(config)
    _check_eviction(config)


def validate(config: Config, root: Path, folder: Path) -> None:
    """Raise ConfigError with one sentence that names the key, unless the study can be run.

    `root` holds the project, `folder` is where relative paths of local models, corpora, question sets and claims start.
    """
    check(config, root)
    _check_local_files(config, folder)
    _check_group_sizes(config, folder)
    _check_claims(config, root, folder)
