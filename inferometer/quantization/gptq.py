"""GPTQ: rounding a weight column by column, each column's error made up for by those that are still to come.

Frantar et al. 2023, "GPTQ: accurate post-training quantization for generative pre-trained transformers", algorithm 1:
with H the second moments of the layer's inputs, the error of rounding column i is spread over the later columns by the
rows of the Cholesky factor of H^-1, which minimizes the change of the layer's output.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from inferometer.quantization.grids import Grid, Parameters, Quantized

COLUMNS_AT_ONCE = 32  # few, as each of them changes all that follow among them one by one
INVERTED_AT_ONCE = 192  # columns of a triangle
MOMENTS_BLOCKS = 4  # to a side: 10 of 16 products remain
DAMPING = 0.01  # of the mean diagonal, as in the paper: keeps H invertible


def second_moments_of(parts: Iterable[Tensor]) -> Tensor:
    """XᵀX [inputs, inputs] over float32 rows X [rows, inputs] that come in parts.

    It is symmetric: blocks on the diagonal and above are multiplied, and what lies below it is copied.
    """
    upper: Tensor | None = None
    for rows in parts:
        width = rows.shape[1]
        if upper is None:
            upper = rows.new_zeros(width, width)
        for start in range(0, width, step := -(-width // MOMENTS_BLOCKS)):
            upper[start : start + step, start:].addmm_(rows[:, start : start + step].T, rows[:, start:])
    assert upper is not None
    return upper.triu() + upper.triu(1).T


def _inverted(lower: Tensor) -> Tensor:
    """The inverse of a lower triangular matrix, by halves: products are several times faster than substitution."""
    width = len(lower)
    if width <= INVERTED_AT_ONCE:
        identity = torch.eye(width, dtype=lower.dtype, device=lower.device)
        inverse: Tensor = torch.linalg.solve_triangular(lower, identity, upper=False)
        return inverse
    half = width // 2
    first, last = _inverted(lower[:half, :half]), _inverted(lower[half:, half:])
    inverse = torch.zeros_like(lower)
    inverse[:half, :half], inverse[half:, half:] = first, last
    inverse[half:, :half] = (last @ lower[half:, :half] @ first).neg_()
    return inverse


def _inverse_factor(second_moments: Tensor) -> Tensor:
    """The upper Cholesky factor of the inverse of damped second moments [inputs, inputs], in float64 for stability.

    With J the matrix that reverses order, J H J = L Lᵀ gives H⁻¹ = (J L⁻¹ J)ᵀ (J L⁻¹ J), where J L⁻¹ J is upper: the
    factor, without an inverse of H.
    """
    damped = second_moments.double()
    damped.diagonal().add_(DAMPING * damped.diagonal().mean().clamp(min=torch.finfo(torch.float32).tiny))
    return _inverted(torch.linalg.cholesky(damped.flip(0, 1))).flip(0, 1).float()


def _of_values(parameter: Tensor, grid: Grid, weight: Tensor) -> Tensor:
    """A parameter of vectors [..., 1] spread out to one for each value of the weight [outputs, inputs]."""
    return parameter.expand_as(grid.vectors(weight)).reshape(weight.shape)


def _codes_by_column(columns: Tensor, grid: Grid, scale: Tensor, zero_point: Tensor | None, factor: Tensor) -> Tensor:
    """Codes of `columns` [inputs, outputs], which are used up; `scale` and `zero_point` have the same shape."""
    codes = torch.empty_like(columns)
    for start in range(0, len(columns), COLUMNS_AT_ONCE):
        end = min(start + COLUMNS_AT_ONCE, len(columns))
        errors = torch.empty_like(columns[start:end])
        for place in range(start, end):
            shared = Parameters(scale[place], None if zero_point is None else zero_point[place])
            codes[place] = grid.nearest(columns[place], shared)
            error = (columns[place] - grid.decoded(codes[place].clone(), shared)).div_(factor[place, place])
            columns[place + 1 : end].addr_(factor[place, place + 1 : end], error, alpha=-1)
            errors[place - start] = error
        columns[end:].addmm_(factor[start:end, end:].T, errors, alpha=-1)
    return codes


def round_with_compensation(weights: Sequence[Tensor], grid: Grid, second_moments: Tensor) -> list[Quantized]:
    """Codes of float32 weights [outputs, inputs] that read one input, chosen so that their outputs on it change least.

    `second_moments` is XᵀX [inputs, inputs] over calibration rows X. The grid's parameters are those of the weights as
    they are, with errors weighed by the moments' diagonal, as they count in outputs whose inputs are not correlated;
    columns are taken in order of falling second moment, so that those that matter most are rounded first.
    """
    importance = second_moments.diagonal()
    order = importance.argsort(descending=True, stable=True)
    parameters = [grid.parameters(grid.vectors(own), grid.vectors(importance.expand_as(own))) for own in weights]

    def by_column(tensors: list[Tensor]) -> Tensor:
        return torch.cat(tensors)[:, order].T.contiguous()

    scale = by_column([_of_values(own.scale, grid, weight) for own, weight in zip(parameters, weights, strict=True)])
    zero_points = [
        _of_values(own.zero_point, grid, weight)
        for own, weight in zip(parameters, weights, strict=True)
        if own.zero_point is not None
    ]
    zero_point = by_column(zero_points) if zero_points else None
    factor = _inverse_factor(second_moments[order][:, order])
    codes = _codes_by_column(by_column(list(weights)), grid, scale, zero_point, factor)
    of_weights = codes[order.argsort()].T.split([len(weight) for weight in weights])
    return [
        Quantized(grid, grid.vectors(own.contiguous()), parameter, weight.shape)
        for own, parameter, weight in zip(of_weights, parameters, weights, strict=True)
    ]
