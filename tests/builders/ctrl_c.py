"""Ctrl-C at any moment of some work."""

from __future__ import annotations

import contextlib
import random
import signal


@contextlib.contextmanager
def interrupts(seed):
    """Give a function that does some work until Ctrl-C, at any moment of it, and says what it raised."""
    moments, armed = random.Random(seed), [False]

    def press(*_):
        if armed[0]:
            armed[0] = False  # once
            raise KeyboardInterrupt

    def until_interrupted(work, longest):
        try:
            # Armed last: a signal left over is seen at the first line of a try by Python 3.13, which is not yet within it.
            signal.setitimer(signal.ITIMER_REAL, moments.uniform(1e-5, longest))
            armed[0] = True
            for _ in range(1000):
                work()
                if not armed[0]:  # Python swallowed it
                    return None
        except BaseException as error:
            return error
        finally:
            armed[0] = False
            signal.setitimer(signal.ITIMER_REAL, 0)

    def interrupt(work, longest):
        try:
            return until_interrupted(work, longest)
        except KeyboardInterrupt as error:  # Python 3.14 sees some lines of a loop outside of its try
            return error

    left = signal.setitimer(signal.ITIMER_REAL, 0)  # what ends a test that takes too long
    before = signal.signal(signal.SIGALRM, press)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *left)
