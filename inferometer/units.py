"""Bytes in larger units; needs nothing."""

MIB, GIB = 2**20, 2**30
