"""The server of the viewer: pages, levels as NIfTI and the stores' own files, on the loopback and nowhere else.

Scans are people's. So the server listens on 127.0.0.1 alone; every address begins with a random key, because on a
shared machine the loopback is everyone's; a request whose Host is another name is refused, because a page elsewhere
could have its name point here (DNS rebinding); and of the disk it shows files inside the stores, and nothing else.
"""

from __future__ import annotations

import getpass
import hmac
import json
import os
import re
import secrets
import socket
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote_to_bytes

import numpy as np

from headsr.view.levels import Buffer, ReplacedError, StoredVolume

_PAGES = {
    "": ("index.html", "text/html; charset=utf-8"),
    "viewer.css": ("viewer.css", "text/css; charset=utf-8"),
    "viewer.js": ("viewer.js", "text/javascript; charset=utf-8"),
    "niivue.umd.js": ("niivue.umd.js", "text/javascript; charset=utf-8"),
}
_HEADERS = {
    # NiiVue keeps its font in its script, as a data: URL; nothing comes from elsewhere.
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Vary": "Origin",
}
_PIECE = 2**20  # bytes
_IDLE_SECONDS = 60


def serve(stores: Sequence[str | Path], *, port: int = 0) -> None:
    """Show stores (folders ``X.ome.zarr`` or their ``zarr.json``) side by side until Ctrl-C.

    Prints the address, and the command that makes it reachable from another machine. Port 0 is a free one. Raises
    ValueError where a store is not a finished volume or the port is taken.
    """
    with ViewServer(stores, port=port) as server, suppress(KeyboardInterrupt):
        print(f"{server.url}\nOpen this address in a browser on this machine. Ctrl-C ends it.")
        print(f"From another machine, first say there, and leave it open: {server.tunnel}")
        for number in range(len(stores)):
            print(f"For programs that read OME-Zarr: {server.url}{server.raw_path(number)}", flush=True)
        server.serve_forever()


