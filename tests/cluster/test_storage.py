"""Results in an object store, by a real S3 server on this machine; and what Kubernetes would be given."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.conftest import Local, assert_same_tables, ended, profiled, start, tables

PATIENCE_S = 60
BUCKET, PREFIX = "results-of-many", "tiny"
TARGET = "evaluation"  # a chapter that ends in figures
NEEDED = ("boto3", "moto", "snakemake_executor_plugin_kubernetes", "snakemake_storage_plugin_s3")
MISSING = [name for name in NEEDED if find_spec(name) is None]

pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif(MISSING != [], reason=f"{', '.join(MISSING)} not installed (make test-cluster installs them)"),
]


@dataclass(frozen=True)
class Store:
    """A running server and its one key."""

    endpoint: str
    key: str = "testing"

    @property
    def environment(self) -> dict[str, str]:
        """The keys, as users give them to Snakemake."""
        return {"SNAKEMAKE_STORAGE_S3_ACCESS_KEY": self.key, "SNAKEMAKE_STORAGE_S3_SECRET_KEY": self.key}

    @property
    def options(self) -> list[str]:
        """Where results lie, as users say it to Snakemake."""
        return [
            *("--default-storage-provider", "s3", "--default-storage-prefix", f"s3://{BUCKET}/{PREFIX}"),
            *("--storage-s3-endpoint-url", self.endpoint),
        ]

    def download(self, folder: Path) -> Path:
        """Fetch all that was stored below the prefix, by a client that is not Snakemake's; returns `folder`."""
        import boto3

        s3: Any = boto3.resource(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=self.key,
            aws_secret_access_key=self.key,
        )
        for item in s3.Bucket(BUCKET).objects.filter(Prefix=f"{PREFIX}/"):
            path = folder / item.key.removeprefix(f"{PREFIX}/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(item.get()["Body"].read())
        return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """An S3 server on a free port of this machine, ended by its process."""
    log = tmp_path_factory.mktemp("store") / "log"
    with log.open("wb") as sink:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
        server = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    try:
        end = time.monotonic() + PATIENCE_S
        while not (found := re.search(r"Running on (http://127\.0\.0\.1:\d+)", log.read_text(encoding="utf-8"))):
            assert server.poll() is None, log.read_text(encoding="utf-8")
            assert time.monotonic() < end, "the S3 server did not start"
            time.sleep(0.1)
        yield Store(found.group(1))
    finally:
        server.kill()
        server.wait()


def test_a_chapter_in_an_object_store_has_the_tables_of_a_local_run_and_is_not_made_twice(
    local: Local, store: Store, tmp_path: Path
) -> None:
    study, log = local.again(tmp_path / "study"), tmp_path / "log"
    command = study.command(*store.options, targets=[TARGET])
    outcome = ended(start(study, command, store.environment, log), log)
    assert outcome.status == 0, outcome.output
    results = store.download(tmp_path / "stored") / "results"
    names = tables(results)
    chapter = {name for name in tables(local.study.results) if name.startswith("tiny/evaluation/")}
    assert chapter <= names
    assert_same_tables(results, local.study.results, names)
    assert (results / "summary/pareto.svg").read_text(encoding="utf-8").startswith("<?xml")
    assert tables(study.folder) == set(), "results also stayed on this machine"
    again = ended(start(study, command, store.environment, log), log)
    assert "Nothing to be done" in again.output, again.output


def test_a_dry_run_for_kubernetes_needs_no_cluster(local: Local, store: Store, tmp_path: Path) -> None:
    study, log = local.again(tmp_path / "study"), tmp_path / "log"
    command = profiled(
        study, "kubernetes", "--storage-s3-endpoint-url", store.endpoint, "--dry-run", targets=["results/report.html"]
    )
    outcome = ended(start(study, command, store.environment, log), log)
    assert outcome.status == 0, outcome.output
    [evaluated] = re.findall(r"^ *rule evaluate_reference:\n(?: .*\n)+", outcome.output, flags=re.MULTILINE)
    assert "s3://inferometer/study/results/tiny/evaluation/fp/run.parquet (send to storage)" in evaluated
    assert re.search(
        r"mem_mb=6000,.* runtime=240, gpu_manufacturer=nvidia, scale=0, gpu=1$", evaluated, flags=re.MULTILINE
    )
