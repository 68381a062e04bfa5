"""What this package needs of Ray: to connect, to have one version on all nodes, and to hand work on when a worker is lost."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from collections import Counter, deque
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

from colbert_core.errors import ClusterError, ClusterUnreachableError, MissingExtraError
from colbert_core.extras import import_extra

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

# How many workers an item may kill: after so many it is the item that is at fault, and not the worker.
_TRIES = 5
# What an HTTP/2 client says first, and an empty SETTINGS frame; every server answers with its own (RFC 9113, section 3.4).
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])

# Of the clusters that this process starts on its own.
_TOKEN = secrets.token_hex(32)


def load_ray(part: str = "ray") -> Any:
    """Import Ray, or a part of it such as "ray.data".

    Raises:
        MissingExtraError: it is not installed.
    """
    return import_extra(part, "Work on several machines", "Ray", "'ray[data]>=2.52'")


def connect(address: str | None, timeout: float) -> Any:
    """Connect Ray to a cluster; it stays connected until ``ray.shutdown()`` or the end of the process.

    Args:
        address: "host:port", "ray://host:port" or "auto"; None for the cluster that this process is part of or connected to
            already, else Ray on this machine alone, which is started: for this process only, on the loopback interface, with
            a token that nobody else knows.
        timeout: seconds that an address may take to answer.

    Raises:
        MissingExtraError: Ray is not installed.
        ClusterUnreachableError: nothing answers at the address.
    """
    ray = load_ray()
    if address is not None and ":" in address:
        _check_answers(address, timeout)  # Ray tries for two minutes, and then ends the process
    if ray.is_initialized():
        return ray
    try:
        if address is None and not _is_at_hand(ray):
            _start_here(ray)
        else:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (OSError, ValueError, RuntimeError, SystemExit) as error:
        raise ClusterUnreachableError(
            f"No Ray cluster could be used at {address or 'this machine'!r}: {error!s:.300} Start one with `ray start --head`, "
            "and give the address it prints."
        ) from error
    return ray


def is_at_hand() -> bool:
    """Tell whether there is a cluster that ``connect`` would use without an address; without Ray there is none."""
    try:
        ray = load_ray()
    except MissingExtraError:
        return False
    return ray.is_initialized() or _is_at_hand(ray)


def _is_at_hand(ray: Any) -> bool:
    """Tell whether this process is part of a cluster, or `ray start` has started one on this machine."""
    named = os.environ.get("RAY_ADDRESS")
    return named != "local" if named else ray._private.services.canonicalize_bootstrap_address(None) is not None


def _start_here(ray: Any) -> None:
    """Start Ray on this machine alone. Whoever reaches it can run code, so it is out of reach.

    Ray asks in its environment for tokens, which keep out other users of this machine, and hands that on to its processes. It
    listens to the loopback interface alone where it takes this machine for one that it makes no clusters of, such as a Mac.
    """
    os.environ.setdefault("RAY_AUTH_MODE", "token")  # stays, as Ray's own setting of it does: all calls of Ray look at it
    here = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    if not os.environ.get("RAY_AUTH_TOKEN") and not os.environ.get("RAY_AUTH_TOKEN_PATH"):
        here["RAY_AUTH_TOKEN"] = _TOKEN
    before = {name: os.environ.get(name) for name in here}
    constants = ray._private.ray_constants
    makes_clusters = constants.ENABLE_RAY_CLUSTER  # of the environment, when Ray was imported
    os.environ.update(here)
    constants.ENABLE_RAY_CLUSTER = False
    try:
        ray._raylet.Config.initialize("")  # it has read both at its import
        ray._raylet.AuthenticationTokenLoader.instance().reset_cache()
        ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    finally:
        constants.ENABLE_RAY_CLUSTER = makes_clusters
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _check_answers(address: str, timeout: float) -> None:
    host, _, port = address.rpartition("://")[2].strip("/").rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f'An address of a cluster is "host:port" or "ray://host:port", got {address!r}.')
    advice = "Is Ray running there (`ray status`), and may this machine reach it?"
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=timeout) as connection:
            connection.settimeout(timeout)
            with contextlib.suppress(ConnectionError):  # somebody is there, and wants TLS say; let Ray talk to it
                connection.sendall(_HELLO)
                connection.recv(9)
    except TimeoutError:
        raise ClusterUnreachableError(f"Nothing at {address} answered within {timeout:g} s. {advice}") from None
    except OSError as error:
        raise ClusterUnreachableError(f"No Ray cluster can be reached at {address} ({error}). {advice}") from None


def version() -> str:
    """The version of this package on this machine."""
    return metadata.version("colbert-retrievers")


def check_version(here: str, there: str, node: str) -> None:
    """Check that two machines have the same version of this package.

    Raises:
        ClusterError: they have not.
    """
    if here != there:
        raise ClusterError(
            f"Node {node} has colbert-retrievers {there}, and this process has {here}; install the same version on all nodes."
        )


def lost_errors(ray: Any) -> tuple[type[Exception], ...]:
    """What Ray raises when a worker, its node or what it returned is gone."""
    of_ray = ray.exceptions
    return (
        of_ray.RayActorError,
        of_ray.NodeDiedError,
        of_ray.WorkerCrashedError,
        of_ray.ObjectLostError,
        of_ray.OutOfMemoryError,
    )


def answer(ray: Any, reference: Any) -> Any:
    """Return what a worker returned, or raise what it raised."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        raise (cause if isinstance(cause, Exception) else error) from None


