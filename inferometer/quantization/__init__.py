"""Number grids, and every way to put a model's linear layers on them."""
