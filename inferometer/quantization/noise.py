"""How far rounded values are off."""

import torch
from torch import Tensor


def sqnr_db(actual: Tensor, expected: Tensor) -> float:
    """Signal-to-quantization-noise ratio in decibels: power of what was expected over that of the difference.

    Infinite where there is no difference; not a number where all that was expected and found is zero.
    """
    noise = (actual.float() - expected.float()).square().sum()
    return float(10 * torch.log10(expected.float().square().sum() / noise))
