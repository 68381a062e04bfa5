"""A process that is killed at a step of its own work."""

from __future__ import annotations

import os
import signal
import sys


def die_at(step, turn):
    """Have this process end as by SIGKILL when its work gets to a step, the so manieth time."""
    left = int(turn)

    def stop(event, arguments):
        nonlocal left
        if event == "colbert_core.step" and arguments[0] == step:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(stop)
