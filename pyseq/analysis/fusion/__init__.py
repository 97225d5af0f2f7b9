"""Fusion of modalities judged: scores, gains, peers, records, tables and a run's page."""
