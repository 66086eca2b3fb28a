"""The door of the app: of all that Gradio's server answers, only what the page needs is let through.

Gradio's server also fetches addresses, proxies, streams, takes recordings and serves files by their paths. What is
not in `ROUTES` is not there for a visitor; files are those of one folder; and bodies are read up to a limit, before
anything is done with them.
"""

import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Any, Receive, Send], Awaitable[None]]

API = "/gradio_api"
FILE = f"{API}/file="
ROUTES = {
    "GET": re.compile(
        rf"/|/(config|theme\.css|favicon\.ico|manifest\.json)|/(assets|static|svelte)/.+|{FILE}.+"
        rf"|{API}/(info|startup-events|upload_progress|queue/data|heartbeat/\w+)"
    ),
    "POST": re.compile(rf"{API}/(upload|cancel|queue/join)"),
}
"""What the page asks for, by method."""
LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; connect-src 'self' data: blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
"""What the browser is told: to fetch nothing from elsewhere."""


@dataclass(frozen=True, kw_only=True)
class Door:
    """An ASGI application in front of Gradio's."""

    app: App
    folder: Path
    """The folder of uploads and results: no other file is read or served."""
    max_body: int
    """Bytes of a request, at most."""
    is_local: bool
    """Whether the app is for this machine alone. Then no page of another site may talk to it, whatever its name is."""

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Answer a request, or let it through."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close"})
        status = self.refused(scope)
        body = b""
        if status is None and scope["method"] == "POST":
            body, status = await self.read(scope, receive)
        if status is not None:
            return await answer(send, status)

        async def replay() -> Message:
            nonlocal body
            if scope["method"] == "POST" and body is not None:
                whole, body = body, None  # type: ignore[assignment]
                return {"type": "http.request", "body": whole, "more_body": False}
            return await receive()

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *HEADERS]}
            await send(message)

        return await self.app(scope, replay, told)

    def refused(self, scope: Any) -> int | None:
        """Return the status with which a request is refused by its first lines; None: it is let through."""
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if self.is_local and not is_local(headers):
            return 403
        method, path = "GET" if scope["method"] == "HEAD" else scope["method"], scope["path"]
        if method not in ROUTES or not ROUTES[method].fullmatch(path):
            return 404
        if path.startswith(FILE) and not self.holds(path.removeprefix(FILE)):
            return 403
        length = headers.get("content-length", "0")
        return 413 if not length.isdecimal() or int(length) > self.max_body else None

    def holds(self, path: str) -> bool:
        """Return whether a path, also where it is quoted or holds links, is that of a file in the folder."""
        try:
            files = [Path(text).resolve() for text in (path, unquote(path))]
            return all(file.is_relative_to(self.folder.resolve()) for file in files)
        except (OSError, ValueError):
            return False

    async def read(self, scope: Any, receive: Receive) -> tuple[bytes, int | None]:
        """Return the body of a request, and the status with which it is refused, if it is."""
        body = bytearray()
        while True:
            message = await receive()
            body += message.get("body", b"")
            if len(body) > self.max_body:
                return b"", 413
            if message["type"] != "http.request" or not message.get("more_body"):
                break
        if not scope["path"].startswith(f"{API}/queue/join"):
            return bytes(body), None
        try:
            return bytes(body), None if self.names_own_files(json.loads(body)) else 403
        except (ValueError, RecursionError):
            return b"", 400

    def names_own_files(self, data: Any) -> bool:
        """Return whether all paths in a request's data are of files in the folder; an address of the network is none.

        Gradio takes any object with a path for a file, copies it, and fetches it where it is an address.
        """
        if isinstance(data, list):
            return all(map(self.names_own_files, data))
        if not isinstance(data, dict):
            return True
        path = data.get("path")
        is_own = path is None or (isinstance(path, str) and self.holds(path))
        return is_own and all(map(self.names_own_files, data.values()))


def is_local(headers: dict[str, str]) -> bool:
    """Return whether a request was sent to this machine by its own name, and by a page that came from it."""
    origin = headers.get("origin")
    hosts = [f"//{headers.get('host', '')}", *([] if origin is None else [origin])]
    try:
        return all(urlsplit(host).hostname in LOCAL for host in hosts)
    except ValueError:
        return False


async def answer(send: Send, status: int) -> None:
    """Answer with a status alone."""
    body = {403: b"not allowed", 404: b"not found", 413: b"too large"}.get(status, b"not understood")
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
