"""``python tests/core/loading/same_figures.py A B``: how far two runs' attention errors are apart.

A and B hold what ``python -m core.loading PATH ... --forward --json --full`` printed, on two devices say.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path


def errors(path: str) -> Iterator[tuple[tuple[str, str, str], float]]:
    """Checkpoint, layer and kind of scales, with the error."""
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        found = json.loads(line)
        for layer in (found.get("forward") or {"layers": ()})["layers"]:
            for variant, error in layer["errors"].items():
                yield (found["path"], layer["path"], variant), float(error)


def main() -> int:
    """Print the largest relative difference; the exit status is 1 above a thousandth."""
    first, second = (dict(errors(path)) for path in sys.argv[1:3])
    if first.keys() != second.keys() or not first:
        print("the two runs are not over the same layers")
        return 1
    apart = {key: abs(error - second[key]) / max(abs(error), 1e-6) for key, error in first.items()}
    worst = max(apart, key=lambda key: apart[key])
    print(f"{len(first):,} errors, at most {apart[worst]:.2e} apart (relative), in {worst}")
    return 0 if apart[worst] <= 1e-3 else 1


if __name__ == "__main__":
    sys.exit(main())
