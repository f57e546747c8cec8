"""``python -m app``: the same as the command ``kvscope``."""

import sys

from app.entry import main

if __name__ == "__main__":
    sys.exit(main())
