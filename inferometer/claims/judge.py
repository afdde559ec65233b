"""Verdicts on claims: each one's query is asked, and its rule decides. Nothing but the tables has a say."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import pandas as pd

from inferometer.claims.evidence import Evidence, QueryError, tables_of
from inferometer.claims.ledger import Claim
from inferometer.claims.tables import CLAIMS

NOT_TESTABLE = "not testable here"
FAILED = "failed"
DEVICE = "SELECT count(*) FILTER (device = 'cuda') AS measured FROM machine HAVING count(*) > 0"
PARAMETERS = "SELECT sum(parameters) AS measured FROM capacity.parameters WHERE model = $model"


@dataclass(frozen=True)
class Finding:
    """What became of a claim, for one model or none in particular."""

    measured: float | None
    low: float | None
    high: float | None
    verdict: str
    reason: str


@dataclass(frozen=True)
class Where:
    """What a claim is judged on: the model, empty for none in particular, its parameters and the study's device."""

    model: str
    parameters: float | None
    device: str | None


def _nothing(verdict: str, reason: str) -> Finding:
    return Finding(None, None, None, verdict, reason)


def _device(evidence: Evidence) -> str | None:
    """Where the study ran; None where the results don't say."""
    found = evidence.ask(DEVICE).measured
    return None if found is None else "cuda" if found else "cpu"


def _elsewhere(claim: Claim, where: Where) -> str | None:
    """Why a claim does not apply to what was measured here; None where it does."""
    if claim.device is not None and claim.device != where.device:
        here = where.device.upper() if where.device else "an unknown device"
        return f"It is about {claim.device.upper()}, and this study ran on {here}."
    if claim.parameters is not None:
        low, high = claim.parameters
        about = f"It is about models of {_billions(low)} to {_billions(high)} parameters"
        if where.parameters is None:
            return f"{about}; those of {where.model} are unknown."
        if not low <= where.parameters <= high:
            return f"{about}, and {where.model} has {_billions(where.parameters)}."
    return None


def _billions(parameters: float) -> str:
    return f"{parameters / 1e9:.4g}·10⁹"


def _found_nothing(claim: Claim, evidence: Evidence) -> str:
    """Why a query that ran measured nothing."""
    names = tables_of(claim.query)
    missing = [name for name in names if not evidence.is_there(name)]
    if missing:
        return f"The results have no table {' and no table '.join(missing)}."
    return f"This study has no such measurement in {' and '.join(names) or 'its tables'}."


def _finding(claim: Claim, where: Where, evidence: Evidence) -> Finding:
    """What the tables say about a claim."""
    reason = _elsewhere(claim, where)
    if reason is not None:
        return _nothing(NOT_TESTABLE, reason)
    try:
        answer = evidence.ask(claim.query, where.model or None)
        if answer.measured is None:
            return _nothing(NOT_TESTABLE, _found_nothing(claim, evidence))
    except QueryError as error:
        return _nothing(FAILED, f"The query of claim {claim.id!r} has a fault: {error}.")
    verdict, reason = claim.rule.verdict(answer.measured, answer.low, answer.high)
    return Finding(answer.measured, answer.low, answer.high, verdict, reason)


def judge(claims: Iterable[Claim], evidence: Evidence, models: Sequence[str]) -> pd.DataFrame:
    """A CLAIMS table: every claim that asks for a model once for each of `models`, the others once.

    What is theory has no device: nothing ran.
    """
    device = _device(evidence)
    each = [Where(model, evidence.ask(PARAMETERS, model).measured, device) for model in models]
    rows = []
    for place, claim in enumerate(claims):
        for where in each if claim.asks_each_model else [Where("", None, device)]:
            finding = _finding(claim, where, evidence)
            printed = [*claim.reported, None, None]
            rows.append(
                {
                    "claim": claim.id,
                    "model": where.model,
                    "place": place,
                    **{name: getattr(claim, name) for name in ("study", "source", "chapter", "statement", "kind")},
                    "reported": printed[0],
                    "reported_to": printed[1],
                    "unit": claim.unit,
                    "measures": claim.measures,
                    **asdict(finding),
                    "rule": claim.rule.words,
                    "device": None if claim.kind == "theory" else device,
                    "query": claim.query,
                }
            )
    return pd.DataFrame(rows, columns=[column.name for column in CLAIMS.columns])
