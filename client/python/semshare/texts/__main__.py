"""Writes pairs for `python -m semshare.eval`: `python -m semshare.texts --out pairs.jsonl`."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from semshare.texts.documents import DocumentError, document, document_names
from semshare.texts.pairs import CLASSES, PairMaker


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes one line per class of pair; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m semshare.texts", description=__doc__)
    add = parser.add_argument
    add("--document", default="tide_station", choices=document_names())
    add("--other", default="apache-2.0", choices=document_names(), help="the unrelated document")
    add("--seed", type=int, default=7, help="of the edits")
    add("--out", required=True, type=Path, help="the file to write")
    options = parser.parse_args(arguments)
    try:
        maker = PairMaker(document(options.document), document(options.other), options.seed)
        with options.out.open("w", encoding="utf-8") as out:
            for name in CLASSES:
                pair = maker.make(name)
                line = {"name": name, "reference": pair.reference, "target": pair.target}
                out.write(json.dumps(line) + "\n")
    except (DocumentError, OSError, ValueError) as error:
        print(f"semshare.texts: {error}", file=sys.stderr)
        return 1
    print(f"{options.out}: {len(CLASSES)} pairs about {options.document}, seed {options.seed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
