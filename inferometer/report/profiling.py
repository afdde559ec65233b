"""What the page shows of the profiling chapter: its tables and figures, and what these say in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from inferometer.profiling.fits import Knee, knee
from inferometer.profiling.tables import (
    BASELINE,
    CACHE_CHECKS,
    CACHE_SPEED,
    KERNEL_SPEED,
    KNEES,
    PROFILE,
    QUANTITIES,
    SLOPES,
)
from inferometer.report.formats import interval, number, percent
from inferometer.report.page import Figure
from inferometer.report.reading import read_table
from inferometer.report.sentences import ALIKE
from inferometer.tables import records
from inferometer.units import MIB

EXACT = 1e-9
STRAIGHT = 0.99  # R² of a line that may be explained
BOUNDS = {"overhead": "overhead", "memory": "memory bandwidth", "compute": "arithmetic"}


@dataclass(frozen=True)
class Model:
    """One model's part of the section; what was not measured of it is empty."""

    name: str
    speed_said: list[str]
    latency_said: list[str]
    latency_figure: Figure
    cells: pd.DataFrame
    memory_said: list[str]
    memory_figure: Figure
    slopes: pd.DataFrame
    cache_said: list[str]
    cache_figure: Figure | None
    cache: pd.DataFrame
    kernels_said: list[str]
    kernels_figure: Figure | None
    kernels: pd.DataFrame
    baseline_said: list[str]
    baseline_figure: Figure | None
    baseline: list[dict[str, Any]]
    cache_gains: list[str]
    answer: str | None

    @property
    def gains_said(self) -> list[str]:
        """What the cache gains, as sentences of their own."""
        return [f"{self.name}: {gain}." for gain in self.cache_gains]


@dataclass(frozen=True)
class Profiling:
    """All that the chapter's section shows."""

    models: list[Model]
    study_said: str
    repetitions: int
    roofline_figure: Figure
    contaminated: str | None


def _subject(row: Any, *, several: bool) -> str:
    layers = f" with {row.layers} layers" if several else ""
    return f"{row.scheme} in {row.dtype}{layers}"


def _knee_said(found: Any) -> str:
    """Where a latency begins to rise, by a row of KNEES or a Knee with its lengths."""
    if not found.has_flat:
        return f"rises from the shortest prompt on, by {number(found.ms_per_token, 2)} ms a token"
    if not found.rises:
        return f"is flat at {number(found.flat_ms)} ms over all lengths"
    return (
        f"is flat at {number(found.flat_ms)} ms up to {number(found.knee_tokens, 2)} tokens "
        f"{interval(found.knee_tokens_low, found.knee_tokens_high, 2)} and rises by {number(found.ms_per_token, 2)} "
        "ms a token beyond"
    )


def said_of_speed(cells: pd.DataFrame, reference: str) -> list[str]:
    """How fast each scheme and dtype is at the longest prompt, over the `reference` in its widest dtype.

    Takes one model's rows of PROFILE; models cut to fewer layers have nothing to say here.
    """
    measured = cells[cells["latency_ms"].notna() & (cells["batch"] == 1)]
    longest = measured[measured["prompt_tokens"] == measured["prompt_tokens"].max()]
    said = []
    for phase, what in (("prefill", "reads a prompt of {:,} tokens"), ("decode", "writes after {:,} tokens")):
        rows: list[Any] = list(longest[longest["phase"] == phase].itertuples())
        bases = [row for row in rows if row.scheme == reference]
        if len(rows) == 1 or not bases or len({row.layers for row in rows}) > 1:
            continue
        base = max(bases, key=lambda row: row.dtype == "float32")
        each = [
            f"{_subject(row, several=False)} is {number(base.latency_ms / row.latency_ms, 3)} times as fast"
            for row in rows
            if row != base
        ]
        said.append(
            f"{base.model} {what.format(base.prompt_tokens)} at {number(base.tokens_per_s)} tokens a second as "
            f"{_subject(base, several=False)} on this machine; {', '.join(each)}."
        )
    return said


