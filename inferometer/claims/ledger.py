"""A ledger of claims: what a file of them must be, and the rule that decides about each; no pandas, no SQL."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

import yaml
from jsonschema import ValidationError
from jsonschema.exceptions import best_match

from inferometer.bounded_yaml import read_yaml
from inferometer.errors import InferometerError
from inferometer.strict_schema import LONGEST_LIST, StrictValidator, brief, dotted, listed, shortened

SCHEMA_FILE = Path(__file__).parent / "schema.yaml"
RELATIONS = ("equals", "at_least", "at_most", "more_than", "less_than", "between")
MODEL = "$model"  # parameter of a query that is asked for each model

Verdict = Literal["supported", "contradicted", "inconclusive"]


@dataclass(frozen=True)
class Rule:
    """The region that the measured value must lie in; `words` says so to readers."""

    low: float
    high: float
    open: bool
    words: str

    def holds(self, value: float) -> bool:
        """Whether one value lies in the region."""
        return self.low < value < self.high if self.open else self.low <= value <= self.high

    def verdict(self, measured: float, low: float | None, high: float | None) -> tuple[Verdict, str]:
        """What a measured value with its interval says, and why.

        The interval decides: it must lie in the region as a whole, or outside of it as a whole. A value without one
        decides alone.
        """
        if low is None or high is None:
            inside = self.holds(measured)
            where = "meets" if inside else "misses"
            return (
                "supported" if inside else "contradicted"
            ), f"There is no interval: the value alone {where} the rule."
        if self.holds(low) and self.holds(high):
            return "supported", "The whole interval meets the rule."
        beyond = high <= self.low or low >= self.high if self.open else high < self.low or low > self.high
        if beyond:
            return "contradicted", "The whole interval misses the rule."
        return "inconclusive", "The interval reaches across a bound of the rule."


@dataclass(frozen=True)
class Claim:
    """One claim of a study, with what decides about it.

    `kind` is `figure` (the printed value itself, on the device and size that it is of), `relation` (what it is said to
    show, on every measured model) or `theory` (what follows from a configuration alone). `reported` holds one number,
    both ends of a range, or none. `parameters` and `device` say where it applies; None: everywhere.
    """

    id: str
    study: str
    source: str
    chapter: str
    statement: str
    kind: Literal["figure", "relation", "theory"]
    reported: tuple[float, ...]
    unit: str
    measures: str
    query: str
    rule: Rule
    device: str | None
    parameters: tuple[float, float] | None

    @property
    def asks_each_model(self) -> bool:
        """Whether the query is asked once for each measured model."""
        return MODEL in self.query


@cache
def _schema() -> Mapping[str, Any]:
    return cast(Mapping[str, Any], yaml.safe_load(SCHEMA_FILE.read_text(encoding="utf-8")))


def _sentence(error: ValidationError, entries: Any, file: Path) -> str:
    """What is wrong with a file of claims, naming the claim if it is one's."""
    path = list(error.absolute_path)
    if not path or not isinstance(path[0], int):
        return f"the claims in {file} are not a list of entries; begin each with `- id: …`."
    entry = entries[path[0]]
    named = isinstance(entry, dict) and isinstance(entry.get("id"), str) and entry["id"]
    claim = f"claim {entry['id']!r}" if named else f"claim number {path[0] + 1}"
    key = dotted(path[1:])
    value: Any = error.instance
    expected: Any = error.validator_value
    prefix = f"{claim} in {file}" + (f": `{key}`" if key else "")
    known = cast(Mapping[str, Any], error.schema).get("properties", {})
    match error.validator:
        case "additionalProperties":
            unknown = listed(f"`{name}`" for name in value if name not in known)
            return f"{prefix} has the unknown key {unknown}; known here: {', '.join(known)}."
        case "required":
            missing = ", ".join(f"`{name}`" for name in expected if name not in value)
            return f"{prefix} lacks {missing}."
        case "enum":
            return f"{prefix} is {brief(value)}; it must be one of {', '.join(expected)}."
        case "type":
            kinds = expected if isinstance(expected, str) else " or ".join(expected)
            return f"{prefix} is {brief(value)}; it must be of type {kinds}."
        case "pattern":
            return f"{prefix} is {brief(value)}; it may have lower-case letters, digits and hyphens between them."
        case "minLength" | "minProperties":
            return f"{prefix} is empty; fill it in or leave it out."
        case _:
            return f"{prefix}: {shortened(error.message, LONGEST_LIST)}."


