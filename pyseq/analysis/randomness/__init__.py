"""Whether a stream differs from independent draws: tests with valid p-values, and two verdicts."""
