"""Names of inputs and of what they begin with; needs no torch."""

REPEATED, RANDOM = "repeated", "random"  # one token again and again, and any
DUMMIES = (REPEATED, RANDOM)
OWN, BOS = "own", "bos"  # first tokens: the text's own, and one before it that begins a text
FIRST_TOKENS = (OWN, BOS)
ALL_TEXTS = "*"  # in the place of an input: all that mean something together
FLOAT = "float"  # a cache that is not rounded
