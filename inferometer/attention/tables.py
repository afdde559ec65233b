"""Tables of the attention chapter."""

import pandas as pd

from inferometer.attention.names import DUMMIES, OWN
from inferometer.tables import Column, Table

_MODEL = Column("model", "string", "model name in the configuration")
_TEXT_KIND = (
    Column("input", "string", "corpus or question set by its name; repeated: one token again and again; random: any"),
    Column("length", "string", "name of the length in the configuration"),
    Column("first_token", "string", "own: as the text is; bos: BOS before it; or the name of the word in its place"),
)
_TEXT = (*_TEXT_KIND, Column("text", "int64", "number of the text, from 0"))
_MACHINE = (
    Column("device", "string", "cpu or cuda"),
    Column("dtype", "string", "dtype of the model"),
)
_SHARES = (
    Column("first_1", "float64", "share on the first token, mean over tokens that see more than 1", nullable=True),
    Column("first_2", "float64", "share on the first 2 tokens, mean over tokens that see more than 2", nullable=True),
    Column("first_4", "float64", "share on the first 4 tokens, mean over tokens that see more than 4", nullable=True),
)
_MEANS = (
    *_SHARES,
    Column("recent", "float64", "share on the last 16 tokens, mean over tokens that see more than 16", nullable=True),
    Column("entropy", "float64", "of the attention weights in nats, mean over all tokens but the first", nullable=True),
    Column("distance_tokens", "float64", "how far back attention reaches on average, in tokens", nullable=True),
)

HEADS = Table(
    path="<model>/attention/heads.parquet",
    meaning="What every attention head looks at in every text.",
    columns=(
        *_TEXT,
        Column("tokens", "int64", "tokens of the text", nullable=True),
        Column("layer", "int64", "decoder layer, from 0; null where the text can't be made", nullable=True),
        Column("head", "int64", "query head, from 0; null for a layer without softmax attention", nullable=True),
        *_MEANS,
        Column("uniform_1", "float64", "what first_1 is where each token looks alike at all it sees", nullable=True),
        Column("uniform_2", "float64", "what first_2 is then", nullable=True),
        Column("uniform_4", "float64", "what first_4 is then", nullable=True),
        Column("reason", "string", "why there is nothing to measure; null where there is", nullable=True),
        *_MACHINE,
    ),
    key=("input", "length", "first_token", "text", "layer", "head"),
)

POSITIONS = Table(
    path="<model>/attention/positions.parquet",
    meaning="How much later tokens look at each token of a text, as it is, by layer.",
    columns=(
        Column("input", "string", "corpus, question set or dummy, as in heads.parquet"),
        Column("length", "string", "name of the length in the configuration"),
        Column("text", "int64", "number of the text, from 0"),
        Column("layer", "int64", "decoder layer, from 0"),
        Column("position", "int64", "position of the token, from 0; the last is left out, which none sees yet"),
        Column("received", "float32", "mean weight from all later tokens, over the layer's heads"),
    ),
    key=("input", "length", "text", "layer", "position"),
)

MAPS = Table(
    path="<model>/attention/maps.parquet",
    meaning="Attention maps of the first text of each input: of layers as the mean over heads, and of single heads.",
    columns=(
        Column("input", "string", "corpus, question set or dummy, as in heads.parquet"),
        Column("length", "string", "name of the length in the configuration"),
        Column("map", "string", "first, middle or last layer; sink or local: the head that is most so"),
        Column("layer", "int64", "decoder layer, from 0"),
        Column("head", "int64", "query head, from 0; null: the mean over all heads", nullable=True),
        Column("row", "int64", "first token of those that look, from 0"),
        Column("column", "int64", "first token of those that are looked at, from 0; none that is later than all rows"),
        Column("share", "float32", "share of the rows' attention that goes to the columns, mean over the rows"),
        Column("row_text", "string", "the token's text where a row is one token, else null", nullable=True),
        Column("cell_tokens", "int64", "tokens to a cell, at most; 1 where the map is full"),
    ),
    key=("input", "length", "map", "row", "column"),
)

RESIDUALS = Table(
    path="<model>/attention/residuals.parquet",
    meaning="The largest values of the residual stream at the first token, behind every decoder layer.",
    columns=(
        *_TEXT,
        Column("layer", "int64", "decoder layer, from 0"),
        Column("rank", "int64", "0 for the channel with the largest magnitude, then the next"),
        Column("channel", "int64", "channel of the residual stream, from 0"),
        Column("value", "float64", "its value at the first token"),
        Column("median_magnitude", "float64", "median magnitude of all channels and tokens behind the layer"),
        Column("later_magnitude", "float64", "largest magnitude of the same channel at any later token"),
    ),
    key=("input", "length", "first_token", "text", "layer", "rank"),
)

