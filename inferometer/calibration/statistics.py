"""Statistics of values that stream by: moments, extremes, outliers and histograms, in memory that does not grow."""

from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

SIGMAS = 6.0
BIN_BITS = 1 + 8 + 3  # sign, exponent, and three bits of the significand


@dataclass
class PowerSums:
    """Sums of the first four powers of (value - pivot), float64 [4, channels], over `count` rows.

    With a pivot near the mean the sums can be added up over windows and turned into central moments at the end
    without cancellation (Chan, Golub and LeVeque 1983, "Algorithms for computing the sample variance", section 3).
    """

    pivot: Tensor
    count: int
    sums: Tensor

    @staticmethod
    def of(values: Tensor, pivot: Tensor) -> "PowerSums":
        """Power sums of float values [rows, channels] about a pivot [channels]."""
        power = values - pivot
        square = power.square()
        sums = [power.sum(dim=0), square.sum(dim=0)]
        sums += [power.mul_(square).sum(dim=0), square.square_().sum(dim=0)]
        return PowerSums(pivot, values.shape[0], torch.stack(sums).double())

    def __add__(self, other: "PowerSums") -> "PowerSums":
        return PowerSums(self.pivot, self.count + other.count, self.sums + other.sums)

    def _central(self) -> tuple[Tensor, Tensor, Tensor]:
        """Mean (relative to the pivot), second and fourth central moment of each channel."""
        first, second, third, fourth = self.sums / self.count
        variance = (second - first.square()).clamp(min=0)
        return first, variance, fourth - 4 * first * third + 6 * first.square() * second - 3 * first**4

    def mean(self) -> Tensor:
        """Mean of each channel."""
        return self.pivot + self._central()[0]

    def std(self) -> Tensor:
        """Population standard deviation of each channel."""
        return self._central()[1].sqrt()

    def kurtosis(self) -> Tensor:
        """Fourth standardized moment of each channel, 3 for a normal; NaN where a channel is constant."""
        _, variance, fourth = self._central()
        return torch.where(variance > 0, fourth / variance.square(), torch.nan)

    def overall_mean_and_std(self) -> tuple[float, float]:
        """Mean and standard deviation over all rows and channels together."""
        first, second = self.sums[:2] / self.count
        means = self.pivot + first
        mean = means.mean()
        variance = (second - first.square()).mean() + (means - mean).square().mean()
        return float(mean), float(variance) ** 0.5


def _outliers(values: Tensor, powers: PowerSums, low: Tensor, high: Tensor) -> Tensor:
    """How many values of each channel lie beyond six standard deviations from the mean: int64 [channels].

    Mean and deviation are taken over all rows and channels of the window: by its own deviation, a channel that is
    large throughout would have no outliers. Only channels whose extremes reach that far are read again.
    """
    mean, std = powers.overall_mean_and_std()
    limit = SIGMAS * std
    counts = torch.zeros(low.shape, dtype=torch.int64, device=low.device)
    reaching = (torch.maximum(high - mean, mean - low) > limit).nonzero().squeeze(1)
    if reaching.numel():
        distance = values.index_select(1, reaching).sub_(mean).abs_()
        counts[reaching] = (distance > limit).sum(dim=0)
    return counts


@dataclass
class ChannelStatistics:
    """Moments, extremes and outlier counts per channel, over all windows seen so far."""

    powers: PowerSums
    low: Tensor
    high: Tensor
    beyond: Tensor

    @staticmethod
    def of(values: Tensor, pivot: Tensor) -> "ChannelStatistics":
        """Statistics of one window's float values [rows, channels]; `pivot` [channels] should be near their mean."""
        powers, low, high = PowerSums.of(values, pivot), values.amin(dim=0), values.amax(dim=0)
        return ChannelStatistics(powers, low, high, _outliers(values, powers, low, high))

    def with_first(self, values: Tensor) -> "ChannelStatistics":
        """Statistics of all of `values`, where these are of all but its first row: cheaper than starting anew."""
        first = values[0]
        powers = self.powers + PowerSums.of(first[None], self.powers.pivot)
        low, high = torch.minimum(self.low, first), torch.maximum(self.high, first)
        return ChannelStatistics(powers, low, high, _outliers(values, powers, low, high))

    def __add__(self, other: "ChannelStatistics") -> "ChannelStatistics":
        return ChannelStatistics(
            self.powers + other.powers,
            torch.minimum(self.low, other.low),
            torch.maximum(self.high, other.high),
            self.beyond + other.beyond,
        )

    def frame(self) -> pd.DataFrame:
        """One row a channel, with the columns of the ACTIVATIONS table that are not identifiers."""
        columns = {
            "min": self.low,
            "max": self.high,
            "absmax": torch.maximum(-self.low, self.high),
            "mean": self.powers.mean().float(),
            "std": self.powers.std().float(),
            "kurtosis": self.powers.kurtosis().float(),
            "beyond_6_sigma": self.beyond.double() / self.powers.count,
        }
        frame = pd.DataFrame({name: column.cpu().numpy() for name, column in columns.items()})
        return frame.assign(tokens=self.powers.count)


class FloatHistogram:
    """Counts on the bins that float32 itself makes: by sign, exponent and first three bits of the significand.

    Every octave has eight bins of equal width, any range fits, and finding a value's bin is one shift.
    """

    def __init__(self) -> None:
        self.counts = torch.zeros(1 << BIN_BITS, dtype=torch.int64)

    def add(self, values: Tensor) -> None:
        """Count every value of a finite tensor of any shape."""
        bits = values.float().flatten().view(torch.int32)
        bins = bits.bitwise_right_shift(32 - BIN_BITS).bitwise_and_((1 << BIN_BITS) - 1)
        self.counts += torch.bincount(bins, minlength=self.counts.numel()).cpu()

    def frame(self) -> pd.DataFrame:
        """The bins that hold anything, from left to right: `low` and `high` edge and `count`."""
        used = self.counts.nonzero().squeeze(1)
        negative = used >= 1 << (BIN_BITS - 1)
        magnitude = used % (1 << (BIN_BITS - 1))
        inner, outer = (
            (index << (32 - BIN_BITS)).to(torch.int32).view(torch.float32).double()
            for index in (magnitude, magnitude + 1)
        )
        low, high = torch.where(negative, -outer, inner), torch.where(negative, -inner, outer)
        frame = pd.DataFrame({"low": low.numpy(), "high": high.numpy(), "count": self.counts[used].numpy()})
        return frame.sort_values("low", ignore_index=True)


@dataclass
class BlockMaxima:
    """The largest magnitude in each block of a matrix. The mean would hide single outliers, the maximum shows them."""

    maxima: Tensor
    height: int
    width: int

    @staticmethod
    def of(values: Tensor, rows: int, channels: int) -> "BlockMaxima":
        """Reduce values [rows, channels] to at most `rows` x `channels` blocks."""
        height = -(-values.shape[0] // rows)
        width = -(-values.shape[1] // channels)
        pooled = torch.nn.functional.max_pool2d(values.abs().float()[None], (height, width), ceil_mode=True)
        return BlockMaxima(pooled[0], height, width)

    def frame(self) -> pd.DataFrame:
        """One row a block: its first `row`, its first `channel`, and `magnitude`."""
        rows, channels = self.maxima.shape
        row, channel = torch.meshgrid(torch.arange(rows), torch.arange(channels), indexing="ij")
        return pd.DataFrame(
            {
                "row": (row.flatten() * self.height).numpy(),
                "channel": (channel.flatten() * self.width).numpy(),
                "magnitude": self.maxima.flatten().cpu().numpy(),
            }
        )
