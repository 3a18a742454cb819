"""PYTHONPATH=tests python -m fuzz 10000 [KIND ...]: the counts of so many inputs a kind, as docs/results has them."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import tempfile
import time
from pathlib import Path

from fuzz.kinds import FILES
from fuzz.run import fuzz, prepared, table_of


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz")
    parser.add_argument("count", type=int, help="inputs of every kind")
    parser.add_argument("kinds", nargs="*", choices=[[], *FILES], help="only these (default: all)")
    parser.add_argument("--first", type=int, default=0, help="the number of the first input (default: 0)")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also in the background: the counts so far
    logging.disable(logging.WARNING)  # thousands of warnings say what datasets have
    counts = {}
    with tempfile.TemporaryDirectory() as folder:
        kinds = {kind: FILES[kind] for kind in options.kinds or FILES}
        for kind, maker in prepared(Path(folder), kinds).items():
            began = time.monotonic()
            counts[kind], fallen = fuzz(kind, maker, range(options.first, options.first + options.count))
            print(f"{kind}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
            print("\n".join(fallen), file=sys.stderr, flush=True)
    print(table_of(counts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
