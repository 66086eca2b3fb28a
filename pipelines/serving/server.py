"""Listen at an address and answer, until Ctrl-C."""

import errno
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import NoReturn

from torch import nn

from flowferry.configs.validation import UserError
from flowferry.pipelines.serving.door import App

log = logging.getLogger("flowferry")

PATIENCE = 1  # seconds that connections are waited for in the end


@contextmanager
def quiet_gradio() -> Iterator[Path]:
    """Have Gradio send nothing, and keep its files in a folder of its own, which goes away in the end."""
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
    with TemporaryDirectory(prefix="flowferry-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        try:
            yield Path(folder)
        finally:
            del os.environ["GRADIO_TEMP_DIR"]


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to an address. Raises UserError where that is not possible."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise UserError(f"--host: got {host}, expected an address of this machine ({error.strerror})") from error
    bound = socket.socket(family, kind, protocol)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
        bound.listen()
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"--port: got {port}, which is in use, expected a free one, or 0 for any") from error
        name = "host" if error.errno == errno.EADDRNOTAVAIL else "port"
        raise UserError(f"--{name}: cannot listen at {host}, {port} ({error.strerror})") from error
    return bound


def serve(app: App, bound: socket.socket, network: nn.Module) -> None:
    """Answer at a bound socket. Raises KeyboardInterrupt after Ctrl-C, and SystemExit after SIGTERM.

    network: what is not to be evaluated any more then, so that nobody's computation is waited for.
    """
    import uvicorn  # with Gradio

    class Server(uvicorn.Server):
        """A server that begins to end with the computation."""

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            """Note a signal."""
            network.register_forward_pre_hook(stop)
            super().handle_exit(sig, frame)

    def stop(*_: object) -> NoReturn:
        raise UserError("the server has ended")

    def end(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)  # so that folders are cleaned up

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, end)
    config = uvicorn.Config(
        app, log_config=None, log_level="critical", timeout_graceful_shutdown=PATIENCE, server_header=False
    )
    host, port, *_ = bound.getsockname()
    log.info("http://%s:%d (Ctrl-C ends it)", f"[{host}]" if ":" in host else host, port)
    Server(config).run(sockets=[bound])
