"""How much texts written after one prompt differ: distinct n-grams and self-BLEU, by temperature and with intervals."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from inferometer.generation.tables import MEASURES
from inferometer.intervals import Statistic, bootstrap

LONGEST_NGRAM = 4  # as BLEU has it
UNSEEN = 0.1  # in place of no match: smoothing 1 of Chen and Cherry 2014, as in the paper on self-BLEU

Text = Sequence[int]
Ngram = tuple[int, ...]


def ngrams(text: Text, n: int) -> Iterator[Ngram]:
    """All n tokens in a row of a text, in order."""
    return (tuple(text[start : start + n]) for start in range(len(text) - n + 1))


def distinct(texts: Sequence[Text], n: int) -> float:
    """Different n-grams of all texts together over all their n-grams (Li et al. 2016), or 0 where there is none."""
    every = [ngram for text in texts for ngram in ngrams(text, n)]
    return len(set(every)) / max(1, len(every))


def bleu(text: Text, references: Sequence[Text]) -> float:
    """BLEU of a text against references (Papineni et al. 2002): how many of its n-grams up to 4 these have.

    A precision without any match counts 0.1 of one (Chen and Cherry 2014). A text of fewer than 4 tokens is judged by
    the n-grams that it has, so that it agrees wholly with itself; an empty one agrees with an empty one only.
    """
    if not text:
        return float(any(not reference for reference in references))
    logarithms = []
    for n in range(1, min(LONGEST_NGRAM, len(text)) + 1):
        most: Counter[Ngram] = Counter()
        for reference in references:
            most |= Counter(ngrams(reference, n))
        matches = (Counter(ngrams(text, n)) & most).total()
        logarithms.append(math.log(max(matches, UNSEEN) / (len(text) - n + 1)))
    closest = min((abs(len(reference) - len(text)), len(reference)) for reference in references)[1]
    brevity = min(0.0, 1 - closest / len(text))
    return math.exp(brevity + sum(logarithms) / len(logarithms))


def self_bleu(texts: Sequence[Text]) -> float:
    """Mean BLEU of each of two texts or more against the others (Zhu et al. 2018): 1 where all are the same."""
    scores = [bleu(text, [*texts[:place], *texts[place + 1 :]]) for place, text in enumerate(texts)]
    return sum(scores) / len(scores)


def diversity(samples: pd.DataFrame) -> pd.DataFrame:
    """The DIVERSITY table of a SAMPLES table. The one sample at temperature 0 counts as often as there are seeds."""
    seeds, rows = samples["seed"].nunique(), []
    for (prompt, temperature), own in samples.groupby(["prompt", "temperature"]):
        texts = [tuple(map(int, ids.split())) for ids in own["token_ids"]] * (seeds // len(own))
        means = own[["entropy", "sampling_entropy", "nll", "tokens"]].mean()
        rows.append(
            {
                "prompt": prompt,
                "temperature": temperature,
                "samples": len(own),
                "distinct_1": distinct(texts, 1),
                "distinct_2": distinct(texts, 2),
                "self_bleu": self_bleu(texts),
                "unique": len(set(texts)) / len(texts),
                "repeated_4": sum(1 - distinct([text], 4) for text in texts if len(text) >= 4) / len(texts),
                "repeated_8": own["repeated"].mean(),
                **means,
                "ended": own["ended_after"].notna().mean(),
            }
        )
    return pd.DataFrame(rows)


def _as_it_is(means: NDArray[np.float64]) -> NDArray[np.float64]:
    return means


def _own(reading: Statistic) -> Statistic:
    """Of means [..., 2] the first as it is read."""
    return lambda means: reading(means)[..., 0]


def _change(reading: Statistic) -> Statistic:
    """Of means [..., 2] the first less the second as they are read."""
    return lambda means: reading(means)[..., 0] - reading(means)[..., 1]


def summarize_diversity(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The TEMPERATURES table of the DIVERSITY tables, by model.

    Prompts are resampled whole, with all that was written after them, and changes are paired by prompt.
    """
    rows: list[dict[str, Any]] = []
    for model, table in tables.items():
        base, prompts = table["temperature"].min(), table["prompt"].nunique()
        for measure, (column, _) in MEASURES.items():
            reading: Statistic = np.exp if measure == "perplexity" else _as_it_is
            values = table.pivot_table(index="prompt", columns="temperature", values=column)
            for temperature in values:
                pair = values[[temperature, base]].to_numpy(dtype=np.float64)
                level, change = bootstrap(pair, _own(reading)), bootstrap(pair, _change(reading))
                rows.append(
                    {
                        "model": model,
                        "measure": measure,
                        "temperature": temperature,
                        "prompts": prompts,
                        **{"value": level.estimate, "value_low": level.low, "value_high": level.high},
                        **{"change": change.estimate, "change_low": change.low, "change_high": change.high},
                    }
                )
    return pd.DataFrame(rows)
