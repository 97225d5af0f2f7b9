"""Settings for all tests."""

import os

# Threads that wait for each other many times a step make small trainings crawl on a busy machine;
# the tests that are about threads ask for them. Subprocesses inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