def _number(value: float) -> str:
    return f"{value:,.10g}".replace("-", "−")


def _rule(entry: Mapping[str, Any], where: str, unit: str) -> Rule:
    """The region that a rule's keys describe."""
    relations = [key for key in RELATIONS if key in entry]
    if len(relations) != 1:
        found = ", ".join(f"`{key}`" for key in relations) or "none"
        raise InferometerError(f"{where}: `rule` needs exactly one of {', '.join(RELATIONS)}; it has {found}.")
    relation = relations[0]
    tolerances = [key for key in ("within", "within_percent") if key in entry]
    if len(tolerances) != (relation == "equals"):
        raise InferometerError(
            f"{where}: `rule` needs exactly one of within and within_percent beside equals, and neither beside others."
        )
    value = entry[relation]
    unit = f" {unit}" if unit else ""  # tolerances go without: "57 % within 10 %" could be a tenth
    match relation:
        case "equals":
            size = entry.get("within", abs(value) * entry.get("within_percent", 0) / 100)
            tolerance = (
                f"{entry['within_percent']:g} % of it" if "within_percent" in entry else _number(entry["within"])
            )
            return Rule(value - size, value + size, False, f"equal to {_number(value)}{unit} within {tolerance}")
        case "between":
            low, high = value
            if low > high:
                raise InferometerError(f"{where}: `rule.between` is {value}; write the lower end first.")
            return Rule(low, high, False, f"between {_number(low)} and {_number(high)}{unit}")
        case "at_least" | "more_than":
            words = f"{relation.replace('_', ' ')} {_number(value)}{unit}"
            return Rule(value, math.inf, relation == "more_than", words)
        case _:
            words = f"{relation.replace('_', ' ')} {_number(value)}{unit}"
            return Rule(-math.inf, value, relation == "less_than", words)


def _claim(entry: Mapping[str, Any], file: Path) -> Claim:
    where = f"claim {entry['id']!r} in {file}"
    reported, applies, unit = entry.get("reported", []), entry.get("applies", {}), entry.get("unit", "")
    parameters = applies.get("parameters")
    if parameters and MODEL not in entry["query"]:
        raise InferometerError(
            f"{where}: `applies.parameters` is about a model, so the query must be asked of one: write "
            f"`WHERE model = {MODEL}`."
        )
    return Claim(
        **{key: entry[key] for key in ("id", "study", "source", "chapter", "statement", "kind", "measures")},
        reported=tuple(map(float, reported)) if isinstance(reported, list) else (float(reported),),
        unit=unit,
        query=entry["query"].strip(),
        rule=_rule(entry["rule"], where, unit),
        device=applies.get("device"),
        parameters=None if parameters is None else (float(parameters[0]), float(parameters[1])),
    )


def read_claims(files: Iterable[Path]) -> list[Claim]:
    """The claims of all files together, in their order.

    Raises InferometerError with one sentence that names the file and the claim when a file is missing, is no YAML or
    does not fit the schema, and when two claims have one id.
    """
    claims: dict[str, Claim] = {}
    for file in files:
        entries = read_yaml(file, "the claims in")
        found = best_match(StrictValidator(_schema()).iter_errors(entries))
        if found is not None:
            raise InferometerError(_sentence(found, entries, file))
        for entry in entries:
            if entry["id"] in claims:
                raise InferometerError(f"claim {entry['id']!r} in {file} has the id of another claim; rename it.")
            claims[entry["id"]] = _claim(entry, file)
    return list(claims.values())
