"""`python -m semshare.eval`."""

import sys

from semshare.eval.cli import main

if __name__ == "__main__":
    sys.exit(main())
