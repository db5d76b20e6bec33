"""What is timed: `python -m benchmarks`."""
