"""Tables of the fundamentals chapter."""

from inferometer.samples import SAMPLE, SPREAD
from inferometer.tables import Column, Table

_MACHINE = (
    Column("device", "string", "cpu or cuda"),
    Column("dtype", "string", "dtype of the float parts of the network"),
)
_REPLACEMENT = (
    Column("replaced", "string", "linear layers that compute on codes: last or all"),
    Column("bits", "int64", "bits of a code, of weights and of inputs"),
)
_ARM = (
    Column("varied", "string", "the length that differs among arms compared: new_tokens or prompt_tokens"),
    Column("prompt_tokens", "int64", "tokens that stood there before"),
    Column("new_tokens", "int64", "tokens that were written"),
    Column("cache", "bool", "whether keys and values were kept from step to step"),
)

DIGITS = Table(
    path="fundamentals/digits.parquet",
    meaning="Every test image as networks with replaced layers read it, with the float network's answer beside.",
    columns=(
        Column("seed", "int64", "seed of the network's weights and of the order of training"),
        *_REPLACEMENT,
        Column("item", "int64", "position of the test image in its file, from 0"),
        Column("label", "int64", "the digit that it shows"),
        Column("float_prediction", "int64", "the digit that the float network reads"),
        Column("prediction", "int64", "the digit that the network with replaced layers reads"),
        Column("output_power", "float64", "mean over the ten float logits of their squares"),
        Column("output_mse", "float64", "mean over the ten logits of the squared difference from the float ones"),
        *_MACHINE,
    ),
    key=("seed", "replaced", "bits", "item"),
)

DIGIT_ACCURACY = Table(
    path="summary/digits.parquet",
    meaning="Accuracy of the digit classifier by replacement and bits, paired with the float networks image by image.",
    columns=(
        *_REPLACEMENT,
        Column("seeds", "int64", "networks trained"),
        Column("items", "int64", "test images"),
        Column("float_accuracy", "float64", "share of images that the float networks read right, mean over seeds"),
        Column("accuracy", "float64", "share of images read right with replaced layers, mean over seeds"),
        Column("accuracy_low", "float64", "lower end of its 95 % bootstrap interval over images"),
        Column("accuracy_high", "float64", "upper end of its 95 % bootstrap interval over images"),
        Column("change", "float64", "accuracy less that of the float networks"),
        Column("change_low", "float64", "lower end of its 95 % paired bootstrap interval over images"),
        Column("change_high", "float64", "upper end of its 95 % paired bootstrap interval over images"),
        Column("smallest_change", "float64", "change of the seed that lost the most"),
        Column("largest_change", "float64", "change of the seed that lost the least"),
        Column("output_mse", "float64", "mean squared difference of the logits from the float ones"),
        Column("sqnr_db", "float64", "power of the float logits over that of the difference, in decibels"),
        *_MACHINE,
    ),
    key=("replaced", "bits"),
)

DECODER_CHECKS = Table(
    path="fundamentals/decoder_checks.parquet",
    meaning="Properties that the hand-written decoder must have, each measured on every prompt.",
    columns=(
        Column("check", "string", "cache, sequential, causality or attention"),
        Column("case", "int64", "number of the prompt, from 0"),
        Column("kind", "string", "fixed or random"),
        Column("tokens", "int64", "tokens of the prompt"),
        Column("difference", "float64", "largest difference of logits, or of attention's outputs, that must be none"),
        Column("tolerance", "float64", "largest difference that sums in another order may make"),
        Column("holds", "bool", "whether the difference is no larger"),
        *_MACHINE,
    ),
    key=("check", "case"),
)

DECODER_LATENCY = Table(
    path="fundamentals/decoder_latency.parquet",
    meaning="The raw samples of the hand-written decoder's latency.",
    columns=(
        *_ARM,
        *SAMPLE,
        *_MACHINE,
    ),
    key=("varied", "prompt_tokens", "new_tokens", "cache", "repetition"),
)

DECODER_SPEED = Table(
    path="summary/decoder.parquet",
    meaning="Latency of the hand-written decoder by arm, and what its cache gains.",
    columns=(
        *_ARM,
        *SPREAD,
        Column("speedup", "float64", "median latency without the cache over that of this arm; 1 for arms without"),
        Column("cpu_speedup", "float64", "the same of processor time, which other work on the machine hardly touches"),
        *_MACHINE,
    ),
    key=("varied", "prompt_tokens", "new_tokens", "cache"),
)
