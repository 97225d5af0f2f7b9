"""Benchmarks: one ``bench_<op>.py`` per op, measured by ``harness.py``, stored in ``results/``."""