def said_of_latency(cells: pd.DataFrame, knees: pd.DataFrame) -> list[str]:
    """Where prefill stops being flat and what holds it up, what a decoded token takes, and how far that is from the
    roofline. Takes one model's rows of PROFILE and KNEES."""
    said = []
    several = len(cells[~cells["extrapolated"]]["layers"].unique()) > 1
    row: Any
    for row in knees[knees["phase"] == "prefill"].itertuples():
        below, above = BOUNDS.get(str(row.bound_below)), BOUNDS.get(str(row.bound_above))
        longest = "" if below == above else f"{above} "
        held = f"; {below} holds up the shortest prompt and {longest}the longest" if below and above else ""
        said.append(
            f"{_subject(row, several=several)}: prefill {_knee_said(row)}{held}. Two straight parts fit the medians "
            f"within {percent(row.error)}."
        )
    measured = cells[cells["latency_ms"].notna() & ~cells["extrapolated"]]
    for phase, name in (("prefill", "the longest prefill"), ("decode", "a decoded token")):
        rows = measured[(measured["phase"] == phase) & measured["ratio"].notna()]
        rows = rows[rows["prompt_tokens"] == rows["prompt_tokens"].max()]
        each = [f"{number(row.ratio, 2)} for {_subject(row, several=several)}" for row in rows.itertuples()]
        if each:
            said.append(f"Times over what the roofline allows, for {name}: {', '.join(each)}.")
    guessed = cells[cells["extrapolated"] & (cells["phase"] != "end_to_end")]
    longest = guessed[guessed["prompt_tokens"] == guessed["prompt_tokens"].max()]
    for row in longest.itertuples():
        what = f"reading {row.prompt_tokens:,} tokens" if row.phase == "prefill" else "writing one more after them"
        said.append(
            f"Extrapolated to {row.layers} layers, {what} takes {number(row.latency_ms)} ms "
            f"{interval(row.latency_ms_low, row.latency_ms_high)}."
        )
    refused = cells[cells["reason"].notna()].drop_duplicates(["scheme", "dtype", "reason"])
    said += [
        f"{_subject(row, several=several)} could not be timed everywhere: {row.reason}." for row in refused.itertuples()
    ]
    return said


def said_of_study(reported: Mapping[str, Any]) -> str:
    """What the same fit makes of the latencies that the source study printed, of which only means are known."""
    means = {int(tokens): mean for tokens, (mean, _) in reported["milliseconds"].items()}
    found = knee(pd.DataFrame({"tokens": list(means), "ms": list(means.values())}))
    assert found is not None
    return (
        f"The source study (section {reported['section']}) printed such latencies of {reported['model']} on "
        f"{reported['device']}: {_study_knee(found)}, by the same fit of its means, within {percent(found.error)}. It "
        "explains the flat part by fixed overheads and the rise by arithmetic that saturates the GPU; it did not "
        "measure which, as is done here."
    )


def _study_knee(found: Knee) -> str:
    return (
        f"flat at {number(found.flat_ms)} ms up to {number(found.knee_tokens, 2)} tokens, then "
        f"{number(found.ms_per_token, 2)} ms more for each token"
    )


def said_of_memory(slopes: pd.DataFrame, reported: Mapping[str, Any]) -> list[str]:
    """What a written token adds to memory, against the configuration and the source study. Takes a model's SLOPES."""
    said = []
    row: Any
    for layers, rows in slopes[~slopes["extrapolated"]].groupby("layers"):
        by: Any = rows.set_index("quantity")
        tensors, process, peak = (by.loc[name] for name in QUANTITIES)
        exact = "exactly what" if abs(tensors["ratio"] - 1) < EXACT else f"{number(tensors['ratio'], 4)} times what"
        straight = peak["r_squared"] > STRAIGHT
        said.append(
            f"With {layers} layer{'s' if layers != 1 else ''} each written token adds "
            f"{tensors['bytes_per_token']:,.0f} bytes to the tensors of the cache, {exact} the configuration predicts. "
            f"The trimmed process grows by {number(process['ratio'], 3)} times that (R² {process['r_squared']:.4f}), "
            f"its peak by {number(peak['ratio'], 3)} times (R² {peak['r_squared']:.4f}): "
            + (
                "while a layer's keys and values are joined, the old and the new ones are there together."
                if straight
                else "no straight line, since so small a cache is lost in what the allocator happens to hold."
            )
        )
    for row in slopes[slopes["extrapolated"] & (slopes["quantity"] == "cache_bytes")].itertuples():
        theirs = reported["bytes_per_token"]
        verdict = "the same" if abs(row.bytes_per_token / theirs - 1) < EXACT else "not the same"
        said.append(
            f"Extrapolated to {row.layers} layers, with a standard error of {number(row.standard_error, 2)}, a token "
            f"takes {row.bytes_per_token:,.0f} bytes = {row.bytes_per_token / MIB:.4f} MiB. The source study (section "
            f"{reported['section']}) printed {reported['printed']} a token for {reported['model']}: {verdict}."
        )
    return said


