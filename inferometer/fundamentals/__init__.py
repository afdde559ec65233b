"""Two small experiments that need no language model: rounding a digit classifier, and a decoder written by hand."""
