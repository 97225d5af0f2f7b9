"""One run, or one evaluation, as one page: HTML that needs no network and no file beside it."""

from pyseq.analysis.report.report import Report, class_names, model_report, write_report

__all__ = ["Report", "class_names", "model_report", "write_report"]
