"""Question sets out of local files: every question as lm-evaluation-harness would put it, or a sentence about it."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from inferometer.errors import InferometerError
from inferometer.sources.questions import fetch_questions
from inferometer.sources.tables import QUESTIONS
from inferometer.tables import read_table, write_table


def _social(text: str = "Robin ran home. Why? A: to eat; B: for no reason; C: it rained.", ideal: Any = "C") -> Any:
    return {"input": [{"role": "user", "content": text}], "ideal": ideal}


def _mmlu(text: str = "Two and two?\nA. 3\nB. 4\nC. 5\nD. 22\nAnswer:", answer: Any = "B") -> Any:
    return {"question": text, "answer": answer}


def _swag(**changes: Any) -> Any:
    return {
        "ind": 24,
        "activity_label": "Roof shingle removal",
        "ctx_a": "A man is sitting on a roof.",
        "ctx_b": "he",
        "ctx": "A man is sitting on a roof. he",
        "endings": ["is using wrap.", "is ripping tiles off.", "holds a cube.", "starts pulling up roofing."],
        "label": 3,
        **changes,
    }


FORMS: dict[str, Callable[..., Any]] = {"socialiqa": _social, "mmlu": _mmlu, "hellaswag": _swag}


def _write(path: Path, records: list[Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def _fetch(path: Path, form: str, **more: Any) -> pd.DataFrame:
    return fetch_questions("quiz", {"source": "local", "path": str(path), "format": form, **more})


def _first(path: Path, form: str, record: Any) -> tuple[str, list[str], int]:
    """Context, endings and the index of the right one, of a record that is read between others."""
    table = _fetch(_write(path, [record, FORMS[form]()]), form)
    rows = table[table["item"] == 0]
    [context] = rows["context"].unique()
    [correct] = rows.loc[rows["is_correct"], "ending"]
    assert rows["ending"].tolist() == list(range(len(rows)))
    return context, rows["text"].tolist(), correct


def _refusal(path: Path, form: str, **more: Any) -> str:
    with pytest.raises(InferometerError) as caught:
        _fetch(path, form, **more)
    sentence = str(caught.value)
    assert "question set 'quiz'" in sentence
    assert "\n" not in sentence
    assert sentence.endswith(".")
    return sentence


def test_a_question_of_social_iqa(tmp_path: Path) -> None:
    context, endings, correct = _first(tmp_path / "file", "socialiqa", _social())
    assert context == "Q: Robin ran home. Why?\nA:"
    assert endings == ["to eat", "for no reason", "it rained"]
    assert correct == 2


def test_social_iqa_keeps_points_and_semicolons_that_part_nothing(tmp_path: Path) -> None:
    text = "Dr. A said; so be it: B. What now? A: i.e. stop; go; B: e.g. go.; C: don't. ."
    context, endings, _ = _first(tmp_path / "file", "socialiqa", _social(text))
    assert context == "Q: Dr. A said; so be it: B. What now?\nA:"
    assert endings == ["i.e. stop; go", "e.g. go.", "don't. "]


def test_a_question_of_mmlu_is_answered_by_texts_and_not_by_letters(tmp_path: Path) -> None:
    context, endings, correct = _first(tmp_path / "file", "mmlu", _mmlu())
    assert context == "Question: Two and two?\nAnswer:"
    assert endings == ["3", "4", "5", "22"]
    assert correct == 1


def test_mmlu_keeps_lines_within_questions_and_answers(tmp_path: Path) -> None:
    text = "\nRead:\nA line.\n\n\nA. x ← 1\n y ← 2\nB. A. B.\nC. $1 \nD. none\nAnswer:"
    context, endings, _ = _first(tmp_path / "file", "mmlu", _mmlu(text))
    assert context == "Question: Read:\nA line.\nAnswer:"
    assert endings == ["x ← 1\n y ← 2", "A. B.", "$1 ", "none"]


def test_a_question_of_hellaswag(tmp_path: Path) -> None:
    context, endings, correct = _first(tmp_path / "file", "hellaswag", _swag())
    assert context == "Roof shingle removal: A man is sitting on a roof. He"
    assert endings == _swag()["endings"]
    assert correct == 3


@pytest.mark.parametrize(
    ("raw", "read"),
    [
        ("[header] How to knit [title] Get wool. [step] Buy it.", " How to knit. Get wool. Buy it."),
        ("  Buy wool.  Then knit. ", "Buy wool. Then knit."),
        ("Knit [substeps] a row.\n", "Knit a row."),
        ("a   b", "a  b"),  # once from left to right, as in the reference
        ("[title] Knit.", " Knit."),
        ("see [1] and ] [2", "see and ] [2"),
    ],
)
def test_brackets_and_double_spaces_of_hellaswag(tmp_path: Path, raw: str, read: str) -> None:
    """The values are those of `preprocess` in lm-evaluation-harness."""
    record = _swag(endings=[raw, "b", "c", "d"])
    _, endings, _ = _first(tmp_path / "file", "hellaswag", record)
    assert endings[0] == read


def test_a_context_of_hellaswag_is_cleaned_as_a_whole(tmp_path: Path) -> None:
    record = _swag(activity_label="Knitting", ctx_a="[header] How to knit [title] Get wool.", ctx_b="THEN Knit")
    context, _, _ = _first(tmp_path / "file", "hellaswag", record)
    assert context == "Knitting: How to knit. Get wool. Then knit"
    context, _, _ = _first(tmp_path / "file", "hellaswag", _swag(ctx_b=""))
    assert context == "Roof shingle removal: A man is sitting on a roof."


def test_hellaswag_is_read_from_parquet_with_labels_that_are_texts(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pd.DataFrame([_swag(label="3"), _swag(label="0")]).to_parquet(path)
    table = _fetch(path, "hellaswag")
    assert table.loc[table["is_correct"], "ending"].tolist() == [3, 0]
    lines = _fetch(_write(tmp_path / "lines.jsonl", [_swag(label=3), _swag(label=0)]), "hellaswag")
    pd.testing.assert_frame_equal(table, lines)


@pytest.mark.parametrize("form", FORMS)
def test_questions_are_counted_in_the_order_of_the_file(tmp_path: Path, form: str) -> None:
    path = _write(tmp_path / "file", [FORMS[form]()] * 3)
    path.write_text(path.read_text(encoding="utf-8").replace("\n", "\r\n\r\n"), encoding="utf-8", newline="")
    table = _fetch(path, form)
    assert table["item"].drop_duplicates().tolist() == [0, 1, 2]
    assert table.groupby("item")["is_correct"].sum().tolist() == [1, 1, 1]


def test_a_question_set_is_a_valid_table_and_its_bytes_are_stable(tmp_path: Path) -> None:
    path = _write(tmp_path / "lines.jsonl", [_social(), _social(ideal="A")])
    for copy in ("one.parquet", "two.parquet"):
        write_table(QUESTIONS, _fetch(path, "socialiqa"), tmp_path / copy)
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    pd.testing.assert_frame_equal(read_table(QUESTIONS, tmp_path / "one.parquet"), _fetch(path, "socialiqa"))


@pytest.mark.parametrize(
    ("form", "record", "reason"),
    [
        ("socialiqa", _social("Why? A: yes; B: no."), "C: "),
        ("socialiqa", _social("Why? A: yes; B: no; C: maybe"), "'.' at the end"),
        ("socialiqa", _social("Why? B: no; A: yes; C: maybe."), "once each"),
        ("socialiqa", _social("Why A: me? A: yes; B: no; C: maybe."), "once each"),
        ("socialiqa", _social("Why? A: ; B: no; C: maybe."), "an empty ending"),
        ("socialiqa", _social(ideal="D"), "its answer is 'D' and not one of A, B, C"),
        ("socialiqa", _social(ideal="AB"), "its answer is 'AB'"),
        ("socialiqa", _social(ideal=""), "its answer is ''"),
        ("socialiqa", {"input": [], "ideal": "A"}, "list index out of range"),
        ("socialiqa", {"input": [{"content": 5}], "ideal": "A"}, "expected string"),
        ("socialiqa", _mmlu(), "KeyError 'input'"),
        ("mmlu", _mmlu("Two?\nA. 1\nB. 2\nC. 3\nAnswer:"), "once each"),
        ("mmlu", _mmlu("Two?\nA. 1\nB. 2\nC. 3\nD. 4"), "at the end"),
        ("mmlu", _mmlu("Two?\nA. 1\nB. 2\nA. 1\nC. 3\nD. 4\nAnswer:"), "once each"),
        ("mmlu", _mmlu(answer="E"), "its answer is 'E'"),
        ("mmlu", _mmlu(answer=1), "its answer is 1"),
        ("mmlu", ["no", "object"], "list indices"),
        ("hellaswag", _swag(label=""), "its answer is '' and not one of 0, 1, 2, 3"),
        ("hellaswag", _swag(label=4), "its answer is 4"),
        ("hellaswag", _swag(label=-1), "its answer is -1"),
        ("hellaswag", _swag(endings=["a", "[step]", "c", "d"]), "an empty ending"),
        ("hellaswag", _swag(endings=["a", 2, "c", "d"]), "has no attribute"),
        ("hellaswag", _swag(ctx_b=None), "has no attribute"),
        ("hellaswag", _swag(endings=None), "not iterable"),
    ],
)
def test_a_question_that_cannot_be_read_is_refused_with_its_line(
    tmp_path: Path, form: str, record: Any, reason: str
) -> None:
    path = _write(tmp_path / "lines.jsonl", [FORMS[form](), FORMS[form](), record, FORMS[form]()])
    sentence = _refusal(path, form)
    assert "line 3 of lines.jsonl" in sentence
    assert f"can't be read as {form}" in sentence
    assert reason in sentence


@pytest.mark.parametrize("content", [b"plain words", b'{"question": "a', b'"\xff\xfe"', b"[1, 2"])
def test_a_line_that_is_not_json_is_refused_with_its_number(tmp_path: Path, content: bytes) -> None:
    path = _write(tmp_path / "lines.jsonl", [_mmlu()])
    path.write_bytes(path.read_bytes() + b"\n" + content)
    assert "line 3 of lines.jsonl" in _refusal(path, "mmlu")


def test_a_row_of_parquet_that_cannot_be_read_is_refused_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pd.DataFrame([_swag(label="3"), _swag(label="")]).to_parquet(path)
    assert "row 2 of rows.parquet" in _refusal(path, "hellaswag")
    path.write_bytes(path.read_bytes()[:-20])
    assert "rows.parquet" in _refusal(path, "hellaswag")


@pytest.mark.parametrize("records", [[], [_social()]])
def test_fewer_than_two_questions_are_refused(tmp_path: Path, records: list[Any]) -> None:
    sentence = _refusal(_write(tmp_path / "few.jsonl", records), "socialiqa")
    assert "few.jsonl holds fewer than 2 questions" in sentence


def test_a_pinned_file_is_read_and_any_other_content_is_refused_unread(tmp_path: Path) -> None:
    path = _write(tmp_path / "lines.jsonl", [_mmlu(), _mmlu()])
    pinned = hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(_fetch(path, "mmlu", file_sha256=pinned)) == 8
    path.write_text("not even JSON")
    assert "lines.jsonl of question set 'quiz' does not match its pinned hash" in _refusal(
        path, "mmlu", file_sha256=pinned
    )


def test_a_missing_file_is_refused_naming_the_key(tmp_path: Path) -> None:
    assert "`question_sets.quiz.path`" in _refusal(tmp_path / "absent.jsonl", "mmlu")
