"""Tables of the sources chapter."""

from inferometer.tables import Column, Table

CORPUS = Table(
    path="sources/corpora/<corpus>.parquet",
    meaning="The texts of a corpus, in the order of its file.",
    columns=(
        Column("text_index", "int64", "position of the text in the file, from 0"),
        Column("text", "string", "the text as it stands in the file"),
    ),
    key=("text_index",),
)
