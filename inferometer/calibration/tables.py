"""Tables of the calibration chapter."""

from inferometer.tables import Column, Table

_CHANNEL = (
    Column("min", "float32", "smallest value"),
    Column("max", "float32", "largest value"),
    Column("absmax", "float32", "largest magnitude"),
)

ACTIVATIONS = Table(
    path="<model>/calibration/activations.parquet",
    meaning="Statistics of every linear layer's input, per channel, over all calibration tokens.",
    columns=(
        Column("layer", "string", "module name of the linear layer"),
        Column("first_token", "bool", "whether the first token of each window is counted"),
        Column("channel", "int64", "input channel, from 0"),
        Column("tokens", "int64", "tokens counted"),
        *_CHANNEL,
        Column("mean", "float32", "mean"),
        Column("std", "float32", "standard deviation (population)"),
        Column(
            "kurtosis",
            "float32",
            "fourth standardized moment, 3 for a normal; null where std is 0",
            nullable=True,
        ),
        Column(
            "beyond_6_sigma",
            "float64",
            "share of values further than six standard deviations from the mean, both taken over all channels and "
            "tokens of the layer's input in the same window",
        ),
    ),
    key=("layer", "first_token", "channel"),
)

WEIGHTS = Table(
    path="<model>/calibration/weights.parquet",
    meaning="Range of every linear layer's weight, per input and per output channel.",
    columns=(
        Column("layer", "string", "module name of the linear layer"),
        Column("axis", "string", "input or output: what a channel runs along"),
        Column("channel", "int64", "channel, from 0"),
        *_CHANNEL,
    ),
    key=("layer", "axis", "channel"),
)

HISTOGRAMS = Table(
    path="<model>/calibration/histograms.parquet",
    meaning="Counts of values on signed logarithmic bins (eight to an octave) for the chosen decoder layers.",
    columns=(
        Column("layer", "string", "module name of the linear layer"),
        Column("tensor", "string", "weight, or activation for the layer's input"),
        Column("first_token", "bool", "whether the first token of each window is counted; true for weights"),
        Column("low", "float64", "lower edge of the bin"),
        Column("high", "float64", "upper edge of the bin"),
        Column("count", "int64", "values in the bin; empty bins are left out"),
    ),
    key=("layer", "tensor", "first_token", "low"),
)

SURFACES = Table(
    path="<model>/calibration/surfaces.parquet",
    meaning="Magnitudes for the 3D figures: the largest |value| in each block of rows and channels.",
    columns=(
        Column("layer", "string", "module name of the linear layer"),
        Column("tensor", "string", "weight, or activation for the layer's input in the first window"),
        Column("row", "int64", "first row of the block: token position, or output channel of a weight"),
        Column("channel", "int64", "first input channel of the block"),
        Column("magnitude", "float32", "largest magnitude in the block"),
    ),
    key=("layer", "tensor", "row", "channel"),
)

RANGES = Table(
    path="summary/ranges.parquet",
    meaning="The range of every linear layer's weight beside that of its input.",
    columns=(
        Column("model", "string", "model name in the configuration"),
        Column("layer", "string", "module name of the linear layer"),
        Column(
            "decoder_layer",
            "int64",
            "index of its decoder layer, from 0; null for the output head",
            nullable=True,
        ),
        Column("first_token", "bool", "whether the first token of each window is counted"),
        Column("weight_min", "float32", "smallest weight"),
        Column("weight_max", "float32", "largest weight"),
        Column("activation_min", "float32", "smallest input value"),
        Column("activation_max", "float32", "largest input value"),
        Column("ratio", "float32", "largest input magnitude over largest weight magnitude"),
        Column("largest_channel", "int64", "input channel that holds the largest magnitude"),
        Column(
            "beyond_6_sigma",
            "float64",
            "share of input values further than six standard deviations from the mean",
        ),
    ),
    key=("model", "layer", "first_token"),
)
