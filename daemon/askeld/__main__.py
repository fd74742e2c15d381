"""``python -m askeld`` is ``askel``; without a verb it is ``askel worker``."""

from __future__ import annotations

import sys

from askeld.cli import main

if __name__ == "__main__":
    sys.exit(main(["worker", *sys.argv[1:]] if sys.argv[1:2] != ["worker"] else None))
