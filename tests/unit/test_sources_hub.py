"""The hub path: the real client against a small server on loopback that holds, withholds, breaks and lies."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hub_server import COMMIT, HubClient, HubServer
from tests.tiny import tiny_checkpoint

OTHER_COMMIT = "0" * 40
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def model_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a tiny model as its repository holds them, beside some that must never be fetched."""
    folder = tiny_checkpoint(tmp_path_factory.mktemp("published"))
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    files |= {
        "pytorch_model.bin": b"a pickle",
        "modeling_tiny.py": b"raise SystemExit",
        "README.md": b"# Tiny",
    }
    return files | {"onnx/config.json": b"{}", "consolidated.safetensors": files[WEIGHTS]}


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def offline(hub: HubServer, home: Path) -> Iterator[HubClient]:
    """A client that shares the cache of `online`, with the network switched off."""
    with HubClient(hub, home, offline=True) as client:
        yield client


@pytest.fixture(scope="module")
def online(hub: HubServer, home: Path, offline: HubClient) -> Iterator[HubClient]:
    """A client of the stand-in hub; it asks for `offline` so that both import at the same time."""
    with HubClient(hub, home) as client:
        yield client


def _entry(name: str, revision: str = COMMIT, **more: Any) -> dict[str, Any]:
    return {"source": "hub", "id": name, "revision": revision, **more}


def _fetch(client: HubClient, folder: Path, name: str, **more: Any) -> dict[str, Any]:
    answer = client.call("checkpoint", "tiny", _entry(name, **more), str(folder / "checkpoint"))
    assert "files" in answer, answer
    return answer


def _sentence(answer: dict[str, Any]) -> str:
    assert answer.get("kind") == "InferometerError", answer
    sentence: str = answer["sentence"]
    assert "\n" not in sentence
    assert sentence.endswith(".")
    return sentence


def _refusal(client: HubClient, folder: Path, name: str, **more: Any) -> str:
    """The sentence with which a model is refused; nothing may be left behind where it should have stood."""
    answer = client.call("checkpoint", "tiny", _entry(name, **more), str(folder / "checkpoint"))
    assert list(folder.iterdir()) == []
    return _sentence(answer)


