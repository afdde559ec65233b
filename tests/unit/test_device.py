"""The device: what is switched for a while comes back."""

import torch

from inferometer.device import quick_products


def test_quick_products_are_for_a_while_only() -> None:
    left, right = torch.rand(256, 256), torch.rand(256, 256)
    before, setting = left @ right, torch.backends.cuda.matmul.fp32_precision
    with quick_products():
        torch.testing.assert_close(left @ right, before, rtol=0.01, atol=0)
    assert torch.equal(left @ right, before)
    assert torch.backends.cuda.matmul.fp32_precision == setting
