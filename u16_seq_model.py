"""Drop-in script: `python u16_seq_model.py train ...` is `pyseq train ...`."""

import sys

from pyseq.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
