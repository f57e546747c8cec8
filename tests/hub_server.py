"""A server for tests and figures, a process of its own: the hub's API and a plain file server, with faults on demand.

``/api/models/ORG/NAME/...`` and ``/ORG/NAME/resolve/REV/FILE`` as the hub answers them, the latter with a redirect to
``/cdn/...`` for large files; ``/files/...`` as a plain web server. ``GET /control`` tells what was asked, ``POST
/control`` sets faults: a list of ``{"match": REGEX, "kind": KIND, "times": N, ...}``, the first that matches strikes.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from tests.places import REPOSITORY

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = 1 << 14  # bytes from which a file is served by the "CDN"


def _tag(path: Path) -> str:
    status = path.stat()
    return hashlib.sha256(f"{path.name} {status.st_size} {status.st_mtime_ns}".encode()).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    root: Path
    faults: list[dict[str, Any]]
    requests: list[dict[str, Any]]
    lock: threading.Lock

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        pass

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path == "/control":
            self._send(200, json.dumps(self.requests).encode())
            return
        self.entry: dict[str, Any] = {"path": self.path, "range": self.headers.get("Range"), "bytes": 0, "status": 0}
        self.entry["authorization"] = self.headers.get("Authorization")
        with self.lock:
            self.requests.append(self.entry)
            fault = self._fault()
        if fault is not None and self._strike(fault):
            return
        self.fault = fault or {}
        parts = path.strip("/").split("/")
        if path.startswith("/api/models/"):
            self._api(parts[2:])
        elif path.startswith("/cdn/"):
            self._file(self.root / "/".join(parts[1:]), {})
        elif path.startswith("/files/"):
            self._plain(self.root / "/".join(parts[1:]))
        elif len(parts) > 4 and parts[2] == "resolve":
            self._resolve(parts[:2], parts[3], "/".join(parts[4:]))
        else:
            self._error(404, "EntryNotFound")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self.faults[:] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.requests.clear()
        self._send(200, b"{}")

    def _fault(self) -> dict[str, Any] | None:
        for fault in self.faults:
            if re.search(fault["match"], self.path) and fault.get("times", 1) != 0:
                fault["times"] = fault.get("times", 1) - 1
                return fault
        return None

    def _strike(self, fault: dict[str, Any]) -> bool:
        kind = fault["kind"]
        if kind == "status":
            self._send(fault["status"], fault.get("body", "").encode(), fault.get("headers", {}))
        elif kind == "hang":
            time.sleep(fault.get("seconds", 5))
            self.close_connection = True
        elif kind == "drop":
            self.close_connection = True
        elif kind == "redirect":
            self._send(302, b"", {"Location": fault["to"]})
        else:
            return False
        return True

    # ------------------------------------------------------------------------------------------------------ the hub
    def _api(self, parts: list[str]) -> None:
        folder = self.root / "/".join(parts[:2])
        if not folder.is_dir():
            self._error(404, "RepoNotFound")
        elif parts[2:] and parts[-1] not in ("main", COMMIT):
            self._error(404, "RevisionNotFound")
        elif parts[2:3] == ["tree"]:
            entries = [{"type": "file", "path": name, "size": path.stat().st_size} for name, path in _files(folder)]
            self._send(200, json.dumps(entries).encode(), {"X-Repo-Commit": COMMIT})
        else:
            siblings = [_sibling(name, path) for name, path in _files(folder)]
            self._send(200, json.dumps({"id": "/".join(parts[:2]), "sha": COMMIT, "siblings": siblings}).encode())

    def _resolve(self, repository: list[str], revision: str, name: str) -> None:
        path = self.root.joinpath(*repository, name)
        if revision not in ("main", COMMIT):
            self._error(404, "RevisionNotFound")
        elif not path.is_file():
            self._error(404, "EntryNotFound")
        else:
            headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{_tag(path)}"'}
            if path.stat().st_size < LARGE:
                self._file(path, headers)
                return
            headers |= {"X-Linked-Size": str(path.stat().st_size), "X-Linked-ETag": f'"{_tag(path)}"'}
            host = self.headers["Host"].replace("127.0.0.1", "localhost")  # another host, as a CDN is
            target = f"http://{host}/cdn/{quote('/'.join(repository))}/{quote(name)}?Signature=secret"
            self._send(302, b"", {**headers, "Location": target})

    # ---------------------------------------------------------------------------------------------------- plain files
    def _plain(self, path: Path) -> None:
        if path.is_dir() and (path / ".listed").exists():
            links = "".join(f'<li><a href="{quote(name)}">{name}</a>' for name, _ in _files(path) if "/" not in name)
            page = f"<html><ul><a href='../'>up</a>{links}</ul></html>"
            self._send(200, page.encode(), {"Content-Type": "text/html"})
        elif path.is_file():
            self._file(path, {"ETag": f'"{_tag(path)}"'})
        else:
            self._error(404, "")

    def _file(self, path: Path, headers: dict[str, str]) -> None:
        size, kind = path.stat().st_size, self.fault.get("kind", "")
        if headers.get("ETag") and self.headers.get("If-None-Match") == headers["ETag"]:
            self._send(304, b"", headers)
            return
        asked = re.fullmatch(r"bytes=([0-9]+)-([0-9]+)", self.headers.get("Range") or "")
        if asked is None or kind == "no-ranges":
            self._stream(200, path, 0, size, headers, kind)
            return
        begin, end = int(asked[1]), min(int(asked[2]) + 1, size)
        if begin >= size:
            self._send(416, b"", {**headers, "Content-Range": f"bytes */{size}"})
            return
        if kind == "shifted":
            begin, end = begin + 1, min(end + 1, size)
        told = self.fault.get("size", size)
        ranged = {} if kind == "no-content-range" else {"Content-Range": f"bytes {begin}-{end - 1}/{told}"}
        self._stream(206, path, begin, end, {**headers, **ranged}, kind)

    def _stream(self, status: int, path: Path, begin: int, end: int, headers: dict[str, str], kind: str) -> None:
        self.entry["status"] = status
        self.send_response(status)
        if kind == "compressed":
            headers = {**headers, "Content-Encoding": "gzip"}
        for name, value in {**headers, "Content-Length": str(end - begin)}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        with path.open("rb") as file:
            file.seek(begin)
            left = (end - begin) // 2 if kind == "cut" else end - begin
            while left:
                data = file.read(min(left, 1 << 16))
                self.entry["bytes"] += len(data)
                self.wfile.write(data)
                left -= len(data)
        if kind == "cut":
            self.close_connection = True

    def _error(self, status: int, code: str) -> None:
        self._send(status, b"{}", {"X-Error-Code": code} if code else {})

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        if hasattr(self, "entry"):
            self.entry |= {"status": status, "bytes": len(body)}
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _files(folder: Path) -> list[tuple[str, Path]]:
    return [(path.relative_to(folder).as_posix(), path) for path in sorted(folder.rglob("*")) if path.is_file()]


def _sibling(name: str, path: Path) -> dict[str, Any]:
    size, tag = path.stat().st_size, _tag(path)
    large = {"lfs": {"sha256": tag, "size": size, "pointerSize": 134}} if size >= LARGE else {}
    return {"rfilename": name, "size": size, "blobId": tag[:40], **large}


@dataclass(frozen=True, slots=True)
class Server:
    """The running server, seen from a test."""

    url: str

    def set_faults(self, *faults: dict[str, Any]) -> None:
        """Replace the faults, and forget what was asked so far."""
        self._call("POST", json.dumps(faults))

    def requests(self) -> list[dict[str, Any]]:
        """What was asked: path, range, status, bytes of the body, authorization."""
        found: list[dict[str, Any]] = json.loads(self._call("GET", None))
        return found

    def _call(self, method: str, body: str | None) -> bytes:
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=20)
        try:
            connection.request(method, "/control", body)
            return connection.getresponse().read()
        finally:
            connection.close()


@contextmanager
def serving(root: Path) -> Iterator[Server]:
    """A server process for the repositories and files below a folder."""
    with started([sys.executable, "-m", "tests.hub_server", str(root)]) as server:
        yield server


@contextmanager
def started(command: list[str]) -> Iterator[Server]:
    """A server process that prints its port first."""
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield Server(f"http://127.0.0.1:{int(process.stdout.readline())}")
    finally:
        process.terminate()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def main() -> None:
    """Serve until killed; the port is the first line printed."""
    Handler.root, Handler.faults, Handler.requests = Path(sys.argv[1]), [], []
    Handler.lock = threading.Lock()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
