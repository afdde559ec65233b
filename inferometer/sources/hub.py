"""Files of a Hugging Face repository at a pinned revision, each checked against the digest that the hub states.

The hub names every cached file by its digest: SHA-256 for large files, the git object id for small ones. So a
cached copy is verified as strictly as a fresh download, without a network.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from inferometer.errors import InferometerError
from inferometer.files import git_blob_sha1_of, sha256_of, verify_sha256

MODEL_FILES = ["*.json", "*.safetensors", "tokenizer.model", "merges.txt", "vocab.txt", "chat_template.jinja"]
SHA1_DIGITS = 40
SHA256_DIGITS = 64


@contextmanager
def _said_in_a_sentence(repository: str, revision: str) -> Iterator[None]:
    where = f"{repository} at revision {revision}"
    try:
        yield
    except GatedRepoError as error:
        raise InferometerError(
            f"{repository} is gated: accept its terms on its page on the hub, then log in with `hf auth login` "
            "or set HF_TOKEN, and run again."
        ) from error
    except RepositoryNotFoundError as error:
        raise InferometerError(
            f"the hub knows no repository {repository}, or hides it from you; check `id`, "
            "or log in with `hf auth login` if it is private."
        ) from error
    except RevisionNotFoundError as error:
        raise InferometerError(f"{repository} has no revision {revision}; check `revision`.") from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise InferometerError(
            f"{where} is not whole in the local cache and the hub can't be reached; connect once and run again."
        ) from error
    except EntryNotFoundError as error:
        raise InferometerError(f"{where} lacks a file that is needed: {str(error).splitlines()[-1]}") from error
    except (HfHubHTTPError, httpx.HTTPError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InferometerError(
            f"the download of {where} broke off: {reason}; run again, it goes on where it stopped."
        ) from error


def _verify(path: Path, what: str) -> None:
    """Hold a cached file against the digest that the hub gave it; a file that fails is removed from the cache."""
    blob = path.resolve()
    expected = blob.name
    if len(expected) == SHA256_DIGITS:
        actual = sha256_of(blob)
    elif len(expected) == SHA1_DIGITS:
        actual = git_blob_sha1_of(blob)
    else:
        raise InferometerError(
            f"the hub's cache at {path} does not name files by their digest, so {what} can't be verified; "
            "put the cache (HF_HOME) on a file system with symbolic links."
        )
    if actual != expected:
        blob.unlink()
        path.unlink(missing_ok=True)
        raise InferometerError(
            f"{what} does not match the hash that the hub states for it (expected {expected}, got {actual}); "
            "the damaged copy was removed, run again to fetch it anew."
        )


def fetch_file(repository: str, revision: str, file: str, *, dataset: bool = False) -> Path:
    """One file of a repository at a pinned commit, downloaded or from the cache, verified.

    Raises InferometerError with what to do about it.
    """
    with _said_in_a_sentence(repository, revision):
        path = Path(
            hf_hub_download(repository, file, revision=revision, repo_type="dataset" if dataset else "model")
        )
    _verify(path, f"{file} of {repository}")
    return path


def fetch_model_files(repository: str, revision: str, pinned: Mapping[str, str]) -> list[Path]:
    """The configuration, tokenizer and safetensors of a model at a pinned commit, verified.

    `pinned` maps file names to SHA-256 digests of the user's own that must hold as well. Pickled weights and
    code are never asked for. Raises InferometerError with what to do about it.
    """
    with _said_in_a_sentence(repository, revision):
        folder = Path(
            snapshot_download(repository, revision=revision, allow_patterns=MODEL_FILES, ignore_patterns=["*/*"])
        )
    files = sorted(path for path in folder.iterdir() if path.is_file())
    for path in files:
        _verify(path, f"{path.name} of {repository}")
    names = {path.name for path in files}
    for name, digest in pinned.items():
        if name not in names:
            raise InferometerError(f"{repository} at revision {revision} has no {name}, which `sha256` pins.")
        verify_sha256(folder / name, digest, f"{name} of {repository}")
    return files