@dataclass(frozen=True, eq=False)
class Work:
    """A call for any worker to answer; each is itself alone, whatever it holds.

    Attributes:
        method: name of the worker's method.
        arguments: what it takes.
    """

    method: str
    arguments: tuple[Any, ...]


def share(
    ray: Any,
    workers: Sequence[Any],
    waiting: deque[Work],
    *,
    timeout: float,
    begun: Callable[[Work, str], object] | None = None,
) -> Iterator[tuple[Work, Any]]:
    """Give work to whichever worker is free, until none is left; what a lost worker had goes to another one.

    Args:
        ray: connected.
        workers: actors that Ray starts again when they die, with a method ``about`` that takes nothing and says where they are.
        waiting: what to do, from the left. More may be put there between the answers.
        timeout: seconds to wait when there is no worker at all.
        begun: is told of each piece of work that a worker gets, and where this worker is.

    Yields:
        Each piece of work with what the method returned for it, as they are done.

    Raises:
        ClusterError: no worker could be started, or one piece of work was the end of several of them.
    """
    tries = Counter[Work]()
    idle: list[tuple[Any, str]] = []
    # The first answer of a worker says that it is there. Ray holds the question back until it is, also for one that died.
    busy: dict[Any, tuple[Any, str, Work | None]] = {_ask_whether_it_is_there(worker): (worker, "", None) for worker in workers}
    while waiting or any(work for _, _, work in busy.values()):
        while waiting and idle:
            (worker, where), work = idle.pop(), waiting.popleft()
            busy[getattr(worker, work.method).remote(*work.arguments)] = (worker, where, work)
            if begun is not None:
                begun(work, where)
        at_work = any(work for _, _, work in busy.values())
        done, _ = ray.wait(list(busy), num_returns=1, timeout=None if at_work else timeout)
        if not done:
            raise ClusterError(
                f"None of {len(workers)} workers was there within {timeout:g} s; the cluster has "
                f"{_resources(ray.cluster_resources())}, of which {_resources(ray.available_resources())} are free."
            )
        worker, where, held = busy.pop(done[0])
        try:
            result = answer(ray, done[0])
        except lost_errors(ray) as error:
            if held is None:  # it could not even be started
                if not busy and not idle:
                    raise ClusterError(f"No worker could be started: {error!s:.1000}") from error
                continue
            tries[held] += 1
            if tries[held] == _TRIES:
                raise ClusterError(
                    f"The work on {held.arguments!r:.100} was the end of {_TRIES} workers, of the last one so: {error!s:.1000}"
                ) from error
            waiting.appendleft(held)
            busy[_ask_whether_it_is_there(worker)] = (worker, "", None)
            continue
        if held is None:
            idle.append((worker, result))
            continue
        idle.append((worker, where))
        yield held, result


def _ask_whether_it_is_there(worker: Any) -> Any:
    return worker.about.options(max_task_retries=-1).remote()


def _resources(amounts: dict[str, float]) -> str:
    return f"{amounts.get('CPU', 0):g} CPUs and {amounts.get('GPU', 0):g} GPUs"
