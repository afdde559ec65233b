"""A stand-in for the model hub on loopback, and a process whose real hub client talks to it.

The server answers what huggingface_hub asks for: the revision and tree of a repository, and HEAD and GET of
its files, large ones by way of a redirect to a store as the hub does it. The client reads HF_ENDPOINT when it
is imported, so it lives in a process of its own, started once for many calls.
"""

import hashlib
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal, Self, cast
from urllib.parse import unquote, urlsplit

from tests.loopback import LoopbackServer, QuietHandler

COMMIT = "c0ffee" + "0" * 34
LARGE_FILES = (".safetensors", ".bin", ".parquet")
Fault = Literal["reset", "early end", "other bytes"]


def git_sha1(content: bytes) -> str:
    """The object id that git gives this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


@dataclass
class Repository:
    """What the hub holds under one name, and how it misbehaves.

    `faults` says of a file that its transfer is reset in the middle, ends early once, or brings other bytes
    than its digest promises. `refusal` is a status with the hub's code for it, for every file.
    """

    files: dict[str, bytes]
    faults: dict[str, Fault] = field(default_factory=dict)
    refusal: tuple[int, str] | None = None


class HubServer(LoopbackServer):
    """Repositories under paths such as `models/org/name` or `datasets/org/name`, all at COMMIT."""

    def __init__(self) -> None:
        super().__init__(_Answer)
        self.repositories: dict[str, Repository] = {}
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        """The address to set HF_ENDPOINT to."""
        return f"http://{self.place}"

    def add(self, name: str, files: Mapping[str, bytes], kind: str = "models") -> Repository:
        """Publish a repository; returns it, so that a test can make it misbehave."""
        repository = Repository(dict(files))
        self.repositories[f"{kind}/{name}"] = repository
        return repository

    def asked(self, name: str) -> list[str]:
        """The requests about a repository so far, as method and path."""
        return [request for request in self.requests if f"/{name}/" in request]


class _Answer(QuietHandler):
    @property
    def _hub(self) -> HubServer:
        return cast(HubServer, self.server)

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _send(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, {"X-Error-Code": code, "X-Error-Message": code, "X-Repo-Commit": COMMIT})

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self._hub.requests.append(f"{self.command} {path}")
        parts = path.strip("/").split("/")
        listing, stored = parts[0] == "api", parts[0] == "store"
        parts = parts[1:] if listing or stored else parts
        if parts[0] not in ("models", "datasets"):
            parts = ["models", *parts]
        repository = self._hub.repositories.get("/".join(parts[:3]))
        if len(parts) < 5 or repository is None:
            self._refuse(HTTPStatus.UNAUTHORIZED, "RepoNotFound")
        elif parts[4] != COMMIT:
            self._refuse(HTTPStatus.NOT_FOUND, "RevisionNotFound")
        elif listing:
            self._list(repository, parts[3])
        elif repository.refusal is not None:
            self._refuse(*repository.refusal)
        elif (name := "/".join(parts[5:])) not in repository.files:
            self._refuse(HTTPStatus.NOT_FOUND, "EntryNotFound")
        elif name.endswith(LARGE_FILES) and not stored:
            content = repository.files[name]
            headers = {"X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
            store = self._hub.url.replace("127.0.0.1", "localhost")  # another host, as the hub's own store is
            headers |= {"X-Linked-Size": str(len(content)), "Location": f"{store}/store{path}"}
            self._send(HTTPStatus.FOUND, headers)
        else:
            self._send_file(repository, name)

    def _list(self, repository: Repository, endpoint: str) -> None:
        if endpoint == "revision":
            siblings = [{"rfilename": name} for name in repository.files]
            answer: Any = {"id": "stand-in", "sha": COMMIT, "siblings": siblings}
        else:
            answer = []
            for name, content in repository.files.items():
                entry: dict[str, Any] = {"type": "file", "path": name, "size": len(content)}
                entry["oid"] = git_sha1(content)
                if name.endswith(LARGE_FILES):
                    digest = hashlib.sha256(content).hexdigest()
                    entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 134}
                answer.append(entry)
        self._send(HTTPStatus.OK, {"Content-Type": "application/json"}, json.dumps(answer).encode())

    def _send_file(self, repository: Repository, name: str) -> None:
        content, fault = repository.files[name], repository.faults.get(name)
        headers = {"ETag": f'"{git_sha1(content)}"', "X-Repo-Commit": COMMIT}
        if self.command == "HEAD" or fault is None:
            start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
            if start:
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self._send(HTTPStatus.PARTIAL_CONTENT if start else HTTPStatus.OK, headers, content[start:])
        elif fault == "other bytes":
            self._send(HTTPStatus.OK, headers, bytes([content[0] ^ 1]) + content[1:])
        else:
            self._send(HTTPStatus.OK, {**headers, "Content-Length": str(len(content))}, content[: len(content) // 2])
            self.wfile.flush()
            self.close_connection = True
            if fault == "reset":  # closing with unsent data to linger for no time sends a reset, not an end
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
            else:
                del repository.faults[name]


class HubClient:
    """A process that fetches from a HubServer through the library, so through huggingface_hub as it is."""

    def __init__(self, server: HubServer, home: Path, *, offline: bool = False) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.upper().endswith("_PROXY")}
        kept.pop("HF_TOKEN", None)
        settings = {"HF_ENDPOINT": server.url, "HF_HOME": str(home), "HF_HUB_OFFLINE": str(int(offline))}
        settings |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        self.cache = home / "hub"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.hub_server"],
            cwd=Path(__file__).parents[1],
            env={**kept, **settings},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def call(self, what: str, *arguments: Any) -> dict[str, Any]:
        """Have one of CALLS made; returns its result, or the kind and text of its error."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([what, *arguments]) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def snapshot(self, name: str, kind: str = "models") -> Path:
        """Where the cache holds the files of a repository."""
        return self.cache / f"{kind}--{name.replace('/', '--')}" / "snapshots" / COMMIT

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()


def _serve_calls() -> None:
    """Make the calls that stand in stdin, one JSON list a line, and answer each by a line on stdout."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not mix with the answers

    from inferometer.sources.checkpoints import fetch_checkpoint
    from inferometer.sources.corpora import fetch_corpus
    from inferometer.sources.hub import fetch_file

    def checkpoint(name: str, entry: dict[str, Any], folder: str) -> dict[str, Any]:
        manifest = fetch_checkpoint(name, entry, Path(folder))
        return {"origin": manifest.origin, "files": {file.name: file.sha256 for file in manifest.files}}

    def corpus(name: str, entry: dict[str, Any]) -> dict[str, Any]:
        return {"texts": fetch_corpus(name, entry)["text"].tolist()}

    def file(repository: str, name: str) -> dict[str, Any]:
        return {"path": str(fetch_file(repository, COMMIT, name))}

    calls: dict[str, Callable[..., dict[str, Any]]]
    calls = {"checkpoint": checkpoint, "corpus": corpus, "file": file}
    for line in sys.stdin:
        what, *arguments = json.loads(line)
        try:
            answer = calls[what](*arguments)
        except Exception as error:
            answer = {"kind": type(error).__name__, "sentence": str(error)}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    _serve_calls()
