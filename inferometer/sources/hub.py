"""Files of a Hugging Face repository at a pinned revision, each checked against the digest the hub states.

The hub names every cached file by its digest: SHA-256 for large files, the git object id for small ones. So a
cached copy is verified as strictly as a fresh download, without a network.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

import httpx2
from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from inferometer.errors import InferometerError
from inferometer.files import git_blob_sha1_of, sha256_of, verify_sha256
from inferometer.sources.reasons import reason_of

MODEL_FILES = ["*.json", "*.safetensors", "tokenizer.model", "merges.txt", "vocab.txt", "chat_template.jinja"]
# Not folders, nor the same weights a second time in their maker's own layout.
NOT_MODEL_FILES = ["*/*", "consolidated*"]
SHA1_DIGITS = 40
SHA256_DIGITS = 64


@contextmanager
def _said_in_a_sentence(repository: str, revision: str, file: str) -> Iterator[None]:
    where = f"{repository} at revision {revision}"
    try:
        yield
    except HFValidationError as error:
        raise InferometerError(f"{repository} can't be the name of a repository on the hub; check `id`.") from error
    except GatedRepoError as error:
        raise InferometerError(
            f"{repository} is gated: accept its terms on its page on the hub, then log in with "
            "`hf auth login` or set HF_TOKEN, and run again."
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
            f"{where} is not whole in the local cache and can't be completed ({reason_of(error)}); "
            "connect to the hub once and run again."
        ) from error
    except EntryNotFoundError as error:
        raise InferometerError(f"{where} has no {file}; check `id`, `revision` and the file's name.") from error
    except (HfHubHTTPError, httpx2.HTTPError, OSError) as error:
        raise InferometerError(
            f"the download of {where} broke off ({reason_of(error)}); run again, whole files are kept."
        ) from error


def _verify(path: Path, what: str) -> None:
    """Hold a cached file against the digest that the hub gave it; a file that fails leaves the cache.

    The digest is the name of the blob that the path links to. The blob may be a link itself, into a store
    that repositories share and that names files otherwise, so it is not followed for the name.
    """
    blob = path.parent / path.readlink() if path.is_symlink() else path
    expected = blob.name
    if len(expected) == SHA256_DIGITS:
        actual = sha256_of(path)
    elif len(expected) == SHA1_DIGITS:
        actual = git_blob_sha1_of(path)
    else:
        raise InferometerError(
            f"the hub's cache at {path} does not name files by their digest, so {what} can't be verified; "
            "put the cache (HF_HOME) on a file system with symbolic links."
        )
    if actual != expected:
        for damaged in (path.resolve(), blob, path):
            damaged.unlink(missing_ok=True)
        raise InferometerError(
            f"{what} does not match the hash that the hub states for it (expected {expected}, got {actual}); "
            "the damaged copy was removed, run again to fetch it anew."
        )


def fetch_file(repository: str, revision: str, file: str, pinned: str | None = None, *, dataset: bool = False) -> Path:
    """One file of a repository at a pinned commit, downloaded or from the cache, verified.

    `pinned` is a SHA-256 digest of the user's own that must hold as well. Raises InferometerError with what
    to do about it.
    """
    kind = "dataset" if dataset else "model"
    with _said_in_a_sentence(repository, revision, file):
        path = Path(hf_hub_download(repository, file, revision=revision, repo_type=kind))
    _verify(path, f"{file} of {repository}")
    if pinned is not None:
        verify_sha256(path, pinned, f"{file} of {repository}")
    return path


def fetch_model_files(repository: str, revision: str, pinned: Mapping[str, str]) -> list[Path]:
    """The configuration, tokenizer and safetensors of a model at a pinned commit, verified.

    `pinned` maps file names to SHA-256 digests of the user's own that must hold as well. Pickled weights and
    code are never asked for, nor taken where they lie in the cache. Raises InferometerError with what to do.
    """
    with _said_in_a_sentence(repository, revision, "file that its own list names"):
        folder = Path(
            snapshot_download(
                repository, revision=revision, allow_patterns=MODEL_FILES, ignore_patterns=NOT_MODEL_FILES
            )
        )
    files = sorted(
        path
        for path in folder.iterdir()
        if path.is_file()
        and any(fnmatch(path.name, pattern) for pattern in MODEL_FILES)
        and not any(fnmatch(path.name, pattern) for pattern in NOT_MODEL_FILES)
    )
    for path in files:
        _verify(path, f"{path.name} of {repository}")
    names = {path.name for path in files}
    for name, digest in pinned.items():
        if name not in names:
            raise InferometerError(f"{repository} at revision {revision} has no {name}, which `sha256` pins.")
        verify_sha256(folder / name, digest, f"{name} of {repository}")
    return files
