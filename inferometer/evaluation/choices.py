"""Multiple-choice questions: how likely does a model find each of the endings that a text may have?

Texts are encoded as in lm-evaluation-harness, and an ending has the sum of its tokens' log-likelihoods. Contexts are
longer than endings, so a context is read once for all of them: a row of tokens holds the context and after it every
ending, which sees the context and itself alone. Several questions share a row in the same way. Where a model can't do
this exactly, each ending gets a row of its own.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from inferometer.errors import InferometerError
from inferometer.sources.tables import QUESTIONS
from inferometer.tables import read_table

DELIMITER = " "  # between a context and an ending
ROW_TOKENS = 512  # of one forward pass
TOLERANCE = 1e-3  # nats by which an ending's score may differ between a shared row and one of its own


@dataclass(frozen=True)
class Prompt:
    """A context and endings that follow it, as token ids, and the rows of the questions that the endings stand in."""

    context: list[int]
    endings: list[list[int]]
    owners: list[int]

    @property
    def width(self) -> int:
        """Tokens that a model must read; the last one of an ending predicts nothing."""
        return len(self.context) + sum(len(ending) - 1 for ending in self.endings)


@dataclass(frozen=True)
class Batch:
    """Token ids [rows, width] of one forward pass, and the tokens to be predicted in it.

    A column of `wanted` [4, targets] is a token to be predicted: the row and place of the token before it, its id, and
    the row of the questions that its ending stands in. `segments` [3, width] says where a token of a shared row
    belongs: its position in its own text, the number of its prompt, and that of its ending, 0 within a context.
    """

    tokens: Tensor
    wanted: Tensor
    segments: Tensor | None = None


def read_questions(files: Mapping[str, Path], max_items: int | str) -> pd.DataFrame:
    """QUESTIONS of several sets, by their names, with a column `question_set` in front.

    At most `max_items` questions of each set, evenly spaced: published files are often sorted by their origin.
    """
    frames = []
    for name, path in files.items():
        questions = read_table(QUESTIONS, path)
        items = int(questions["item"].max()) + 1
        count = items if max_items == "all" else min(int(max_items), items)
        picked = questions[questions["item"].isin(np.arange(count) * items // count)]
        frames.append(picked.assign(question_set=name))
    return pd.concat(frames, ignore_index=True)


def encode_questions(tokenizer: PreTrainedTokenizerBase, questions: pd.DataFrame, context_tokens: int) -> list[Prompt]:
    """The endings of each question as token ids, cut off behind those of the context alone.

    Encoded are the context without trailing spaces, and the whole text. Where the two together are longer than the
    model's context of `context_tokens`, tokens are taken away from the start.
    Raises InferometerError when an ending has no tokens of its own, or more than the model's context.
    """
    contexts = tokenizer(questions["context"].str.rstrip().tolist())["input_ids"]
    wholes = tokenizer((questions["context"] + DELIMITER + questions["text"]).tolist())["input_ids"]
    prompts: dict[tuple[object, ...], Prompt] = {}
    names = zip(questions["question_set"], questions["item"], questions["ending"], strict=True)
    for owner, ((name, item, number), context, whole) in enumerate(zip(names, contexts, wholes, strict=True)):
        ending = whole[len(context) :]
        room = context_tokens + 1 - len(ending)  # the last token of an ending is not read
        if not ending or room < 1:
            raise InferometerError(
                f"ending {number} of question {item} of {name!r} has {len(ending)} tokens, but must have between 1 and "
                f"{context_tokens}, the model's context; leave the set out of `evaluation.choices.question_sets`."
            )
        kept = context[-room:]
        prompt = prompts.setdefault((name, item, *kept), Prompt(kept, [], []))
        prompt.endings.append(ending)
        prompt.owners.append(owner)
    return list(prompts.values())


def shared_row(prompts: Sequence[Prompt]) -> Batch:
    """One row that holds all prompts, each with its endings behind its context."""
    tokens: list[int] = []
    wanted: list[tuple[int, int, int, int]] = []
    segments: list[tuple[int, int, int]] = []
    for number, prompt in enumerate(prompts):
        tokens += prompt.context
        segments += [(position, number, 0) for position in range(len(prompt.context))]
        before = len(tokens) - 1
        for which, (ending, owner) in enumerate(zip(prompt.endings, prompt.owners, strict=True), start=1):
            places = [before, *range(len(tokens), len(tokens) + len(ending) - 1)]
            wanted += [(0, place, token, owner) for place, token in zip(places, ending, strict=True)]
            segments += [(len(prompt.context) + step, number, which) for step in range(len(ending) - 1)]
            tokens += ending[:-1]
    return Batch(torch.tensor([tokens]), torch.tensor(wanted).T, torch.tensor(segments).T)


def _padded(prompts: Sequence[Prompt]) -> Batch:
    """A row for each prompt, which has one ending. What fills a row up stands behind all that a token can see."""
    tokens = torch.zeros(len(prompts), max(prompt.width for prompt in prompts), dtype=torch.int64)
    wanted: list[tuple[int, int, int, int]] = []
    for row, prompt in enumerate(prompts):
        [ending], [owner] = prompt.endings, prompt.owners
        tokens[row, : prompt.width] = torch.tensor([*prompt.context, *ending[:-1]])
        first = len(prompt.context) - 1
        wanted += [(row, place, token, owner) for place, token in enumerate(ending, start=first)]
    return Batch(tokens, torch.tensor(wanted).T)


def _filled(
    prompts: Iterable[Prompt], row_tokens: int, tokens_of: Callable[[list[Prompt]], int]
) -> Iterator[list[Prompt]]:
    """Prompts in their order, as many together as have at most `row_tokens`, but at least one."""
    group: list[Prompt] = []
    for prompt in prompts:
        if group and tokens_of([*group, prompt]) > row_tokens:
            yield group
            group = []
        group.append(prompt)
    yield group


def batches_of(prompts: Iterable[Prompt], *, packed: bool, row_tokens: int = ROW_TOKENS) -> list[Batch]:
    """Prompts in batches of at most `row_tokens`, or of one prompt where it is longer.

    With `row_tokens` of 1 every prompt is read alone, for schemes in which all tokens of a pass share a scale.
    """
    if packed:
        return [shared_row(group) for group in _filled(prompts, row_tokens, lambda group: sum(p.width for p in group))]
    alone = [
        Prompt(prompt.context, [ending], [owner])
        for prompt in prompts
        for ending, owner in zip(prompt.endings, prompt.owners, strict=True)
    ]
    alone.sort(key=lambda prompt: prompt.width, reverse=True)  # so that little is filled up
    return [_padded(group) for group in _filled(alone, row_tokens, lambda group: len(group) * group[0].width)]


def shared_row_mask(segments: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to attention scores, [1, 1, width, width]: 0 where a token may look, very little elsewhere."""
    _, prompt, ending = segments
    width = segments.shape[1]
    visible = (prompt[:, None] == prompt) & ((ending == 0) | (ending[:, None] == ending))
    visible &= torch.ones(width, width, dtype=torch.bool, device=segments.device).tril()
    return torch.where(visible, 0.0, torch.finfo(dtype).min).to(dtype)[None, None]


