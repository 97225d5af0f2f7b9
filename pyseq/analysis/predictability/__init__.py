"""Predictors of a stream, and what their scores say about its entropy."""
