"""Accuracies with their intervals, from the raw scores of the endings alone."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from inferometer.errors import InferometerError
from inferometer.intervals import bootstrap_mean

Choices = Mapping[tuple[str, str], pd.DataFrame]

IDENTITY = ["question_set", "item", "ending", "is_correct", "tokens", "characters"]


def _correct(endings: pd.DataFrame) -> dict[str, NDArray[np.float64]]:
    """For each item, 1 where its best ending is the right one and 0 elsewhere, by what "best" means.

    Best is the ending with the largest log-likelihood, for `acc_norm` per character; the first of equal ones.
    """
    scores = {"acc": endings["log_likelihood"], "acc_norm": endings["log_likelihood"] / endings["characters"]}
    best = {metric: score.groupby(endings["item"]).idxmax() for metric, score in scores.items()}
    return {metric: endings["is_correct"][rows].to_numpy(dtype=np.float64) for metric, rows in best.items()}


def correct_items(choices: pd.DataFrame) -> dict[str, NDArray[np.float64]]:
    """`_correct` over the items of all question sets of a CHOICES table, set by set; empty for a skipped scheme."""
    ordered = choices.sort_values(["question_set", "item", "ending"], ignore_index=True)
    sets = [_correct(endings) for _, endings in ordered.groupby("question_set")]
    empty = np.empty(0)
    return {metric: np.concatenate([empty, *(own[metric] for own in sets)]) for metric in ("acc", "acc_norm")}


def summarize_accuracy(choices: Choices, reference: str) -> pd.DataFrame:
    """A row of the ACCURACY table for each question set of each (model, scheme) of `choices`, which holds CHOICES.

    Every scheme is paired with the `reference` scheme of the same model, item by item.
    Raises InferometerError when the two were not scored on the same items.
    """
    rows = []
    for (model, scheme), table in choices.items():
        if table.empty:  # skipped
            continue
        table, base = (
            frame.sort_values(["question_set", "item", "ending"], ignore_index=True)
            for frame in (table, choices[model, reference])
        )
        if not table[IDENTITY].equals(base[IDENTITY]):
            raise InferometerError(
                f"{scheme} and {reference} of {model} were not scored on the same questions, so one of their tables "
                "choices.parquet is of another study or model; delete it and run again."
            )
        for name, endings in table.groupby("question_set"):
            correct, correct_in_reference = _correct(endings), _correct(base.loc[endings.index])
            row = {
                "model": model,
                "scheme": scheme,
                "question_set": name,
                "items": endings["item"].nunique(),
                "chance": (1 / endings.groupby("item").size()).mean(),
                "device": endings["device"].iloc[0],
                "dtype": endings["dtype"].iloc[0],
            }
            for metric, values in correct.items():
                samples = {metric: values, f"{metric}_change": values - correct_in_reference[metric]}
                for column, sample in samples.items():
                    interval = bootstrap_mean(sample)
                    row |= {column: interval.estimate, f"{column}_low": interval.low, f"{column}_high": interval.high}
            rows.append(row)
    return pd.DataFrame(rows)
