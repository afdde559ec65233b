"""Servers on loopback that stand in for others."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


class LoopbackServer(ThreadingHTTPServer):
    """A server on a free port of this machine, which answers for the length of a `with` block."""

    daemon_threads = True

    def __init__(self, answer: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), answer)
        self._thread = threading.Thread(target=self.serve_forever, daemon=True)

    @property
    def place(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class QuietHandler(BaseHTTPRequestHandler):
    """Answers without a word on standard error."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass
