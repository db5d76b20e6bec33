"""Frames for training and evaluation: read, drawn, degraded, prepared, batched. Imports neither JAX nor msitf_jax."""
