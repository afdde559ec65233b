"""A stand-in for a package index on loopback, over TLS, since pip keeps only what came that way."""

import ssl
import subprocess
from http import HTTPStatus
from pathlib import Path
from typing import cast

from tests.loopback import LoopbackServer, QuietHandler


class IndexServer(LoopbackServer):
    """The wheels of a folder, under `/simple/<package>/`; the next `altered` transfers of a wheel bring other bytes."""

    def __init__(self, wheels: Path, secrets: Path) -> None:
        """Make a certificate for the server in the folder `secrets`, with the openssl program."""
        super().__init__(_Answer)
        self.wheels, self.altered = wheels, 0
        key, certificate = secrets / "key.pem", secrets / "certificate.pem"
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
        subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self.socket = context.wrap_socket(self.socket, server_side=True)

    def settings(self, cache: Path) -> dict[str, str]:
        """Environment variables that make this pip's only index, with a cache of its own."""
        settings = {"INDEX_URL": f"https://{self.place}/simple", "TRUSTED_HOST": self.place, "CACHE_DIR": str(cache)}
        settings |= {"CONFIG_FILE": "/dev/null", "EXTRA_INDEX_URL": "", "FIND_LINKS": "", "RETRIES": "1"}
        return {**{f"PIP_{name}": value for name, value in settings.items()}, "NO_PROXY": "127.0.0.1,localhost"}


class _Answer(QuietHandler):
    def do_GET(self) -> None:
        index = cast(IndexServer, self.server)
        name = self.path.rstrip("/").split("/")[-1]
        headers = {"Content-Type": "text/html"}
        if name.endswith(".whl"):
            body = (index.wheels / name).read_bytes()
            # As PyPI says it: whoever has the file never needs to ask again.
            headers = {"Content-Type": "application/octet-stream", "Cache-Control": "max-age=365000000, immutable"}
            if index.altered:
                index.altered -= 1
                body = bytes([body[0] ^ 1]) + body[1:]
        else:
            wheels = sorted(path.name for path in index.wheels.glob(f"{name.replace('-', '_')}-*.whl"))
            body = "".join(f'<a href="/files/{wheel}">{wheel}</a>' for wheel in wheels).encode()
        self.send_response(HTTPStatus.OK)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)
