"""SmoothQuant: outliers move from activations into weights, and the float model stays what it was."""
