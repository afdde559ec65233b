"""Two folders of results side by side: what changed by more than chance, and what cannot be told."""
