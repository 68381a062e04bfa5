"""Questions of callers who ask at once: by no more passes than threads are allowed, or several in one pass."""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import TYPE_CHECKING

from colbert_core.model.forward import Runner
from colbert_core.threads import get_num_threads, new_lock

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from colbert_core.model.inputs import ModelInput

# Questions of one pass. Passes of 2, 5 and 16 questions read 235, 412 and 631 a second on one core, single ones 136.
MOST = 16


class GatheringRunner(Runner):
    """A runner that reads single sequences of callers who come at the same time in turn, or several of them together.

    Nobody waits for others to come: as many passes run as threads are allowed, and whoever comes meanwhile is read by the next
    one. With a pass for each caller 16 of them wait more for Python's lock than they compute. A pass that reads several
    sequences rounds otherwise than one that reads one, so vectors then depend on who else asks, in bfloat16 by up to .003 in a
    component.
    """

    def __init__(self, runner: Runner, most: int = 1) -> None:
        """Share the model of a runner.

        Args:
            runner: whose model it is.
            most: sequences that one pass may read together.
        """
        self.__dict__ = dict(runner.__dict__)
        self._most = most
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._guard = new_lock()
        self._waiting: deque[_Asked] = deque()
        self._n_running = 0

    def run(self, inputs: list[ModelInput], put: Callable[[int, NDArray[np.float32]], None]) -> None:
        """Compute the unit vectors of each input, as ``Runner.run`` does; a single one in its turn.

        The main thread does so by itself: Ctrl-C, which comes to it alone, must not leave others waiting for it.
        """
        if len(inputs) != 1 or self.device.type != "cpu" or threading.current_thread() is threading.main_thread():
            super().run(inputs, put)
            return
        if self._process != os.getpid():
            self._begin()  # forked: those who waited in the parent are not here
        asked = _Asked(inputs[0])
        with self._guard:
            if self._n_running < get_num_threads():
                self._n_running += 1
                asked.leads = [asked]
            else:
                self._waiting.append(asked)
        if not asked.leads:
            asked.wait()
        if asked.leads:
            self._lead(asked.leads)
        if asked.vectors is None:  # the pass failed; if it was for this one, its error comes now
            super().run(inputs, put)
        else:
            put(0, asked.vectors)

    def _lead(self, together: list[_Asked]) -> None:
        """Run the pass of these, and have one of those who came meanwhile run the next."""

        def put(i: int, rows: NDArray[np.float32]) -> None:
            together[i].vectors = rows

        try:
            super().run([asked.input for asked in together], put)
        except Exception:
            for asked in together:
                asked.vectors = None
        finally:
            with self._guard:
                n = min(self._most, len(self._waiting))
                following = [self._waiting.popleft() for _ in range(n)]
                if following:
                    following[0].leads = following
                else:
                    self._n_running -= 1
            for asked in [*following[:1], *together[1:]]:
                asked.wake()


class _Asked:
    """A sequence that somebody waits for.

    Attributes:
        input: the sequence.
        leads: those whose pass this caller is to run; empty while somebody else does.
        vectors: *Shape:* (length, dim), float32; None until they are there, and after an error.
    """

    def __init__(self, model_input: ModelInput) -> None:
        self.input = model_input
        self.leads: list[_Asked] = []
        self.vectors: NDArray[np.float32] | None = None
        self._asleep = threading.Lock()
        self._asleep.acquire()

    def wait(self) -> None:
        """Wait until the vectors are there, or the pass is this caller's."""
        self._asleep.acquire()

    def wake(self) -> None:
        self._asleep.release()
