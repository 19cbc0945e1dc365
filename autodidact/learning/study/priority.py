"""The study gives way to whatever else the machine does, the chat above all.

Niceness weighs only inside a scheduling group, and Linux makes a group of every session, so of
every terminal (autogroups: sched(7)): a nice learner in one terminal takes half of the machine from
a server in another. Therefore the study runs in a session of its own (`learning.process`), and
lowers the weight of that whole group too. Where there are no autogroups (macOS, some kernels of
WSL2, or switched off), niceness alone has to do. On Linux the disk serves everyone else first, too.

macOS's background state (PRIO_DARWIN_BG) is not taken: it keeps a process to the efficiency cores
of Apple silicon, also while nothing else runs.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import psutil

LOWEST = 19
AUTOGROUP = Path("/proc/self/autogroup")


def give_way() -> None:
    """Take the lowest priority, this process and its session; what the system refuses is left."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, LOWEST)
    with suppress(OSError):
        if AUTOGROUP.exists() and os.getsid(0) == os.getpid():  # not a terminal's whole group
            AUTOGROUP.write_text(str(LOWEST), "ascii")
    with suppress(OSError, psutil.Error, AttributeError):  # psutil has it where the system does
        psutil.Process().ionice(psutil.IOPRIO_CLASS_IDLE)