class ViewServer(ThreadingHTTPServer):
    """The viewer of some volumes, listening on 127.0.0.1 from when it is made; ``url`` is its page."""

    daemon_threads = True  # a browser keeps its connections open: they must not keep the server

    def __init__(self, stores: Sequence[str | Path], *, port: int = 0) -> None:
        self.volumes = [StoredVolume(store) for store in stores]
        self.key = secrets.token_urlsafe(16)
        try:
            super().__init__(("127.0.0.1", port), _Request)
        except (OSError, OverflowError) as error:
            raise ValueError(f"port {port}: {error}. Choose another, or 0 for one that is free") from error
        self.hosts = [f"{name}:{self.server_port}" for name in ("127.0.0.1", "localhost")]

    @property
    def url(self) -> str:
        """The address of the page, with its key."""
        return f"http://{self.hosts[0]}/{self.key}/"

    @property
    def tunnel(self) -> str:
        """The command by which another machine reaches ``url`` as its own."""
        return f"ssh -N -L {self.server_port}:127.0.0.1:{self.server_port} {getpass.getuser()}@{socket.gethostname()}"

    def raw_path(self, number: int) -> str:
        """Where below ``url`` the files of a store lie, for programs that read OME-Zarr."""
        return f"{number}/{quote(os.fsencode(self.volumes[number].folder.name))}"


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_SECONDS
    server: ViewServer

    def handle(self) -> None:
        """Answer one request after the other; a browser that wants another level by now ends them."""
        with suppress(ConnectionError, TimeoutError):
            super().handle()

    def do_GET(self) -> None:
        if self.headers.get("Host") not in self.server.hosts:
            return self._refuse(
                HTTPStatus.MISDIRECTED_REQUEST,
                "this server answers to its loopback address alone; through ssh -L give the same port on both sides",
            )
        try:
            self._answer()
        except ReplacedError as error:
            self._refuse(HTTPStatus.CONFLICT, str(error))

    do_HEAD = do_GET

    def _answer(self) -> None:
        path, _, query = self.path.partition("?")
        _, _, below = path.partition("/")
        key, _, below = below.partition("/")
        level = re.fullmatch(r"(\d{1,4})/level-(\d{1,4})\.nii", below)
        raw = re.fullmatch(r"(\d{1,4})/(.+)", below)
        if not hmac.compare_digest(key.encode(), self.server.key.encode()):
            self._refuse(HTTPStatus.NOT_FOUND, "the address lacks the key that headsr view printed")
        elif below in _PAGES:
            name, kind = _PAGES[below]
            self._send(kind, files("headsr.view").joinpath("page", name).read_bytes())
        elif below == "volumes.json":
            described = [volume.describe() for volume in self.server.volumes]
            self._send("application/json", json.dumps(described, allow_nan=False).encode())
        elif level and int(level[1]) < len(self.server.volumes):
            self._send_level(self.server.volumes[int(level[1])], int(level[2]), query)
        elif raw and int(raw[1]) < len(self.server.volumes):
            # Names of files need not be UTF-8.
            parts = [os.fsdecode(unquote_to_bytes(part)) for part in raw[2].split("/")]
            self._send_file(self.server.volumes[int(raw[1])], parts)
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "there is nothing at this address")

    def _send_level(self, volume: StoredVolume, level: int, query: str) -> None:
        if level >= len(volume.grids):
            return self._refuse(HTTPStatus.NOT_FOUND, f"{volume.name} has no level {level}")
        start, shape = (0, 0, 0), volume.grids[level].shape
        if query:
            point = _point(query)
            if point is None:
                return self._refuse(HTTPStatus.BAD_REQUEST, "a box is asked for as ?at=X,Y,Z in mm")
            start, shape = volume.box_around(level, point)
        elif not volume.is_shown_whole(level):
            return self._refuse(HTTPStatus.BAD_REQUEST, f"level {level} is too large to show whole: ask for a box")
        size, pieces = volume.nifti(level, start, shape)
        self._begin(HTTPStatus.OK, "application/octet-stream", size)
        try:
            self._pour(pieces)
        except (ConnectionError, TimeoutError):
            raise
        except Exception as error:  # whatever its reader makes of a damaged shard; the length says that some is missing
            print(f"headsr: {volume.folder}: level {level} cannot be read: {error}", file=sys.stderr)
            self.close_connection = True

    def _send_file(self, volume: StoredVolume, parts: list[str]) -> None:
        """One file of a store, or the bytes of it that are asked for."""
        path = _file_inside(volume.folder, parts)
        volume.check_shards(["/".join(parts[1:])])  # readers take a shard that is not there for an empty one
        if path is None:
            volume.check_same()
            return self._refuse(HTTPStatus.NOT_FOUND, "there is no such file in the store")
        with path.open("rb") as stream:
            volume.check_same()  # what is open by now stays what it is
            size = os.fstat(stream.fileno()).st_size
            asked = _range(self.headers, size)
            first, last = (0, size - 1) if asked is None else asked
            kind = "application/json" if path.suffix == ".json" else "application/octet-stream"
            headers = {"Accept-Ranges": "bytes"}
            if first > last and asked is not None:
                headers["Content-Range"] = f"bytes */{size}"
                self._begin(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, kind, 0, headers)
                return
            if asked is not None:
                headers["Content-Range"] = f"bytes {first}-{last}/{size}"
            self._begin(HTTPStatus.OK if asked is None else HTTPStatus.PARTIAL_CONTENT, kind, last + 1 - first, headers)
            stream.seek(first)
            self._pour(stream.read(min(_PIECE, last + 1 - at)) for at in range(first, last + 1, _PIECE))

    def _send(self, kind: str, content: bytes) -> None:
        self._begin(HTTPStatus.OK, kind, len(content))
        self._pour([content])

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        content = f"{why}\n".encode(errors="backslashreplace")
        self._begin(status, "text/plain; charset=utf-8", len(content))
        self._pour([content])

    def _begin(self, status: HTTPStatus, kind: str, size: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        origin = self.headers.get("Origin")
        if origin in [f"http://{host}" for host in self.server.hosts]:
            self.send_header("Access-Control-Allow-Origin", origin)
        for name, value in {"Content-Type": kind, "Content-Length": str(size), **_HEADERS, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()

    def _pour(self, pieces: Iterable[Buffer]) -> None:
        if self.command != "HEAD":
            for piece in pieces:
                self.wfile.write(piece)

    def version_string(self) -> str:
        return "headsr"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of each request: the terminal is for the address."""


def _point(query: str) -> np.ndarray | None:
    """The point (x, y, z in mm) of ``at=X,Y,Z``; None for anything else."""
    try:
        point = np.array([float(number) for number in parse_qs(query)["at"][0].split(",")])
    except (KeyError, ValueError):
        return None
    return point if point.shape == (3,) and np.abs(point).max() < 1e6 else None


def _file_inside(folder: Path, parts: list[str]) -> Path | None:
    """The file at a path (its parts, the store's own name first) if it lies inside the store, also after its links."""
    if parts[0] != folder.name or any(part in ("", ".", "..") or re.search(r"[/\\\0]", part) for part in parts):
        return None
    try:
        path = Path(folder, *parts[1:]).resolve()
        return path if path.is_relative_to(folder) and path.is_file() else None
    except (OSError, RuntimeError):  # a name too long, links that go in a circle
        return None


def _range(headers: object, size: int) -> tuple[int, int] | None:
    """The first and the last byte of one Range (RFC 9110, 14.1.2); first > last: none of it; None: the whole file.

    As the RFC allows, several ranges and what is not understood are answered with the whole file.
    """
    get: Callable[[str], str | None] = headers.get
    asked = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", (get("Range") or "").strip(), re.ASCII)
    # If-Range compares with a tag or a date of the file, which are not given out: so it cannot be the same one.
    if not asked or asked.group() == "bytes=-" or get("If-Range"):
        return None
    first, last = asked.groups()
    if not first:
        return max(0, size - int(last)), size - 1 if int(last) else -1
    if last and int(last) < int(first):
        return None
    return int(first), min(int(last), size - 1) if last else size - 1
