"""Orthogonal matrices whose entries are all of nearly one size, for any width, and fast products with them.

A Hadamard matrix has entries ±1 and orthogonal rows: it spreads a single large value evenly over all channels, which no
other rotation does better. They are known for orders of the form 2^k m with m from Paley's constructions (Paley 1933);
a width without one gets the largest such factor, times a random orthogonal matrix for the rest.
"""

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, math.isqrt(number) + 1))


def _jacobsthal(prime: int) -> Tensor:
    """Q[i, j] = χ(i - j), where χ is 1 for squares modulo `prime`, -1 for other numbers and 0 for 0."""
    squares = {number * number % prime for number in range(1, prime)}
    character = torch.tensor([0, *(1 if number in squares else -1 for number in range(1, prime))])
    places = torch.arange(prime)
    return character[(places[:, None] - places) % prime].double()


def _bordered(prime: int) -> Tensor:
    """The Jacobsthal matrix with a border of ones, [prime + 1, prime + 1]; its lower border has the sign of χ(-1)."""
    matrix = torch.zeros(prime + 1, prime + 1, dtype=torch.float64)
    matrix[0, 1:] = 1
    matrix[1:, 0] = 1 if prime % 4 == 1 else -1
    matrix[1:, 1:] = _jacobsthal(prime)
    return matrix


@cache
def hadamard(order: int) -> Tensor | None:
    """A Hadamard matrix [order, order] of ±1 in float64, or None where neither Sylvester nor Paley gives one."""
    if order == 1:
        return torch.ones(1, 1, dtype=torch.float64)
    half = hadamard(order // 2) if order == 2 or order % 4 == 0 else None
    if half is not None:
        return torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64), half)
    if order % 4:
        return None
    if _is_prime(order - 1):  # Paley's first construction; order - 1 is 3 modulo 4
        return torch.eye(order, dtype=torch.float64) + _bordered(order - 1)
    if _is_prime(prime := order // 2 - 1) and prime % 4 == 1:  # his second
        plus, minus = (torch.tensor(rows, dtype=torch.float64) for rows in ([[1, 1], [1, -1]], [[1, -1], [-1, -1]]))
        return torch.kron(_bordered(prime), plus) + torch.kron(torch.eye(order // 2, dtype=torch.float64), minus)
    return None


def _orthogonal(order: int, generator: torch.Generator) -> Tensor:
    """A Hadamard matrix made orthogonal where there is one, or else a random orthogonal matrix (Haar measure)."""
    known = hadamard(order)
    if known is not None:
        return known / math.sqrt(order)
    basis, upper = torch.linalg.qr(torch.randn(order, order, generator=generator, dtype=torch.float64))
    signed: Tensor = basis * upper.diagonal().sign()
    return signed


@dataclass(frozen=True)
class Rotation:
    """The orthogonal matrix kron(outer, inner) diag(signs), with `signs` [width] and two small orthogonal factors.

    A product with a row then costs width * (outer + inner) multiplications and not width^2.
    """

    signs: Tensor
    outer: Tensor
    inner: Tensor

    @staticmethod
    def random(width: int, seed: int) -> "Rotation":
        """A randomized Hadamard rotation of a width; the same seed always gives the same one."""
        generator = torch.Generator().manual_seed(seed)
        signs = torch.randint(0, 2, (width,), generator=generator).double() * 2 - 1
        pairs = [(outer, width // outer) for outer in range(1, width + 1) if width % outer == 0]
        known = [pair for pair in pairs if hadamard(pair[0]) is not None and hadamard(pair[1]) is not None]
        outer, inner = min(known or pairs, key=sum)
        return Rotation(signs, _orthogonal(outer, generator), _orthogonal(inner, generator))

    def to(self, like: Tensor) -> "Rotation":
        """The same rotation in the dtype and on the device of a tensor."""
        return Rotation(self.signs.to(like), self.outer.to(like), self.inner.to(like))

    def __call__(self, rows: Tensor) -> Tensor:
        """Rotate rows [..., width]; `rows @ weight.T` stays what it is when both are rotated."""
        grid = (rows * self.signs).unflatten(-1, (self.outer.shape[0], self.inner.shape[0]))
        rotated: Tensor = self.outer @ (grid @ self.inner.T)
        return rotated.flatten(-2)
