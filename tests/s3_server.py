"""moto's S3 server in a process of its own, behind a gate that counts what is asked and answered, and makes faults.

``GET /control`` tells what was asked, ``POST /control`` sets faults: a list of ``{"match": REGEX, "kind": KIND,
"times": N}`` on method and path, the first that matches strikes. Kinds: ``status`` (with ``status`` and the S3
``code``), ``no-ranges`` (the header Range is passed over, as by a server that knows none) and ``cut`` (half an answer).
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from tests.hub_server import Server, started

Answer = Callable[..., Any]


class Gate:
    """A WSGI application around another."""

    def __init__(self, application: Callable[[dict[str, Any], Answer], Iterable[bytes]]) -> None:
        self._application = application
        self._requests: list[dict[str, Any]] = []
        self._faults: list[dict[str, Any]] = []
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], answer: Answer) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if path == "/control":
            return self._control(environ, answer)
        entry = {"method": method, "path": path, "range": environ.get("HTTP_RANGE"), "status": 0, "bytes": 0}
        with self._lock:
            self._requests.append(entry)
            fault = self._fault(f"{method} {path}")
        if fault.get("kind") == "status":
            entry["status"] = fault["status"]
            body = f"<Error><Code>{fault['code']}</Code><Message>{fault['code']} by order</Message></Error>".encode()
            headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))]
            answer(f"{fault['status']} By order", headers)
            return [body] if method != "HEAD" else []
        if fault.get("kind") == "no-ranges":
            environ.pop("HTTP_RANGE", None)

        def noted(status: str, headers: list[tuple[str, str]], *more: object) -> object:
            entry["status"] = int(status.split(maxsplit=1)[0])
            return answer(status, headers, *more)

        body = b"".join(self._application(environ, noted))
        sent = body[: len(body) // 2] if fault.get("kind") == "cut" else body
        entry["bytes"] = len(sent)
        return [sent]

    def _fault(self, request: str) -> dict[str, Any]:
        for fault in self._faults:
            if fault["times"] > 0 and re.search(fault["match"], request):
                fault["times"] -= 1
                return fault
        return {}

    def _control(self, environ: dict[str, Any], answer: Answer) -> Iterable[bytes]:
        with self._lock:
            if environ["REQUEST_METHOD"] == "POST":
                self._faults = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
                self._requests = []
            body = json.dumps(self._requests).encode()
        answer("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]


@contextmanager
def serving() -> Iterator[Server]:
    """The server, as long as the context lasts; without buckets."""
    with started([sys.executable, "-m", "tests.s3_server"]) as server:
        yield server


def main() -> None:
    """Serve on a free port, which is printed first."""
    application = Gate(DomainDispatcherApplication(create_backend_app))
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, application, threaded=True)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
