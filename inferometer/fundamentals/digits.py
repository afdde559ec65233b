"""A network that learns to read digits in two epochs, and what it still reads when its layers compute on few bits.

Each seed trains a network of its own. Then its last linear layer is replaced by a QuantLinear, and after that all of
them, at every number of bits; nothing is trained again. The same test images go through all of these networks, so every
comparison with the float network is paired, image by image.
"""

import copy
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

from inferometer.device import Device
from inferometer.fundamentals.quantized_linear import QuantLinear
from inferometer.fundamentals.seeded import seeded
from inferometer.tensors import read_tensors

CLASSES = 10
WIDTHS = (128, 64)  # of the two layers in the middle
BATCH = 32
LEARNING_RATE = 5e-3


@dataclass(frozen=True)
class Digits:
    """Images [items, rows, columns] as bytes with labels [items], to train on and to test with."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    def inputs(self, images: Tensor) -> Tensor:
        """Images as rows of floats between 0 and 1 [items, pixels]; 1 is the brightest pixel to train on."""
        return images.flatten(start_dim=1).float() / self.train_images.max()

    def on(self, device: Device) -> "Digits":
        """The same images on a device."""
        tensors = (self.train_images, self.train_labels, self.test_images, self.test_labels)
        return Digits(*(tensor.to(device.torch_device) for tensor in tensors))


def read_digits(path: Path) -> Digits:
    """An image set's file. Raises InferometerError naming it when it is damaged or holds something else."""
    return Digits(**read_tensors(path, *(field.name for field in dataclasses.fields(Digits))))


def new_network(pixels: int) -> nn.Sequential:
    """Three linear layers with ReLU between them: [items, pixels] to logits [items, classes]."""
    first, second = WIDTHS
    return nn.Sequential(
        nn.Linear(pixels, first), nn.ReLU(), nn.Linear(first, second), nn.ReLU(), nn.Linear(second, CLASSES)
    )


def train(digits: Digits, epochs: int, seed: int) -> nn.Sequential:
    """A network trained with Adam on shuffled batches; weights and order come from the seed."""
    inputs = digits.inputs(digits.train_images)
    network = seeded(lambda: new_network(inputs.shape[1]), seed).to(inputs.device)
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    chance = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for batch in torch.randperm(len(inputs), generator=chance).split(BATCH):
            chosen = batch.to(inputs.device)
            optimizer.zero_grad()
            functional.cross_entropy(network(inputs[chosen]), digits.train_labels[chosen]).backward()
            optimizer.step()
    return network.eval()


def replaced(network: nn.Sequential, which: str, bits: int) -> nn.Sequential:
    """A copy of a network whose `last` linear layer, or `all` of them, compute on codes of so many bits."""
    places = [place for place, layer in enumerate(network) if isinstance(layer, nn.Linear)]
    other = copy.deepcopy(network)
    for place in places if which == "all" else places[-1:]:
        linear = other[place]
        assert isinstance(linear, nn.Linear)
        other[place] = QuantLinear(linear, bits)
    return other


@torch.inference_mode()
def compare(network: nn.Sequential, digits: Digits, bits: Sequence[int]) -> Iterator[pd.DataFrame]:
    """For every replacement the rows of the DIGITS table that do not depend on the seed, one for each test image."""
    inputs = digits.inputs(digits.test_images)
    before = network(inputs)
    for which in ("last", "all"):
        for width in bits:
            after = replaced(network, which, width)(inputs)
            columns = {
                "label": digits.test_labels,
                "float_prediction": before.argmax(dim=-1),
                "prediction": after.argmax(dim=-1),
                "output_power": before.double().square().mean(dim=-1),
                "output_mse": (after.double() - before.double()).square().mean(dim=-1),
            }
            rows = pd.DataFrame({name: values.cpu().numpy() for name, values in columns.items()})
            yield rows.rename_axis("item").reset_index().assign(replaced=which, bits=width)


def measure(digits: Digits, epochs: int, seeds: Sequence[int], bits: Sequence[int], device: Device) -> pd.DataFrame:
    """The DIGITS table: a network for each seed, its layers replaced in every way."""
    placed = digits.on(device)
    tables = [table.assign(seed=seed) for seed in seeds for table in compare(train(placed, epochs, seed), placed, bits)]
    return pd.concat(tables, ignore_index=True).assign(device=device.kind, dtype="float32")
