"""Inferometer: what quantization, KV caching and attention do to a causal language model.

The package computes; the Snakemake rules around it decide when. Nothing in here knows of Snakemake.
"""
