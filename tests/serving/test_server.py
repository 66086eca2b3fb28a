"""Where the server listens, and what is told where it cannot."""

import os
import signal
import socket
from pathlib import Path

import pytest
import torch
import uvicorn
from torch import nn

from flowferry.configs.validation import UserError
from flowferry.pipelines.serving.server import listen, quiet_gradio, serve


def test_a_port_in_use_is_told() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            UserError, match=rf"^--port: got {port}, which is in use, expected a free one, or 0 for any$"
        ):
            listen("127.0.0.1", port)
    listen("127.0.0.1", port).close()  # it is free again


@pytest.mark.parametrize("host", ["no.such.host.invalid", "203.0.113.7", "256.1.1.1"])
def test_an_address_that_is_not_of_this_machine_is_told(host: str) -> None:
    with pytest.raises(UserError, match=rf"^--host: .*{host}"):
        listen(host, 0)


def test_this_machine_alone_is_listened_to() -> None:
    with listen("localhost", 0) as bound:
        assert bound.family in (socket.AF_INET, socket.AF_INET6)
        assert bound.getsockname()[0] in ("127.0.0.1", "::1")


def test_when_the_server_ends_the_network_is_not_evaluated_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A computation that goes on would be waited for."""
    network, before = nn.Identity(), signal.getsignal(signal.SIGTERM)
    x = torch.ones(1)

    def end(self: uvicorn.Server, sockets: object) -> None:
        assert network(x) is x
        self.handle_exit(signal.SIGINT, None)

    monkeypatch.setattr(uvicorn.Server, "run", end)
    try:
        with listen("127.0.0.1", 0) as bound:
            serve(lambda *_: None, bound, network)  # type: ignore[arg-type, return-value]
    finally:
        signal.signal(signal.SIGTERM, before)
    with pytest.raises(UserError, match="the server has ended"):
        network(x)


def test_gradio_keeps_its_files_in_a_folder_that_goes_away() -> None:
    with quiet_gradio() as folder:
        assert folder.is_dir() and os.environ["GRADIO_TEMP_DIR"] == str(folder)
        assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
        Path(folder, "upload").touch()
    assert not folder.exists() and "GRADIO_TEMP_DIR" not in os.environ
