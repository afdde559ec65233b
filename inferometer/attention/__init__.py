"""What a model attends to: attention maps, attention sinks, and what rounding does to them."""
