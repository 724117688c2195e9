"""``python -m minikv`` is the command ``minikv``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
