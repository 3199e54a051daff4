"""`python -m workers.image --control-fd N`: an image worker, started by the supervisor only."""

from __future__ import annotations

import signal
import socket
import sys

from workers.image.worker import Worker
from workers.lane.channel import ChannelClosed


def main() -> int:
    """Serve on the channel that the supervisor passed."""
    # Signals of a terminal are the supervisor's business; it tells us to leave.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    control = socket.socket(fileno=int(sys.argv[sys.argv.index("--control-fd") + 1]))
    try:
        return Worker(control).run()
    except ChannelClosed:
        return 0  # a spare whose supervisor is gone before it had anything to do


if __name__ == "__main__":
    sys.exit(main())
