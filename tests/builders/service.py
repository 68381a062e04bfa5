"""A real service on a free port of this machine, in a thread."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import uvicorn

from colbert_core.serve import Catalogue, make_app


@contextlib.contextmanager
def serving(indexes=None, *, app=None, **options):
    """``with serving({"wiki": index}, writable=True) as url:`` serves indexes by name; ``options`` are those of ``make_app``.

    ``app`` is any other ASGI application to run instead.
    """
    app = make_app(Catalogue(indexes=indexes or {}), **options) if app is None else app
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:  # as running.py has it
        listening.bind(("127.0.0.1", 0))
        listening.listen(128)
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=5))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive(), "The service did not start."
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout=30)
            assert not thread.is_alive(), "The service did not stop."
