"""What studies claim, and what the tables of results say about it."""