def said_of_cache(speed: pd.DataFrame, checks: pd.DataFrame) -> list[str]:
    """What the cache gains, and whether it changes what is written. Takes a model's CACHE_SPEED and CACHE_CHECKS."""
    gained = speed[speed["cache"] & speed["speedup"].notna()].sort_values("prompt_tokens")
    rows: list[Any] = list(gained.itertuples())
    each = [
        f"{row.prompt_tokens:,}: {number(row.speedup, 3)} {interval(row.speedup_low, row.speedup_high)}" for row in rows
    ]
    written = int(speed["new_tokens"].iloc[0])
    relative = (checks["difference"] / checks["largest_logit"]).max()
    fine = (checks["difference"] <= checks["tolerance"] * checks["largest_logit"]).all()
    same = "the same tokens" if checks["same_tokens"].all() else "NOT the same tokens everywhere"
    verdict = "agree" if fine else "do NOT agree"
    return [
        f"Speed-up by the cache for {written} written tokens, by tokens of the prompt: {'; '.join(each)}.",
        f"Logits with and without the cache {verdict}: they differ by at most {number(relative, 2)} of the largest "
        f"logit, and {same} are written.",
    ]


def _on_roofline(row: Any) -> str:
    times = f", in {number(row.ratio, 2)} times the time that the roofline allows" if pd.notna(row.ratio) else ""
    return f"{number(row.tokens_per_s)} tokens a second{times}"


def answer(name: str, cells: pd.DataFrame, reference: str) -> str | None:
    """How fast a model reads and writes in float, against the roofline, and what is fastest.

    Takes one model's rows of PROFILE; None where it was not timed.
    """
    measured = cells[cells["latency_ms"].notna() & (cells["batch"] == 1) & ~cells["extrapolated"]]
    measured = measured[measured["layers"] == measured["layers"].max()]
    measured = measured[measured["prompt_tokens"] == measured["prompt_tokens"].max()]
    parts = []
    for phase, what in (("prefill", "reads {:,} tokens at"), ("decode", "writes after them at")):
        rows: list[Any] = list(measured[measured["phase"] == phase].itertuples())
        bases = [row for row in rows if row.scheme == reference]
        if not bases:
            continue
        base = max(bases, key=lambda row: row.dtype == "float32")
        fastest = min(rows, key=lambda row: row.latency_ms)
        times = number(base.latency_ms / fastest.latency_ms)
        best = (
            "nothing is faster" if fastest == base else f"{_subject(fastest, several=False)} is {times} times as fast"
        )
        parts.append(f"{what.format(base.prompt_tokens)} {_on_roofline(base)} ({best})")
    if not parts:
        return None
    return f"On {measured['device'].iloc[0].upper()}, as {_subject(base, several=False)}, {name} {' and '.join(parts)}."


def gains_of_cache(speed: pd.DataFrame, slopes: pd.DataFrame) -> list[str]:
    """What the cache gains and costs, as clauses. Takes a model's CACHE_SPEED and SLOPES."""
    gained = speed[speed["cache"] & speed["speedup"].notna()].sort_values("prompt_tokens")
    tensors = slopes[(slopes["quantity"] == "cache_bytes") & ~slopes["extrapolated"]]
    if gained.empty or tensors.empty:
        return []
    most, bytes_per_token = gained.iloc[-1], tensors.iloc[0]
    return [
        f"a KV cache makes it write {most['new_tokens']} tokens after {most['prompt_tokens']:,} "
        f"{number(most['speedup'])} times as fast {interval(most['speedup_low'], most['speedup_high'])}, for "
        f"{bytes_per_token['bytes_per_token']:,.0f} bytes a token"
    ]


