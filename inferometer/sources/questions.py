"""Question sets: multiple-choice questions out of published files, worded as lm-evaluation-harness words them.

A form is a layout of the file, and with it the wording:

- socialiqa: JSON lines of chats whose message ends in "… A: one; B: two; C: three.", as in OpenAI's evals;
- mmlu: JSON lines of questions that end in the lines "A. one" to "D. four" and "Answer:", as in OpenAI's evals;
- hellaswag: JSON lines or Parquet with the fields of Zellers et al. (2019).
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from inferometer.errors import InferometerError
from inferometer.sources.reasons import reason_of
from inferometer.sources.single_file import single_file

LEAST_ITEMS = 2  # below that there is no interval


@dataclass(frozen=True)
class Question:
    """What a model reads, the endings that it chooses from, and the index of the right one."""

    context: str
    endings: tuple[str, ...]
    correct: int

    @staticmethod
    def of(context: str, endings: Sequence[str], answer: object, answers: Sequence[str]) -> "Question":
        """`answers` are the names of the endings, of which `answer` names the right one; raises ValueError."""
        if str(answer) not in answers:
            raise ValueError(f"its answer is {answer!r} and not one of {', '.join(answers)}")
        if not all(ending.strip() for ending in endings):
            raise ValueError("it has an empty ending")
        return Question(context, tuple(endings), answers.index(str(answer)))


def _parts(text: str, marks: Sequence[str], tail: str) -> list[str]:
    """What stands before, between and after marks that occur once each and in this order, without the tail."""
    found = re.fullmatch("(.*)".join(["", *map(re.escape, marks), re.escape(tail)]), text, flags=re.DOTALL)
    if found is None or any(text.count(mark) > 1 for mark in marks):
        raise ValueError(f"its text must have {', '.join(map(repr, marks))} once each and {tail!r} at the end")
    return list(found.groups())


def _socialiqa(record: Any) -> Question:
    question, *endings = _parts(record["input"][0]["content"], (" A: ", "; B: ", "; C: "), ".")
    return Question.of(f"Q: {question}\nA:", endings, record["ideal"], ("A", "B", "C"))


def _mmlu(record: Any) -> Question:
    question, *endings = _parts(record["question"], ("\nA. ", "\nB. ", "\nC. ", "\nD. "), "\nAnswer:")
    return Question.of(f"Question: {question.strip()}\nAnswer:", endings, record["answer"], ("A", "B", "C", "D"))


def _without_brackets(text: str) -> str:
    """Marks such as [header] and [step] are left over from the web pages; those of titles end a sentence."""
    return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")


def _hellaswag(record: Any) -> Question:
    context = f"{record['activity_label']}: {record['ctx_a']} {record['ctx_b'].capitalize()}"
    endings = [_without_brackets(ending) for ending in record["endings"]]
    answers = [str(index) for index in range(len(endings))]
    return Question.of(_without_brackets(context), endings, record["label"], answers)


READERS: Mapping[str, Callable[[Any], Question]] = {"socialiqa": _socialiqa, "mmlu": _mmlu, "hellaswag": _hellaswag}


def _records(path: Path, what: str) -> list[Any]:
    """The rows of a Parquet file as dictionaries, or the lines of a text file as they stand."""
    if path.suffix != ".parquet":
        return path.read_bytes().splitlines()
    try:
        return list(pq.read_table(path).to_pylist())
    except (OSError, pa.ArrowException) as error:
        raise InferometerError(
            f"{what}: {path.name} can't be read as Parquet ({reason_of(error)}); fetch the file again."
        ) from error


def _questions(path: Path, form: str, what: str) -> Iterator[Question]:
    for number, record in enumerate(_records(path, what), start=1):
        is_line = isinstance(record, bytes)
        if is_line and not record.strip():
            continue
        try:
            yield READERS[form](json.loads(record) if is_line else record)
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            raise InferometerError(
                f"{what}: {'line' if is_line else 'row'} {number} of {path.name} can't be read as {form} "
                f"({reason_of(error)}); mend it, or set `format` right."
            ) from error


def read_questions(path: Path, form: str, what: str) -> pd.DataFrame:
    """The questions of a local file as a QUESTIONS table.

    Raises InferometerError, naming the set by `what`, the file and the line, when a question can't be read, and when
    there are fewer than two.
    """
    questions = list(_questions(path, form, what))
    if len(questions) < LEAST_ITEMS:
        raise InferometerError(f"{what}: {path.name} holds fewer than {LEAST_ITEMS} questions; choose another file.")
    return pd.DataFrame(
        [
            {
                "item": item,
                "context": question.context,
                "ending": ending,
                "text": text,
                "is_correct": ending == question.correct,
            }
            for item, question in enumerate(questions)
            for ending, text in enumerate(question.endings)
        ]
    )


def fetch_questions(name: str, entry: Mapping[str, Any]) -> pd.DataFrame:
    """A question set as configured, verified and read into a QUESTIONS table.

    Raises InferometerError naming the set.
    """
    what = f"question set {name!r}"
    with single_file(entry, what, f"question_sets.{name}") as path:
        return read_questions(path, entry["format"], what)