def _corrupt(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def test_a_model_comes_at_its_pinned_revision_with_configuration_tokenizer_and_safetensors_only(
    hub: HubServer, online: HubClient, model_files: dict[str, bytes], tmp_path: Path
) -> None:
    name = "org/whole"
    hub.add(name, model_files)
    answer = _fetch(online, tmp_path, name)
    wanted = {WEIGHTS, "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"}
    assert answer["origin"] == f"hub {name} at {COMMIT}"
    assert answer["files"] == {file: hashlib.sha256(model_files[file]).hexdigest() for file in wanted}
    assert {path.name for path in (tmp_path / "checkpoint").iterdir()} == wanted
    assert all((tmp_path / "checkpoint" / file).read_bytes() == model_files[file] for file in wanted)
    assert (online.snapshot(name) / WEIGHTS).resolve().name == answer["files"][WEIGHTS]
    assert all(COMMIT in request for request in hub.asked(name))
    assert {request.split("/")[-1] for request in hub.asked(name) if "/resolve/" in request} == wanted


def test_a_cached_model_is_used_again_without_a_request_and_offline(
    hub: HubServer, online: HubClient, offline: HubClient, model_files: dict[str, bytes], tmp_path: Path
) -> None:
    name = "org/cached"
    hub.add(name, model_files)
    first = _fetch(online, tmp_path, name)
    requests = hub.asked(name)
    assert requests
    assert _fetch(online, tmp_path, name) == first
    assert _fetch(offline, tmp_path, name) == first
    assert hub.asked(name) == requests


def test_a_model_that_is_not_cached_is_refused_offline_with_what_to_do(
    hub: HubServer, offline: HubClient, model_files: dict[str, bytes], tmp_path: Path
) -> None:
    hub.add("org/never-fetched", model_files)
    sentence = _refusal(offline, tmp_path, "org/never-fetched")
    assert "org/never-fetched" in sentence
    assert "connect to the hub once" in sentence
    assert hub.asked("org/never-fetched") == []


def test_a_model_cached_in_part_is_refused_offline(
    hub: HubServer, online: HubClient, offline: HubClient, model_files: dict[str, bytes], tmp_path: Path
) -> None:
    name = "org/partly-cached"
    hub.add(name, model_files)
    _fetch(online, tmp_path, name)
    weights = online.snapshot(name) / WEIGHTS
    weights.resolve().unlink()
    weights.unlink()
    (tmp_path / "again").mkdir()
    assert "not whole in the local cache" in _refusal(offline, tmp_path / "again", name)


def test_a_reset_connection_is_said_in_a_sentence_and_the_next_call_succeeds(
    hub: HubServer, online: HubClient, model_files: dict[str, bytes], tmp_path: Path
) -> None:
    name = "org/reset"
    repository = hub.add(name, model_files)
    repository.faults[WEIGHTS] = "reset"
    sentence = _refusal(online, tmp_path, name)
    assert f"the download of {name} at revision {COMMIT} broke off" in sentence
    assert "run again" in sentence
    assert not list(online.snapshot(name).parents[1].rglob("*.incomplete"))
    repository.faults.clear()
    assert _fetch(online, tmp_path, name)["files"][WEIGHTS] == hashlib.sha256(model_files[WEIGHTS]).hexdigest()


def test_a_transfer_that_ends_early_is_taken_up_where_it_stopped(
    hub: HubServer, online: HubClient, model_files: dict[str, bytes], tmp_path: Path
) -> None:
    name = "org/early-end"
    repository = hub.add(name, model_files)
    repository.faults[WEIGHTS] = "early end"
    answer = _fetch(online, tmp_path, name)
    assert answer["files"][WEIGHTS] == hashlib.sha256(model_files[WEIGHTS]).hexdigest()
    assert len([r for r in hub.asked(name) if r.startswith("GET /store") and r.endswith(WEIGHTS)]) == 2


@pytest.mark.parametrize("file", [WEIGHTS, "config.json", "tokenizer.json"])
def test_content_that_does_not_match_its_stated_hash_is_refused_and_removed(
    hub: HubServer, online: HubClient, model_files: dict[str, bytes], tmp_path: Path, file: str
) -> None:
    name = f"org/other-bytes-in-{file}"
    repository = hub.add(name, model_files)
    repository.faults[file] = "other bytes"
    sentence = _refusal(online, tmp_path, name)
    assert f"{file} of {name} does not match the hash that the hub states" in sentence
    cached = online.snapshot(name) / file
    assert not cached.is_symlink()
    assert not any(blob.read_bytes()[1:] == model_files[file][1:] for blob in (cached.parents[2] / "blobs").iterdir())
    repository.faults.clear()
    assert _fetch(online, tmp_path, name)["files"][file] == hashlib.sha256(model_files[file]).hexdigest()


@pytest.mark.parametrize("file", [WEIGHTS, "config.json"])
def test_a_cached_copy_that_was_damaged_since_is_refused_removed_and_fetched_anew(
    hub: HubServer,
    online: HubClient,
    offline: HubClient,
    model_files: dict[str, bytes],
    tmp_path: Path,
    file: str,
) -> None:
    name = f"org/rotten-{file}"
    hub.add(name, model_files)
    first = _fetch(online, tmp_path, name)
    cached = online.snapshot(name) / file
    _corrupt(cached)
    (tmp_path / "again").mkdir()
    assert "the damaged copy was removed" in _refusal(offline, tmp_path / "again", name)
    assert not cached.is_symlink()
    assert _fetch(online, tmp_path, name) == first


def test_a_blob_in_the_store_that_repositories_share_is_verified_by_the_repository_s_own_name_for_it(
    hub: HubServer, online: HubClient, model_files: dict[str, bytes], tmp_path: Path
) -> None:
    name = "org/shared"
    hub.add(name, model_files)
    first = _fetch(online, tmp_path, name)
    cached = online.snapshot(name) / WEIGHTS
    blob, shared = cached.resolve(), online.cache / "blobs" / "ab" / ("ab" * 32)
    shared.parent.mkdir(parents=True)
    blob.rename(shared)
    blob.symlink_to(Path("../../blobs/ab") / shared.name)
    assert _fetch(online, tmp_path, name) == first
    _corrupt(shared)
    (tmp_path / "again").mkdir()
    assert "does not match the hash" in _refusal(online, tmp_path / "again", name)
    assert not any(path.is_symlink() or path.exists() for path in (cached, blob, shared))


def test_a_cache_without_links_can_not_be_verified_and_is_refused(
    hub: HubServer, online: HubClient, model_files: dict[str, bytes], tmp_path: Path
) -> None:
    name = "org/copied"
    hub.add(name, model_files)
    _fetch(online, tmp_path, name)
    cached = online.snapshot(name) / WEIGHTS
    cached.unlink()
    cached.write_bytes(model_files[WEIGHTS])
    (tmp_path / "again").mkdir()
    sentence = _refusal(online, tmp_path / "again", name)
    assert "can't be verified" in sentence
    assert "HF_HOME" in sentence


@pytest.mark.parametrize("status", [401, 403])
def test_a_gated_model_is_refused_with_what_to_do(
    hub: HubServer, online: HubClient, model_files: dict[str, bytes], tmp_path: Path, status: int
) -> None:
    name = f"org/gated-{status}"
    hub.add(name, model_files).refusal = (status, "GatedRepo")
    sentence = _refusal(online, tmp_path, name)
    assert f"{name} is gated" in sentence
    assert "accept its terms" in sentence
    assert "hf auth login" in sentence


def test_an_unknown_repository_is_refused_naming_id(online: HubClient, tmp_path: Path) -> None:
    sentence = _refusal(online, tmp_path, "org/nowhere")
    assert "no repository org/nowhere" in sentence
    assert "`id`" in sentence


def test_an_impossible_repository_name_is_refused_naming_id(online: HubClient, tmp_path: Path) -> None:
    sentence = _refusal(online, tmp_path, "org/two--dashes")
    assert "org/two--dashes" in sentence
    assert "`id`" in sentence


def test_an_unknown_revision_is_refused_naming_it(
    hub: HubServer, online: HubClient, model_files: dict[str, bytes], tmp_path: Path
) -> None:
    hub.add("org/moved", model_files)
    sentence = _refusal(online, tmp_path, "org/moved", revision=OTHER_COMMIT)
    assert f"org/moved has no revision {OTHER_COMMIT}" in sentence
    assert "`revision`" in sentence


def test_a_repository_without_config_json_is_refused_naming_the_file(
    hub: HubServer, online: HubClient, model_files: dict[str, bytes], tmp_path: Path
) -> None:
    name = "org/no-config"
    hub.add(name, {file: content for file, content in model_files.items() if file != "config.json"})
    assert f"{name} at revision {COMMIT} has no config.json" in _refusal(online, tmp_path, name)


def test_a_refusal_of_another_kind_is_passed_on(
    hub: HubServer, online: HubClient, model_files: dict[str, bytes], tmp_path: Path
) -> None:
    hub.add("org/forbidden", model_files).refusal = (403, "TokenLacksPermission")
    sentence = _refusal(online, tmp_path, "org/forbidden")
    assert "org/forbidden" in sentence
    assert "403" in sentence


def test_a_repository_of_pickles_only_is_refused_and_no_pickle_is_asked_for(
    hub: HubServer, online: HubClient, model_files: dict[str, bytes], tmp_path: Path
) -> None:
    name = "org/pickles"
    hub.add(name, {file: content for file, content in model_files.items() if not file.endswith(".safetensors")})
    assert "pickled weights are never read" in _refusal(online, tmp_path, name)
    assert not [request for request in hub.asked(name) if request.endswith((".bin", ".py"))]


def test_pickles_and_code_that_another_program_left_in_the_cache_are_not_taken(
    hub: HubServer, online: HubClient, model_files: dict[str, bytes], tmp_path: Path
) -> None:
    name = "org/visited"
    hub.add(name, model_files)
    for file in ("pytorch_model.bin", "modeling_tiny.py", "consolidated.safetensors"):
        assert "path" in online.call("file", name, file)
    files = _fetch(online, tmp_path, name)["files"]
    assert {Path(file).suffix for file in files} == {".json", ".safetensors"}
    assert "consolidated.safetensors" not in files


def test_a_model_that_is_not_causal_is_refused_before_its_weights_are_downloaded(
    hub: HubServer, online: HubClient, model_files: dict[str, bytes], tmp_path: Path
) -> None:
    name = "org/masked"
    config = {"model_type": "bert", "architectures": ["BertForMaskedLM"], "hidden_size": 32}
    hub.add(name, {**model_files, "config.json": json.dumps(config).encode()})
    sentence = _refusal(online, tmp_path, name)
    assert "model 'tiny' is not a causal language model" in sentence
    assert "BertForMaskedLM" in sentence
    assert {request.split("/")[-1] for request in hub.asked(name)} == {"config.json"}


def test_a_model_that_needs_its_own_code_is_refused_and_its_code_is_not_asked_for(
    hub: HubServer, online: HubClient, model_files: dict[str, bytes], tmp_path: Path
) -> None:
    name = "org/own-code"
    code = {"AutoConfig": "modeling_tiny.TinyConfig", "AutoModelForCausalLM": "modeling_tiny.Tiny"}
    config = {"model_type": "tiny_of_its_own", "auto_map": code}
    hub.add(name, {**model_files, "config.json": json.dumps(config).encode()})
    assert "without running foreign code" in _refusal(online, tmp_path, name)
    assert {request.split("/")[-1] for request in hub.asked(name)} == {"config.json"}


def test_a_pin_of_the_user_s_own_holds_and_is_checked(
    hub: HubServer, online: HubClient, model_files: dict[str, bytes], tmp_path: Path
) -> None:
    name = "org/pinned"
    hub.add(name, model_files)
    pins = {file: hashlib.sha256(model_files[file]).hexdigest() for file in (WEIGHTS, "config.json")}
    _fetch(online, tmp_path, name, sha256=pins)
    (tmp_path / "again").mkdir()
    sentence = _refusal(online, tmp_path / "again", name, sha256={**pins, WEIGHTS: "0" * 64})
    assert f"{WEIGHTS} of {name} does not match its pinned hash" in sentence
    sentence = _refusal(online, tmp_path / "again", name, sha256={"model-2.safetensors": "0" * 64})
    assert "has no model-2.safetensors" in sentence


def test_a_pinned_config_is_checked_before_it_is_opened(
    hub: HubServer, online: HubClient, model_files: dict[str, bytes], tmp_path: Path
) -> None:
    name = "org/pinned-config"
    hub.add(name, {**model_files, "config.json": b"not even JSON"})
    sentence = _refusal(online, tmp_path, name, sha256={"config.json": "0" * 64})
    assert f"config.json of {name} does not match its pinned hash" in sentence


def test_a_part_that_the_index_names_and_the_repository_lacks_is_named(
    hub: HubServer, online: HubClient, model_files: dict[str, bytes], tmp_path: Path
) -> None:
    name = "org/one-part"
    parts = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = {"metadata": {}, "weight_map": {"a": parts[0], "b": parts[1]}}
    files = {file: content for file, content in model_files.items() if file != WEIGHTS}
    files |= {parts[0]: model_files[WEIGHTS], f"{WEIGHTS}.index.json": json.dumps(index).encode()}
    hub.add(name, files)
    assert f"lacks {parts[1]}, which {WEIGHTS}.index.json names" in _refusal(online, tmp_path, name)


def _corpus_entry(name: str, content: bytes, **more: Any) -> dict[str, Any]:
    pinned = hashlib.sha256(content).hexdigest()
    entry = _entry(name, file="data/test.jsonl", file_sha256=pinned, format="jsonl", text_key="text")
    return {**entry, **more}


def test_a_corpus_comes_from_a_dataset_repository_at_its_pinned_revision(
    hub: HubServer, online: HubClient, offline: HubClient
) -> None:
    content = b'{"text": "one"}\n{"text": "two"}\n'
    hub.add("org/texts", {"data/test.jsonl": content, "texts.py": b"raise SystemExit"}, "datasets")
    entry = _corpus_entry("org/texts", content)
    assert online.call("corpus", "small", entry) == {"texts": ["one", "two"]}
    requests = hub.asked("org/texts")
    assert {request.split(" ")[1] for request in requests} == {f"/datasets/org/texts/resolve/{COMMIT}/data/test.jsonl"}
    assert offline.call("corpus", "small", entry) == {"texts": ["one", "two"]}
    assert hub.asked("org/texts") == requests


def test_a_corpus_from_the_hub_is_held_against_both_hashes(hub: HubServer, online: HubClient) -> None:
    content = b'{"text": "one"}\n'
    repository = hub.add("org/lying-texts", {"data/test.jsonl": content}, "datasets")
    entry = _corpus_entry("org/lying-texts", content)
    repository.faults["data/test.jsonl"] = "other bytes"
    assert "does not match the hash that the hub states" in _sentence(online.call("corpus", "small", entry))
    repository.faults.clear()
    wrong = {**entry, "file_sha256": "0" * 64}
    sentence = _sentence(online.call("corpus", "small", wrong))
    assert "test.jsonl of corpus 'small' does not match its pinned hash" in sentence


def test_a_file_that_a_dataset_repository_lacks_is_named(hub: HubServer, online: HubClient) -> None:
    hub.add("org/other-texts", {"README.md": b"# Texts"}, "datasets")
    sentence = _sentence(online.call("corpus", "small", _corpus_entry("org/other-texts", b"")))
    assert f"org/other-texts at revision {COMMIT} has no data/test.jsonl" in sentence
