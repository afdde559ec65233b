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

QUESTIONS = Table(
    path="sources/questions/<question_set>.parquet",
    meaning="The multiple-choice questions of a set, one row for each ending that a question may have.",
    columns=(
        Column("item", "int64", "position of the question in the file, from 0"),
        Column("context", "string", "what the model reads before an ending, worded as in lm-evaluation-harness"),
        Column("ending", "int64", "position of the ending in the question, from 0"),
        Column("text", "string", "the ending, without the space before it"),
        Column("is_correct", "bool", "whether it is the right one, of which each question has one"),
    ),
    key=("item", "ending"),
)
