"""Frames for training and evaluation: degradations and synthetic clips. Imports neither JAX nor msitf_jax."""
