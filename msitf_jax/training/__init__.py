"""Training: from a configuration to weights, scores and a picture of the run."""
