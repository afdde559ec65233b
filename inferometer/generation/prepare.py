"""Prompts, words and texts as token ids, and whether they fit, before any weights are read."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from inferometer.errors import InferometerError
from inferometer.generation.insertions import AFTER_TOKENS, encode_words, find_contexts
from inferometer.manifest import Manifest, check_context
from inferometer.text import corpus_tokens
from inferometer.writing import encoded


@dataclass(frozen=True)
class Prepared:
    """Prompts [1, tokens] by name, texts [contexts, context_tokens], and words by their kind, all as token ids."""

    prompts: dict[str, Tensor]
    contexts: Tensor
    words: dict[str, dict[str, list[int]]]


def encode_prompts(
    manifest: Manifest, tokenizer: PreTrainedTokenizerBase, prompts: Mapping[str, str], new_tokens: int, key: str
) -> dict[str, Tensor]:
    """Prompts as token ids [1, tokens] by name.

    Raises InferometerError for one without tokens, and when the longest and `new_tokens` written after it, which the
    setting `key` asks for, exceed the model's context.
    """
    encodings = {name: encoded(tokenizer, text) for name, text in prompts.items()}
    for name, tokens in encodings.items():
        if tokens.shape[1] == 0:
            raise InferometerError(
                f"the model's tokenizer makes no token of the prompt {name!r} under `generation`; write a longer one."
            )
    check_context(manifest, max(tokens.shape[1] for tokens in encodings.values()), new_tokens, key)
    return encodings


def prepare(
    manifest: Manifest, tokenizer: PreTrainedTokenizerBase, corpus: Path, settings: Mapping[str, Any]
) -> Prepared:
    """What the `settings` of the chapter ask for.

    Raises InferometerError when something is longer than the model's context, the corpus too short, or a word unknown.
    """
    prompts = encode_prompts(manifest, tokenizer, settings["prompts"], settings["new_tokens"], "generation.new_tokens")
    insertions = settings["insertions"]
    context_tokens, words = insertions["context_tokens"], encode_words(tokenizer, insertions["words"])
    most = max(len(ids) for own in words.values() for ids in own.values())
    check_context(manifest, context_tokens // 2, most + AFTER_TOKENS, "generation.insertions.context_tokens")
    tokens = corpus_tokens(tokenizer, corpus)
    contexts = find_contexts(tokenizer, tokens, context_tokens, insertions["contexts"], insertions["corpus"])
    return Prepared(prompts, contexts, words)
