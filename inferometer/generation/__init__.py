"""What single tokens are to a model while it writes, and what an unexpected word does to it."""
