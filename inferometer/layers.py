"""Decoder layers by their names and numbers; needs no torch."""

import re

from inferometer.errors import InferometerError


def decoder_layer_index(name: str) -> int | None:
    """The index of the decoder layer that a module name lies in, or None outside of the stack.

    It is the first number in the dotted name, which is how torch names members of a ModuleList.
    """
    match = re.search(r"\.(\d+)\.", f".{name}.")
    return int(match.group(1)) if match else None


def chosen_layers(wanted: list[str | int], layers: int) -> list[int]:
    """Indices of decoder layers for `first`, `middle`, `last` or numbers, sorted and without repeats.

    The middle of an even count is the lower of the two, as in a 32-layer model's layer 15.
    Raises InferometerError for an index that the model does not have.
    """
    names: dict[str | int, int] = {"first": 0, "middle": (layers - 1) // 2, "last": layers - 1}
    indices = {names.get(choice, choice) for choice in wanted}
    beyond = [index for index in indices if not isinstance(index, int) or not 0 <= index < layers]
    if beyond:
        raise InferometerError(
            f"configuration key `calibration.layers` asks for layer {beyond[0]}, "
            f"but the model has {layers} layers, counted from 0."
        )
    return sorted(index for index in indices if isinstance(index, int))
