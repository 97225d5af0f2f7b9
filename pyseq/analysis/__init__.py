"""Metrics, baselines, intervals, verdicts and reports."""
