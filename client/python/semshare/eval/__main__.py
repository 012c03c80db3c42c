"""`python -m semshare.eval`."""

import os
import sys

# Before torch loads its OpenMP: threads that spin while they wait would take the broker's core.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from semshare.eval.cli import main

if __name__ == "__main__":
    sys.exit(main())
