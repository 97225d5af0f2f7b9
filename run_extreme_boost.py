"""The whole strategy on digits: `python run_extreme_boost.py ...` is `pyseq fusion train ...`."""

import sys

from pyseq.cli.main import main

# One model of width 512 takes 70 MB, snapshots double that; --save keeps them all the same.
STRATEGY = ["--strategy", "super_ensemble", "--mixup_alpha", "0.1", "0.4", "--snapshots",
            "--tta", "5", "--no_robustness", "--no_save"]  # fmt: skip

if __name__ == "__main__":
    sys.exit(main(["fusion", "train", *STRATEGY, *sys.argv[1:]]))
