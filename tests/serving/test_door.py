"""What a visitor may ask of the server, and what is not there for them: each request against an app that notes it."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from flowferry.pipelines.serving.door import POLICY, Door

JOIN = "/gradio_api/queue/join"


class Noting:
    """An app that answers 200 with what it was sent, and notes the paths of the requests that reach it."""

    def __init__(self) -> None:
        self.reached: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.reached.append(scope.get("path", scope["type"]))
        message = await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"server", b"noting")]})
        await send({"type": "http.response.body", "body": message.get("body", b"")})


class Asking:
    """A door, and requests to it."""

    def __init__(self, folder: Path, *, max_body: int = 1000, is_local: bool = True) -> None:
        self.app = Noting()
        self.door = Door(app=self.app, folder=folder, max_body=max_body, is_local=is_local)

    def sent(self, method: str, path: str, *parts: bytes, **headers: str) -> list[dict[str, Any]]:
        lines = {"host": "127.0.0.1:7860", **headers}
        coded = [(name.replace("_", "-").encode(), value.encode()) for name, value in lines.items()]
        scope = {"type": "http", "method": method, "path": path, "headers": coded}
        bodies = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
        messages = iter([*bodies, {"type": "http.request", "body": b"", "more_body": False}])
        answers: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return next(messages)

        async def send(message: Any) -> None:
            answers.append(message)

        asyncio.run(self.door(scope, receive, send))
        return answers

    def status(self, method: str, path: str, *parts: bytes, **headers: str) -> int:
        before = len(self.app.reached)
        status = self.sent(method, path, *parts, **headers)[0]["status"]
        assert (status == 200) == (len(self.app.reached) > before)
        return status


@pytest.fixture
def ask(tmp_path: Path) -> Asking:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "a.png").touch()
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "own" / "link").symlink_to(tmp_path / "secret")
    return Asking(tmp_path / "own")


@pytest.mark.parametrize("path", ["/", "/config", "/theme.css", "/assets/index.js", "/gradio_api/queue/data"])
def test_what_the_page_needs_is_let_through(ask: Asking, path: str) -> None:
    assert ask.status("GET", path) == ask.status("HEAD", path) == 200


OTHERS = """
    /gradio_api/proxy=https://example.org /gradio_api/run/predict /gradio_api/api/predict /gradio_api/call/run
    /gradio_api/component_server /gradio_api/vibe-edit /gradio_api/vibe-code /gradio_api/runs /gradio_api/deep_link
    /gradio_api/process_recording /gradio_api/stream/a/1/2/playlist.m3u8 /gradio_api/file/etc/passwd /gradio_api/token
    /gradio_api/custom_component/1/client/component/x /gradio_api/openapi.json /monitoring /monitoring/summary /login
    /docs /openapi.json /pwa_icon /gradio_api/run-history/buckets /gradio_api/profiling/traces /gradio_api/dev/reload
"""


@pytest.mark.parametrize("path", OTHERS.split())
def test_nothing_else_is_there(ask: Asking, path: str) -> None:
    assert [ask.status(method, path) for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS")] == [404] * 5


def test_the_files_of_one_folder_are_served_and_no_other(ask: Asking, tmp_path: Path) -> None:
    own = tmp_path / "own"
    assert ask.status("GET", f"/gradio_api/file={own}/a.png") == 200
    others = [f"{own}/../secret", f"{own}/%2e%2e/secret", f"{own}/link", f"{tmp_path}/secret", "/etc/passwd"]
    others += ["launch.py", "README.md", "https://example.org/a.png", "file:///etc/passwd", f"{own}/\0", f"{own}-2/a"]
    assert [ask.status("GET", f"/gradio_api/file={path}") for path in others] == [403] * len(others)


def test_a_path_in_a_request_is_of_the_folder(ask: Asking, tmp_path: Path) -> None:
    def status(data: Any) -> int:
        return ask.status("POST", JOIN, json.dumps({"data": data}).encode())

    file = {"path": f"{tmp_path}/own/a.png", "url": "http://127.0.0.1:7860/x", "meta": {"_type": "gradio.FileData"}}
    assert status(["sample", 3, None, file, {"layers": [file], "background": file}]) == 200
    for path in ("/etc/passwd", f"{tmp_path}/own/link", "launch.py", "https://example.org/a.png", 3, ["a"]):
        assert status([file | {"path": path}]) == status([{"layers": [[{"deep": {"path": path}}]]}]) == 403
    assert ask.status("POST", JOIN, b"{") == 400
    assert Asking(tmp_path / "own", max_body=10**6).status("POST", JOIN, b"[" * 10**5 + b"]" * 10**5) == 400


def test_a_body_is_limited_before_it_is_used_and_comes_whole(ask: Asking) -> None:
    upload = "/gradio_api/upload"
    assert ask.status("POST", upload, b"x" * 500, b"x" * 500) == 200
    assert ask.sent("POST", upload, b"ab", b"c")[1]["body"] == b"abc"
    assert ask.status("POST", upload, b"x" * 500, b"x" * 501) == 413
    assert ask.status("POST", upload, content_length="1001") == ask.status("POST", upload, content_length="x") == 413


def test_a_page_of_another_site_may_not_talk_to_this_machine(ask: Asking, tmp_path: Path) -> None:
    assert ask.status("GET", "/", host="localhost:7860", origin="http://127.0.0.1:7860") == 200
    assert ask.status("GET", "/", host="[::1]:7860") == 200
    for foreign in (
        {"host": "evil.example:7860"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"host": "["},
    ):
        assert ask.status("POST", JOIN, b"{}", **foreign) == 403
    everybody = Asking(tmp_path / "own", is_local=False)
    assert everybody.status("GET", "/", host="example.org", origin="https://example.org") == 200


def test_the_browser_is_told_to_fetch_nothing_from_elsewhere(ask: Asking) -> None:
    headers = ask.sent("GET", "/")[0]["headers"]
    assert (b"server", b"noting") in headers and (b"content-security-policy", POLICY.encode()) in headers
    assert "http" not in POLICY and "*" not in POLICY


def test_there_are_no_websockets(ask: Asking) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(ask.door({"type": "websocket", "path": "/"}, None, send))  # type: ignore[arg-type]
    assert sent == [{"type": "websocket.close"}] and not ask.app.reached
