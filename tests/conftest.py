"""What all tests share."""

from hypothesis import settings

# No test asserts absolute times: the first example may import a library, and another machine is slower.
settings.register_profile("inferometer", deadline=None)
settings.load_profile("inferometer")
