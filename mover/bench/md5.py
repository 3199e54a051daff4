"""MD5's own speed, the least that a digest takes: one thread, in memory, of a process of its own."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """\
import hashlib, os, sys, time
buffer, left, digest = memoryview(os.urandom(1 << 20)), int(sys.argv[1]), hashlib.md5()
began = time.perf_counter()
while left:
    digest.update(buffer[:left])
    left -= min(left, len(buffer))
print(time.perf_counter() - began)
"""


def md5_seconds(size_bytes: int) -> float:
    """The seconds that it takes to hash so many bytes."""
    command = [sys.executable, "-c", PROGRAM, str(size_bytes)]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
