"""Rotation: an orthogonal change of basis spreads outliers over all channels, and the float model stays what it was."""
