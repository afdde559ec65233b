"""Words put into the middle of texts where they do not belong: how much they surprise the model, and what follows."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from inferometer.device import Device
from inferometer.errors import InferometerError
from inferometer.features import rarity

AFTER_TOKENS = 16  # whose rarity is taken with the word before them and without
CONTEXTS_AT_ONCE = 16
SOME_WORD = "a"


def _is_between_words(tokenizer: PreTrainedTokenizerBase, before: int, after: int) -> bool:
    """Whether a blank and then a letter follow on the first of two tokens."""
    first, both = (
        str(tokenizer.decode(ids, clean_up_tokenization_spaces=False)) for ids in ([before], [before, after])
    )
    rest = both.removeprefix(first)
    return both.startswith(first) and rest[:1] == " " and rest[1:2].isalpha()


def find_contexts(
    tokenizer: PreTrainedTokenizerBase, tokens: Tensor, context_tokens: int, count: int, corpus: str
) -> Tensor:
    """So many texts [contexts, context_tokens] out of those tokens [tokens], in each of which a word begins right after
    the middle. They are spread evenly and do not overlap.

    Raises InferometerError, naming the corpus, where it is too short for that.
    """
    stride, half = len(tokens) // count, context_tokens // 2
    ids, found = tokens.tolist(), []
    for block in range(count):
        starts = range(block * stride, (block + 1) * stride - context_tokens + 1)
        for start in starts:
            if _is_between_words(tokenizer, *ids[start + half - 1 : start + half + 1]):
                found.append(tokens[start : start + context_tokens])
                break
    if len(found) < count:
        raise InferometerError(
            f"corpus {corpus!r} (`generation.insertions.corpus`) has {len(ids)} tokens, too few for {count} texts of "
            f"{context_tokens} with a word that begins in their middle; use a longer text or set "
            "`generation.insertions.contexts` lower."
        )
    return torch.stack(found)


def word_tokens(tokenizer: PreTrainedTokenizerBase, word: str) -> list[int]:
    """Token ids of a word with a blank before it, as within a sentence."""
    ids: list[list[int]] = tokenizer([SOME_WORD, f"{SOME_WORD} {word}"], add_special_tokens=False)["input_ids"]
    alone, followed = ids
    return followed[len(alone) :]


def _rarities(model: PreTrainedModel, before: Tensor, word: list[int], after: Tensor, cache: Cache) -> Tensor:
    """Rarity [contexts, word + after] of a word and what comes after it [contexts, after].

    The cache holds the text before but for its last token [contexts, 1], which predicts the first.
    """
    inserted = torch.tensor(word, dtype=before.dtype, device=before.device).expand(len(before), -1)
    tokens = torch.cat([before, inserted, after], dim=1)
    output: Any = model(tokens, past_key_values=deepcopy(cache), use_cache=True)
    return rarity(output.logits[:, :-1], tokens[:, 1:]).double().cpu()


@torch.inference_mode()
def insert(
    model: PreTrainedModel,
    contexts: Tensor,
    words: Mapping[str, Mapping[str, list[int]]],
    device: Device,
) -> pd.DataFrame:
    """The INSERTIONS table: every word, by its kind, in the middle of every text [contexts, context_tokens].

    Words are token ids. The text before the word is read once, for all of them.
    """
    half = contexts.shape[1] // 2
    parts: list[pd.DataFrame] = []
    for first in range(0, len(contexts), CONTEXTS_AT_ONCE):
        text = contexts[first : first + CONTEXTS_AT_ONCE].to(model.device)
        cache = DynamicCache(config=model.config)
        model(text[:, : half - 1], past_key_values=cache, use_cache=True, logits_to_keep=1)
        before, after = text[:, half - 1 : half], text[:, half : half + AFTER_TOKENS]
        stood = _rarities(model, before, [], after, cache)
        for kind, of_kind in words.items():
            for word, ids in of_kind.items():
                found = _rarities(model, before, ids, after, cache)
                columns = {
                    "kind": kind,
                    "word": word,
                    "context": range(first, first + len(text)),
                    "word_tokens": len(ids),
                    "rarity": found[:, : len(ids)].mean(dim=1),
                    "word_rarity": found[:, : len(ids)].sum(dim=1),
                    "first_rarity": found[:, 0],
                    "stood_rarity": stood[:, 0],
                    "after_rarity": found[:, len(ids) :].mean(dim=1),
                    "stood_after_rarity": stood.mean(dim=1),
                }
                parts.append(pd.DataFrame(columns))
    table = pd.concat(parts, ignore_index=True)
    return table.assign(device=device.kind, dtype=str(model.dtype).removeprefix("torch."))


def encode_words(
    tokenizer: PreTrainedTokenizerBase, words: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, list[int]]]:
    """The words of every kind as token ids. Raises InferometerError for a word that the tokenizer makes nothing of."""
    encoded = {kind: {word: word_tokens(tokenizer, word) for word in own} for kind, own in words.items()}
    for kind, own in encoded.items():
        for word, ids in own.items():
            if not ids:
                raise InferometerError(
                    f"configuration key `generation.insertions.words.{kind}` names {word!r}, of which the model's "
                    "tokenizer makes no token; name another word."
                )
    return encoded
