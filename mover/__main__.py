"""`python -m mover` is `mover`."""

import sys

from mover.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
