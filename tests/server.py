"""A small web server that keeps KiTS19 as the two public ones do, and misbehaves on request."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import SHUT_RDWR
from threading import Event, Thread
from types import TracebackType
from urllib.parse import parse_qs

HUB = "/datasets/neheller/KiTS-Challenge-Imaging/resolve/main/images"
API = "/api/datasets/neheller/KiTS-Challenge-Imaging/paths-info/main"
GIT = "/kits19/master/data"


@dataclass(frozen=True)
class Fault:
    """What goes wrong in one answer; the defaults are a faultless one."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    content: bytes | None = None  # sent (and measured) in place of the file
    unsized: bool = False  # an answer that does not tell the size
    cut: int | None = None  # bytes after which the connection is closed
    stall: int | None = None  # bytes after which nothing more comes
    no_range: bool = False  # the whole file whatever was asked for


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    range: str | None
    token: str | None
    host: str


@dataclass
class Server:
    """Answers with `files`; the next answers to (method, path) take their faults from `faults`, one each, unless in `always`."""

    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[tuple[str, str], list[Fault]] = field(default_factory=lambda: defaultdict(list))
    always: dict[tuple[str, str], Fault] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    sent: dict[str, int] = field(default_factory=lambda: defaultdict(int))  # bytes of bodies by path
    stalled: Event = field(default_factory=Event)
    closing: Event = field(default_factory=Event)
    redirect_to: str | None = None  # host to which the hub sends for the bytes, as the real one does

    def __enter__(self) -> Server:
        self.http = QuietServer(("127.0.0.1", 0), Handler)
        self.http.site = self
        self.port = self.http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.thread = Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.closing.set()
        self.http.shutdown()
        self.http.server_close()

    def asked(self, method: str, path: str) -> list[Request]:
        return [request for request in self.requests if (request.method, request.path) == (method, path)]


def lfs_entry(content: bytes) -> dict[str, object]:
    """What the hub says of a large file."""
    return {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}


class QuietServer(ThreadingHTTPServer):
    daemon_threads = True
    site: Server

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is what these tests are about."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: QuietServer

    def log_message(self, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        """The hub's answer to which files it has: size and digest of those that are asked for and there."""
        site, asked = self.server.site, parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())["paths"]
        site.requests.append(Request("POST", self.path, None, self.headers.get("Authorization"), self.headers.get("Host", "")))
        queue = site.faults["POST", self.path]
        fault = queue.pop(0) if queue else site.always.get(("POST", self.path), Fault())
        there = {path: site.files[key] for path in asked if (key := f"{HUB.removesuffix('images')}{path}") in site.files}
        entries = [
            {"type": "file", "path": path, "size": len(content), "oid": "0" * 40, "lfs": lfs_entry(content)}
            for path, content in there.items()
        ]
        body = json.dumps(entries).encode() if fault.status == 200 else b"sorry"
        self.send(fault.status, dict(fault.headers) | {"Content-Type": "application/json"}, body)

    def do_GET(self) -> None:
        self.answer("GET")

    def answer(self, method: str) -> None:
        site, path = self.server.site, self.path.partition("?")[0]
        asked, token = self.headers.get("Range"), self.headers.get("Authorization")
        site.requests.append(Request(method, path, asked, token, self.headers.get("Host", "")))
        queue = site.faults[method, path]
        fault = queue.pop(0) if queue else site.always.get((method, path), Fault())
        key = path.removeprefix("/cdn")
        if fault.status != 200 or key not in site.files:
            self.send(fault.status if fault.status != 200 else 404, dict(fault.headers), b"sorry")
            return
        content = site.files[key] if fault.content is None else fault.content
        headers = dict(fault.headers)
        if path.startswith(HUB) and site.redirect_to:
            self.send(302, headers | {"Location": f"http://{site.redirect_to}:{site.port}/cdn{path}?signature=secret"}, b"")
            return
        start, status = 0, 200
        if asked and not fault.no_range:
            start, status = int(asked.removeprefix("bytes=").rstrip("-")), 206
            if start >= len(content):
                self.send(416, {"Content-Range": f"bytes */{len(content)}"}, b"")
                return
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.send(status, headers, content[start:], fault)

    def send(self, status: int, headers: dict[str, str], body: bytes, fault: Fault = Fault()) -> None:
        site = self.server.site
        self.send_response(status)
        length = {} if fault.unsized else {"Content-Length": str(len(body))}
        for name, value in (length | headers).items():
            self.send_header(name, value)
        self.end_headers()
        ends = [end for end in (fault.cut, fault.stall) if end is not None]
        body = body[: min(ends)] if ends else body
        self.wfile.write(body)
        self.wfile.flush()
        if status in (200, 206):
            site.sent[self.path.partition("?")[0]] += len(body)
        if fault.stall is not None:
            site.stalled.set()
            site.closing.wait(60)
        if ends:
            self.close_connection = True
            self.connection.shutdown(SHUT_RDWR)
