"""From corpora and question sets to the texts that caches are compared on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from transformers import PreTrainedTokenizerBase

from inferometer.evaluation.choices import encode_questions, read_questions
from inferometer.kv_cache.choices import with_shots
from inferometer.kv_cache.compare import Texts
from inferometer.kv_cache.speed import NEW_TOKENS
from inferometer.manifest import Manifest, check_context
from inferometer.text import corpus_tokens, windows_of

LEAST_WINDOWS = 2  # below that there is no interval


def read_texts(
    manifest: Manifest,
    tokenizer: PreTrainedTokenizerBase,
    corpus: Path,
    question_sets: Mapping[str, Path],
    settings: Mapping[str, Any],
) -> Texts:
    """What the section `kv_cache` of the configuration asks for.

    Raises InferometerError, before any weights are read, where a text is too short or longer than the model's context.
    """
    lengths = settings["prompt_tokens"]
    check_context(manifest, max(lengths), NEW_TOKENS, "kv_cache.prompt_tokens")
    tokens = corpus_tokens(tokenizer, corpus)
    windows = windows_of(tokens, manifest, settings, "kv_cache", LEAST_WINDOWS)
    longest = {**settings, "window_tokens": max(lengths), "max_windows": 1}
    [text] = windows_of(tokens, manifest, longest, "kv_cache")
    asked = settings["choices"]
    questions = read_questions(question_sets, asked["max_items"])
    shown = with_shots(questions, read_questions(question_sets, "all"), asked["shots"])
    prompts = encode_questions(tokenizer, shown, manifest.context_tokens)
    by_set: dict[str, list[Any]] = {}
    for prompt in prompts:
        by_set.setdefault(questions["question_set"].iloc[prompt.owners[0]], []).append(prompt)
    return Texts(
        windows=windows,
        context_tokens=settings["context_tokens"],
        step_tokens=settings["step_tokens"],
        questions=pd.DataFrame(questions),
        prompts=by_set,
        long_prompts=[text[:, :tokens] for tokens in sorted(lengths)],
    )
