"""Where results come from: the rules that made them, their records of time and memory, and the code's revision."""
