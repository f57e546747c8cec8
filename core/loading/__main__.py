"""``python -m core.loading``; :mod:`core.loading.command` is the command."""

from __future__ import annotations

import os
import sys

# Threads that spin while PyTorch is imported and its small tensors are filled cost 1.8 s of processor time on a machine
# of 16 cores, and win nothing; the attention's matrix products do use them.
if "--forward" not in sys.argv:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from core.loading.command import main

if __name__ == "__main__":
    sys.exit(main())
