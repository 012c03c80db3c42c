"""`python -m semshare.quickstart`."""

import sys

if __name__ == "__main__":
    if not {"-h", "--help"} & set(sys.argv):
        # Importing PyTorch and Transformers takes seconds, and somebody is waiting.
        print("Loading PyTorch and Transformers ...", file=sys.stderr, flush=True)
    from semshare.quickstart.cli import main

    sys.exit(main())
