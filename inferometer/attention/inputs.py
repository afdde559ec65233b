"""The texts that attention is captured on: meaningful and dummy ones of several lengths, and other first tokens."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from inferometer.attention.names import BOS, DUMMIES, OWN, REPEATED
from inferometer.errors import InferometerError
from inferometer.manifest import Manifest, check_window
from inferometer.models import token_windows, tokenize
from inferometer.sources.tables import QUESTIONS
from inferometer.tables import read_table
from inferometer.text import corpus_tokens


@dataclass(frozen=True)
class Text:
    """Token ids [1, tokens] of one text with what they are: which input, length and number, and how it begins."""

    input: str
    length: str
    first_token: str
    number: int
    tokens: Tensor

    @property
    def labels(self) -> dict[str, Any]:
        """The columns that say which text it is."""
        return {"input": self.input, "length": self.length, "first_token": self.first_token, "text": self.number}


def _answered(path: Path) -> list[str]:
    """Each question of a set with its right ending."""
    rows = read_table(QUESTIONS, path)
    rows = rows[rows["is_correct"]].sort_values("item")
    return [f"{row.context} {row.text}" for row in rows.itertuples()]


def streams_of(
    tokenizer: PreTrainedTokenizerBase, corpora: Mapping[str, Path], sets: Mapping[str, Path]
) -> dict[str, Tensor]:
    """Token ids [tokens] of every meaningful input, all its texts one after the other."""
    return {name: corpus_tokens(tokenizer, path) for name, path in corpora.items()} | {
        name: tokenize(tokenizer, _answered(path)) for name, path in sets.items()
    }


def _dummies(tokenizer: PreTrainedTokenizerBase, kind: str, tokens: int, texts: int) -> Iterator[Tensor]:
    """Texts [1, tokens] of one token again and again, or of any, none of them special; text n is drawn from seed n."""
    plain = torch.tensor(sorted(set(range(len(tokenizer))) - set(tokenizer.all_special_ids)))
    for number in range(texts):
        generator = torch.Generator().manual_seed(number)
        picks = torch.randint(len(plain), (1, 1 if kind == REPEATED else tokens), generator=generator)
        yield plain[picks].expand(1, tokens)


def _windows(stream: Tensor, tokens: int, texts: int, what: str) -> list[Tensor]:
    windows = list(token_windows(stream, tokens, texts, what))
    if len(windows) < texts:
        raise InferometerError(
            f"{what} fills {len(windows)} of the {texts} texts of {tokens} tokens that `attention.inputs.lengths` asks "
            "for; use a longer corpus, or shorter or fewer texts."
        )
    return windows


def texts_of(
    tokenizer: PreTrainedTokenizerBase, streams: Mapping[str, Tensor], settings: Mapping[str, Any], manifest: Manifest
) -> list[Text]:
    """Every text of every input and length, as `attention.inputs` asks for them.

    Raises InferometerError when a text is longer than the model's context, or a corpus too short.
    """
    found: list[Text] = []
    for length, wanted in settings["lengths"].items():
        tokens, texts = wanted["tokens"], wanted["texts"]
        check_window(manifest, tokens, f"attention.inputs.lengths.{length}.tokens")
        windows = {
            name: _windows(stream, tokens, texts, f"{name!r} (`attention.inputs`)") for name, stream in streams.items()
        }
        windows |= {kind: list(_dummies(tokenizer, kind, tokens, texts)) for kind in DUMMIES}
        for name, own in windows.items():
            found += [Text(name, length, OWN, number, window) for number, window in enumerate(own)]
    return found


def _word(tokenizer: PreTrainedTokenizerBase, word: str) -> Tensor:
    """Token ids [1, tokens] of a word that follows a blank."""
    encoded: Any = tokenizer(f" {word}", add_special_tokens=False, return_tensors="pt")
    ids: Tensor = encoded["input_ids"]
    return ids


def begun_otherwise(
    tokenizer: PreTrainedTokenizerBase, texts: list[Text], settings: Mapping[str, Any]
) -> tuple[list[Text], str | None]:
    """The texts of one input and length with other first tokens, and why none begins with a BOS token, if none does.

    BOS stands before the text, whose last token is left out instead; a word takes the place of the first token, or of
    as many as it has.
    """
    bos = tokenizer.bos_token_id
    words = {name: _word(tokenizer, word) for name, word in settings["words"].items()}
    found = []
    for text in texts:
        if (text.input, text.length) != (settings["input"], settings["length"]):
            continue
        begun = {name: torch.cat([word, text.tokens[:, word.shape[1] :]], dim=1) for name, word in words.items()}
        if bos is not None:
            begun[BOS] = torch.cat([torch.tensor([[bos]]), text.tokens[:, :-1]], dim=1)
        found += [replace(text, first_token=name, tokens=tokens) for name, tokens in begun.items()]
    return found, "the tokenizer has no token that begins a text" if bos is None else None
