"""The one exception that a user is meant to read."""


class InferometerError(Exception):
    """Something the user can mend, said in one sentence that names the key or file and what to do."""