def _log_likelihoods(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Log-likelihood in nats of each wanted token: float64 [targets]. Logits are made only where they are needed."""
    rows, places, targets, _ = batch.wanted.to(model.device)
    needed, index = torch.unique(places, return_inverse=True)
    layout = {}
    if batch.segments is not None:
        segments = batch.segments.to(model.device)
        layout = {"position_ids": segments[:1], "attention_mask": shared_row_mask(segments, model.dtype)}
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        logits = model(batch.tokens.to(model.device), logits_to_keep=needed, **layout).logits
    else:
        logits = model(batch.tokens.to(model.device), **layout).logits[:, needed]
    return -cross_entropy(logits[rows, index].float(), targets, reduction="none").double()


def _scores(model: PreTrainedModel, batches: Iterable[Batch], endings: int) -> tuple[Tensor, Tensor]:
    """Log-likelihood in nats and tokens of each of so many endings: float64 and int64 [endings]."""
    scores, tokens = torch.zeros(endings, dtype=torch.float64), torch.zeros(endings, dtype=torch.int64)
    for batch in batches:
        owners = batch.wanted[3]
        scores.index_add_(0, owners, _log_likelihoods(model, batch).cpu())
        tokens += torch.bincount(owners, minlength=endings)
    return scores, tokens


def _probe(prompt: Prompt) -> Prompt:
    """The prompt with its longest ending that stands behind another: it has the most that it must not see."""
    endings = list(zip(prompt.endings, prompt.owners, strict=True))
    ending, owner = max(endings[1:] or endings, key=lambda pair: len(pair[0]))
    return Prompt(prompt.context, [ending], [owner])


@torch.inference_mode()
def can_pack(model: PreTrainedModel, prompts: Sequence[Prompt]) -> bool:
    """Whether endings have the same score in a shared row as in rows of their own, to 1e-3 nats.

    Tried on the longest prompt, which shows limits of attention and positions, and beside it on the one with the
    longest ending, which shows whether endings see each other. To be asked of the model in float32: rounding makes
    more of the last digits, in which sums of another order differ, and then each ending gets a row of its own.
    """
    pair = [
        max(prompts, key=lambda prompt: prompt.width),
        max(prompts, key=lambda prompt: len(_probe(prompt).endings[0])),
    ]
    probes = [_probe(prompt) for prompt in pair]
    owners = [owner for probe in probes for owner in probe.owners]
    endings = 1 + max(owner for prompt in pair for owner in prompt.owners)
    try:
        shared, _ = _scores(model, [shared_row(pair)], endings)
    except Exception:  # of a mask or of positions that a model does not know, each model says so in its own way
        return False
    alone, _ = _scores(model, batches_of(probes, packed=False, row_tokens=1), endings)
    return bool((shared - alone)[owners].abs().max() <= TOLERANCE)


@torch.inference_mode()
def score_choices(model: PreTrainedModel, questions: pd.DataFrame, batches: Iterable[Batch]) -> pd.DataFrame:
    """Score every ending of the questions: the columns of the CHOICES table but `device` and `dtype`.

    Raises InferometerError when the model's logits are not numbers.
    """
    scores, tokens = _scores(model, batches, len(questions))
    if scores.isnan().any():
        first = questions.iloc[int(scores.isnan().nonzero()[0])]
        raise InferometerError(
            f"the model's logits are not numbers (NaN) in question {first['item']} of {first['question_set']!r}; its "
            "weights may be damaged, or its dtype too narrow: set `dtype` of the model to float32 or bfloat16."
        )
    return questions[["question_set", "item", "ending", "is_correct"]].assign(
        log_likelihood=scores.numpy(), tokens=tokens.numpy(), characters=questions["text"].str.len()
    )
