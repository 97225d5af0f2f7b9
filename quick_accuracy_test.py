"""Drop-in script: `python quick_accuracy_test.py ...` is `pyseq compare --quick ...`."""

import sys

from pyseq.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["compare", "--quick", *sys.argv[1:]]))
