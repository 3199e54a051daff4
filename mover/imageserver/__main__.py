"""`python3 -m imageserver …`, as a CloudStack agent starts it: becomes `mover serve …`.

This directory is copied to where the agent looks for it, and run by whatever Python the agent has: it imports nothing
of Mover, which may be installed elsewhere, but looks for the program `mover` beside that Python, then in PATH.
"""

import os
import shutil
import sys


def main() -> int:
    """Be replaced by `mover serve` with the same flags, process id and descriptors; 3 if there is no Mover."""
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])
    mover = shutil.which("mover", path=path)
    if mover is not None:
        os.execv(mover, ["mover", "serve", *sys.argv[1:]])
    print("mover: cannot start: there is no program `mover` in PATH, link it there", file=sys.stderr)
    return 3


if __name__ == "__main__":
    sys.exit(main())
