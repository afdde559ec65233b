"""How long a model takes, how much memory it needs, and how far that is from what the machine could do."""
