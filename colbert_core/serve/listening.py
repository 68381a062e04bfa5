"""A socket to listen at."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_LAST_PORT = 65_535


@contextlib.contextmanager
def listening(host: str, port: int) -> Iterator[tuple[socket.socket, str]]:
    """Listen at an address of this machine.

    Args:
        host: address, or a name of one.
        port: of it; 0 takes a free one.

    Yields:
        The socket, and the address as the beginning of a URL.

    Raises:
        ValueError: there is no such port.
        OSError: the address cannot be had.
    """
    if not 0 <= port <= _LAST_PORT:
        raise ValueError(f"port is a number from 0 to {_LAST_PORT}, got {port}; 0 takes a free one.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends small packets at once (TCP_NODELAY) only where the protocol is said; answers took 48 ms without, 4 with it.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        if os.name != "nt":  # there it would let two services share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise OSError(
                f"{host}:{port} cannot be listened at ({error.strerror or error}); choose another --port, 0 for a free one."
            ) from None
        listener.listen(1024)
        yield listener, f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