def said_of_kernels(speed: pd.DataFrame, reported: Mapping[str, Any]) -> list[str]:
    """What the fused kernel gains, against what the survey says. Takes a model's rows of KERNEL_SPEED."""
    said = []
    for dtype, rows in speed[(speed["kernel"] == "flash") & speed["speedup"].notna()].groupby("dtype"):
        row = rows.sort_values("tokens").iloc[-1]
        said.append(
            f"In {dtype} and at {row['tokens']:,} tokens PyTorch's fused kernel is {number(row['speedup'])} times as "
            f"fast as standard attention and needs {percent(row['extra_ratio'])} of its extra memory."
        )
        beyond = rows[rows["tokens"] > reported["tokens"]]
        if len(beyond):
            times = f"{number(beyond['speedup'].min(), 2)} to {number(beyond['speedup'].max(), 2)} times as fast"
            faster = beyond["speedup"].min() > 1
            within = beyond["speedup"].max() <= ALIKE * reported["speedup"] and faster
            verdict = "bears that out" if within else "goes beyond that" if faster else "contradicts that"
            said.append(
                f"{reported['study']} says: up to {reported['speedup']} times as fast beyond {reported['tokens']:,} "
                f"tokens, with {percent(1 - reported['memory'], 0)} less memory. Here, in {dtype}, it is {times} with "
                f"{percent(1 - beyond['extra_ratio'].max(), 0)} less memory or better: our evidence {verdict}."
            )
    refused = speed[speed["reason"].notna()].drop_duplicates(["kernel", "reason"])
    said += [f"{row.kernel} was not timed everywhere: {row.reason}." for row in refused.itertuples()]
    return said


def said_of_baseline(baseline: pd.DataFrame, reported: Mapping[str, Any]) -> list[str]:
    """How fast the model answers alone and in batches, beside the project report. Takes a model's BASELINE."""
    rows = baseline[baseline["tokens_per_s"].notna()]
    said = []
    for batch, own in rows.groupby("batch"):
        said.append(
            f"In batches of {batch} it writes {number(own['tokens_per_s'].median())} tokens a second "
            f"({number(own['tokens_per_s'].min())} to {number(own['tokens_per_s'].max())}), in "
            f"{own['dtype'].iloc[0]} on {own['device'].iloc[0]}."
        )
    least, most = (reported["tokens"] / seconds for seconds in reversed(reported["seconds"]))
    said.append(
        f"{reported['study']} took {reported['seconds'][0]} to {reported['seconds'][1]} s for {reported['tokens']} "
        f"tokens with {reported['model']} on processors, that is {number(least)} to {number(most)} tokens a second."
    )
    joules = rows[rows["joules"].notna()]
    if len(joules):
        each = joules["joules"] / (joules["batch"] * joules["new_tokens"])
        said.append(f"A written token took {number(each.median())} J, whoever else used the device counted in.")
    said += [f"There is no figure for energy: {reason}." for reason in baseline["no_energy"].dropna().unique()]
    said += [f"Not everything could be run: {reason}." for reason in baseline["reason"].dropna().unique()]
    return said


def _contaminated(tables: Sequence[pd.DataFrame]) -> str | None:
    taken = sum(int(table["contaminated"].sum()) for table in tables)
    every = sum(int(table["samples"].sum()) for table in tables)
    if not taken:
        return None
    return (
        f"Other work ran on the machine during {taken} of {every} samples, even when they were repeated: of the cells "
        "concerned, read ratios and not milliseconds."
    )


