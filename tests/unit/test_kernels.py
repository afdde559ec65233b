"""Integer products against 64-bit arithmetic, and the probe that lets no wrong kernel pass."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from inferometer.quantization import kernels
from inferometer.quantization.kernels import (
    FALLBACK,
    KERNELS,
    Kernel,
    Multiply,
    exact_kernels,
    fastest_kernel,
    is_exact,
    random_codes,
)

CPU = torch.device("cpu")
SIZES = st.integers(min_value=1, max_value=70)


def _product(kernel: Kernel, rows: Tensor, weight: Tensor, scales: Tensor | None = None) -> Tensor:
    return kernel.prepare(weight, torch.ones(len(weight)) if scales is None else scales)(rows)


@pytest.mark.parametrize("kernel", [*exact_kernels(CPU), FALLBACK], ids=lambda kernel: kernel.name)
@given(rows=st.integers(0, 40), inputs=SIZES, outputs=SIZES)
@example(rows=1, inputs=1, outputs=2)
@settings(max_examples=25)
def test_products_of_any_shape_are_exact(kernel: Kernel, rows: int, inputs: int, outputs: int) -> None:
    codes, weight = random_codes(rows, inputs, CPU), random_codes(outputs, inputs, CPU)
    product = _product(kernel, codes, weight)
    assert product.dtype == torch.float32
    assert torch.equal(product.long(), codes.long() @ weight.long().T)


@pytest.mark.parametrize("kernel", exact_kernels(CPU), ids=lambda kernel: kernel.name)
@pytest.mark.parametrize(("first", "second"), [(127, 127), (-127, 127), (-128, -128), (-128, 127)])
def test_the_largest_sums_do_not_overflow(kernel: Kernel, first: int, second: int) -> None:
    codes = torch.full((3, 8192), first, dtype=torch.int8)
    weight = torch.full((64, 8192), second, dtype=torch.int8)
    assert (_product(kernel, codes, weight).double() == float(torch.tensor(8192.0 * first * second))).all()


def test_all_kernels_give_the_same_values_bit_by_bit() -> None:
    codes, weight = random_codes(5, 4096, CPU), random_codes(48, 4096, CPU)
    scales = torch.rand(48, generator=torch.Generator().manual_seed(0))
    products = [_product(kernel, codes, weight, scales) for kernel in exact_kernels(CPU)]
    assert all(torch.equal(product, products[0]) for product in products)
    exact = (codes.long() @ weight.long().T).double() * scales.double()
    torch.testing.assert_close(products[0].double(), exact, rtol=2e-7, atol=0)


def _off_by_one(codes: Tensor, scales: Tensor) -> Multiply:
    right = FALLBACK.prepare(codes, scales)

    def multiply(rows: Tensor) -> Tensor:
        product = right(rows)
        product[-1, -1] += 1
        return product

    return multiply


def _failing(codes: Tensor, scales: Tensor) -> Multiply:
    raise NotImplementedError("no such kernel on this processor")


def _rounding(codes: Tensor, scales: Tensor) -> Multiply:
    return lambda rows: (rows.bfloat16() @ codes.bfloat16().t()).float()


@pytest.mark.parametrize("prepare", [_off_by_one, _failing, _rounding])
def test_what_fails_or_is_inexact_is_left_out(prepare: object, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Kernel("wrong", prepare)  # type: ignore[arg-type]
    assert not is_exact(wrong, CPU)
    assert is_exact(FALLBACK, CPU)
    monkeypatch.setattr(kernels, "KERNELS", (wrong,))
    exact_kernels.cache_clear()
    fastest_kernel.cache_clear()
    try:
        assert exact_kernels(CPU) == (FALLBACK,)
        assert fastest_kernel(CPU, 8, 8) == FALLBACK
    finally:
        exact_kernels.cache_clear()
        fastest_kernel.cache_clear()


@pytest.mark.parametrize(
    ("one_row", "many_rows", "chosen"),
    [
        ([1.0, 0.5], [1.0, 0.6], "second"),
        ([1.0, 0.9], [1.0, 0.9], "first"),  # may be noise
        ([5.0, 1.0], [1.0, 1.1], "second"),  # five times as slow for one row, and hardly faster for many
        ([100.0, 1.0], [1.0], "second"),  # a hundred times as slow for one row, and not tried over many
        ([1.0, 0.5], [1.0, 1.9], "first"),  # each is far behind at one of them
        ([1.0, 2.0], [1.0, 3.0], "first"),
    ],
)
def test_a_kernel_is_preferred_that_is_never_far_behind(
    one_row: list[float], many_rows: list[float], chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([one_row, many_rows])
    both = tuple(Kernel(name, FALLBACK.prepare) for name in ("first", "second"))
    monkeypatch.setattr(kernels, "exact_kernels", lambda device: both)

    def least_seconds(multiplies: list[Multiply], _rows: Tensor) -> list[float]:
        own = next(times)
        assert len(own) == len(multiplies)
        return own

    monkeypatch.setattr(kernels, "_least_seconds", least_seconds)
    fastest_kernel.cache_clear()
    try:
        assert fastest_kernel(CPU, 8, 8).name == chosen
        assert fastest_kernel(CPU, 8, 8).name == chosen  # from memory: nothing is timed again
    finally:
        fastest_kernel.cache_clear()


def test_kernels_have_names_of_their_own() -> None:
    assert len({kernel.name for kernel in (*KERNELS, FALLBACK)}) == len(KERNELS) + 1
    assert fastest_kernel(CPU, 24, 40) in exact_kernels(CPU)
