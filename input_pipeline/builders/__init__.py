"""Data sets in TFDS's format, made from files that the user has: `python -m input_pipeline.prepare`."""