ROUNDED = Table(
    path="<model>/attention/rounded.parquet",
    meaning="What heads look at in the second part of texts, read in steps, under schemes and KV caches.",
    columns=(
        Column("scheme", "string", "scheme name in the configuration"),
        Column("cache", "string", "policy of the KV cache; float: none of it is rounded"),
        Column("text", "int64", "number of the text, from 0"),
        Column("layer", "int64", "decoder layer, from 0"),
        Column("head", "int64", "query head, from 0; null for a layer without softmax attention", nullable=True),
        *_MEANS,
        Column("reason", "string", "why there is nothing to measure; null where there is", nullable=True),
        *_MACHINE,
    ),
    key=("scheme", "cache", "text", "layer", "head"),
)


def _bounds(name: str) -> tuple[Column, Column]:
    return (
        Column(f"{name}_low", "float64", "lower end of its 95 % bootstrap interval over texts"),
        Column(f"{name}_high", "float64", "upper end of its 95 % bootstrap interval over texts"),
    )


SINKS = Table(
    path="summary/sinks.parquet",
    meaning="Share of attention on the first two tokens by layer, mean over heads and texts, with intervals.",
    columns=(
        _MODEL,
        *_TEXT_KIND,
        Column("tokens", "int64", "tokens of each text"),
        Column("layer", "int64", "decoder layer, from 0"),
        Column("texts", "int64", "texts"),
        Column("share", "float64", "share of attention on the first two tokens"),
        *_bounds("share"),
        Column("uniform", "float64", "what it is where each token looks alike at all it sees"),
        Column("first_1", "float64", "share on the first token alone"),
        Column("recent", "float64", "share on the last 16 tokens; null for shorter texts", nullable=True),
        Column("entropy", "float64", "mean entropy of the attention weights in nats"),
        Column("distance_tokens", "float64", "mean distance in tokens"),
    ),
    key=("model", "input", "length", "first_token", "layer"),
)

PHASES = Table(
    path="summary/phases.parquet",
    meaning="Stretches of layers with one level of the share on the first two tokens, by least squares and BIC.",
    columns=(
        _MODEL,
        Column("input", "string", "input, or * for all that mean something together"),
        Column("length", "string", "name of the length in the configuration"),
        Column("stretch", "int64", "number of the stretch, from 0"),
        Column("phase", "string", "plateau: the highest level; emergence before it, decline after it"),
        Column("first_layer", "int64", "layer that the stretch begins with"),
        Column("first_layer_low", "int64", "lower end of its 95 % bootstrap interval, for as many stretches"),
        Column("first_layer_high", "int64", "upper end of its 95 % bootstrap interval, for as many stretches"),
        Column("last_layer", "int64", "layer that it ends with"),
        Column("share", "float64", "its level: mean share on the first two tokens"),
        Column("agreeing", "float64", "share of the resamples in which BIC chooses as many stretches"),
    ),
    key=("model", "input", "length", "stretch"),
)


def _moved(name: str, meaning: str) -> tuple[Column, ...]:
    return (
        Column(name, "float64", meaning),
        Column(f"{name}_change", "float64", "difference to float, paired text by text"),
        *_bounds(f"{name}_change"),
    )


ATTENTION_SCHEMES = Table(
    path="summary/attention_schemes.parquet",
    meaning="How sinks and entropies of attention move under schemes and KV caches, against float.",
    columns=(
        _MODEL,
        Column("scheme", "string", "scheme name in the configuration"),
        Column("cache", "string", "policy of the KV cache; float: none of it is rounded"),
        Column("layer", "int64", "decoder layer, from 0; null: all layers together", nullable=True),
        Column("texts", "int64", "texts"),
        *_moved("share", "share of attention on the first two tokens, mean over heads"),
        *_moved("entropy", "entropy of the attention weights in nats, mean over heads"),
        Column("entropy_moved", "float64", "how far a head's mean entropy is from float, up or down, mean over heads"),
    ),
    key=("model", "scheme", "cache", "layer"),
)


def meaningful(rows: pd.DataFrame) -> pd.DataFrame:
    """Of a table with columns `input` and `first_token` the rows of texts as they are that mean something."""
    return rows[(rows["first_token"] == OWN) & ~rows["input"].isin(DUMMIES)]
