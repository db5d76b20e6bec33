"""Scores on real video: metrics, windows over a clip, the benchmark and its report."""
