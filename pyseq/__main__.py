"""`python -m pyseq` is `pyseq`."""

import sys

from pyseq.cli.main import main

sys.exit(main())