FIGURES = {  # captions, and what one is told who can't see them
    "latency": (
        "Median latency with quartiles against the prompt, both axes logarithmic; dashed, in the same colour, what the "
        "machine's measured peaks allow. A diamond marks where the flat part ends. Dotted lines are extrapolated, with "
        "95 % intervals.",
        "Line charts of {}'s latency in prefill, decode and end to end, by scheme and dtype.",
    ),
    "memory": (
        "Memory that is added as tokens are written, above the start of each fitted line. Dashed grey: what the "
        "configuration says that the cache takes.",
        "Scatter charts with fitted lines of {}'s memory against written tokens.",
    ),
    "cache": (
        "Left: median latency with quartiles, both axes logarithmic. Right: latency without the cache over that with "
        "it.",
        "Line charts of {}'s latency with and without a KV cache, and of the speed-up.",
    ),
    "kernels": (
        "One layer's causal attention over a whole prompt: time, and the most memory above what was there before.",
        "Line charts of time and extra memory of attention kernels with {}'s heads, against tokens.",
    ),
    "baseline": (
        "Tokens written in a second, all copies of the batch together, and time to the first token.",
        "Bar charts of how fast {} answers each prompt, alone and in batches.",
    ),
}


def _figure(folder: Path, name: str, model: str, said: Sequence[str]) -> Figure:
    caption, alternative = FIGURES[name]
    return Figure(folder / f"{name}.svg", caption, alternative.format(model)).saying(said)


def _model(
    name: str, reference: str, results: Path, tables: Mapping[str, pd.DataFrame], reported: Mapping[str, Any]
) -> Model:
    folder = results / name / "profiling"
    own = {key: table[table["model"] == name].reset_index(drop=True) for key, table in tables.items()}
    whole = len(own["cache"]) > 0
    baseline = read_table(BASELINE, folder / "baseline.parquet") if whole else None
    checks = read_table(CACHE_CHECKS, folder / "cache_checks.parquet") if whole else None
    said = {
        "latency": said_of_latency(own["profile"], own["knees"]),
        "memory": said_of_memory(own["slopes"], reported["memory"]),
        "cache": said_of_cache(own["cache"], checks) if checks is not None else [],
        "kernels": said_of_kernels(own["kernels"], reported["flash"]) if whole else [],
        "baseline": said_of_baseline(baseline, reported["baseline"]) if baseline is not None else [],
    }
    figures = {key: _figure(folder, key, name, sentences) for key, sentences in said.items()}
    return Model(
        name=name,
        speed_said=said_of_speed(own["profile"], reference),
        latency_said=said["latency"],
        latency_figure=figures["latency"],
        cells=own["profile"],
        memory_said=said["memory"],
        memory_figure=figures["memory"],
        slopes=own["slopes"].assign(quantity=own["slopes"]["quantity"].map(QUANTITIES)),
        cache_said=said["cache"],
        cache_figure=figures["cache"] if whole else None,
        cache=own["cache"],
        kernels_said=said["kernels"],
        kernels_figure=figures["kernels"] if whole else None,
        kernels=own["kernels"],
        baseline_said=said["baseline"],
        baseline_figure=figures["baseline"] if whole else None,
        baseline=records(baseline) if baseline is not None else [],
        cache_gains=gains_of_cache(own["cache"], own["slopes"]),
        answer=answer(name, own["profile"], reference) if whole else None,
    )


def profiling(config: Mapping[str, Any], results: Path, reported: Mapping[str, Any]) -> Profiling:
    """What the chapter's section shows, from the folder of results and the figures that other studies printed."""
    named = {"profile": PROFILE, "knees": KNEES, "slopes": SLOPES, "cache": CACHE_SPEED, "kernels": KERNEL_SPEED}
    files = {"profile": "profiling", "slopes": "memory"}
    tables = {
        key: read_table(table, results / "summary" / f"{files.get(key, key)}.parquet") for key, table in named.items()
    }
    return Profiling(
        models=[
            _model(name, config["evaluation"]["reference"], results, tables, reported)
            for name in config["study"]["models"]
        ],
        study_said=said_of_study(reported["latency"]),
        repetitions=config["profiling"]["repetitions"],
        roofline_figure=Figure(
            results / "summary/roofline.svg",
            "Every measured prefill and decode under the roofs of this machine: on the slope memory bandwidth is the "
            "limit, under a ceiling arithmetic. The further below, the more overhead.",
            "Roofline chart of measured cells with the machine's bandwidth and peaks by dtype.",
        ),
        contaminated=_contaminated([tables["profile"], tables["cache"], tables["kernels"]]),
    )
