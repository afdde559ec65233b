"""A KV cache for transformers that stores what it holds on few bits, packed.

Tokens of the present call are seen as they came, all earlier ones as they are stored: a model that reads a context and
what follows it in one call never uses what is stored.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, PreTrainedConfig
from transformers.cache_utils import CacheLayerMixin, get_layer_types_and_kwargs

from inferometer.errors import InferometerError
from inferometer.kv_cache.packing import WIDTHS
from inferometer.kv_cache.states import FLOAT, ROOM_TOKENS, Order, PackedStates, Run
from inferometer.kv_cache.theory import GROUP_SIZE, KEYS, Keys

KEEPS_ALL = {"full_attention", "sliding_attention", "chunked_attention"}  # the mask hides what lies beyond a window

Pair = tuple[Tensor, Tensor]  # keys and values [batch, heads, tokens, channels]


def check_bits(bits: int) -> None:
    """Raise InferometerError for a number of bits that can't be packed."""
    if bits not in WIDTHS:
        raise InferometerError(f"a KV cache can't be packed on {bits} bits; choose {', '.join(map(str, WIDTHS))}.")


@dataclass(frozen=True)
class Packing:
    """How tokens are stored.

    `bits` are those of every token; None leaves them to be said by `PackedCache.write`, and until then tokens wait in
    the model's dtype. The first `sink_tokens` stay in it for good and the last `recent_tokens` for the time being.
    Up to `group_size` neighbouring channels of a token share a grid; or, of keys `per_channel`, that many neighbouring
    tokens in a channel, and tokens wait until there are so many.
    """

    bits: int | None = None
    keys: Keys = KEYS
    group_size: int = GROUP_SIZE
    sink_tokens: int = 0
    recent_tokens: int = 0

    def __post_init__(self) -> None:
        """Refuse bits that can't be packed."""
        if self.bits is not None:
            check_bits(self.bits)

    @property
    def unit(self) -> int:
        """Tokens that are packed together."""
        return self.group_size if self.keys == "per_channel" else 1

    def storage(self, channels: int) -> tuple[PackedStates, PackedStates]:
        """Empty storage for keys and values whose heads have so many channels.

        Raises InferometerError when groups don't divide them.
        """
        group = min(self.group_size, channels)
        if channels % group:
            raise InferometerError(
                f"groups of {group} do not divide the {channels} channels of a head; choose another `group_size`."
            )
        per_channel = self.keys == "per_channel"
        room = ROOM_TOKENS if self.unit == 1 else 1  # what comes in whole groups seldom moves the rest
        keys = PackedStates(self.group_size if per_channel else group, per_channel=per_channel, room_tokens=room)
        return keys, PackedStates(group, per_channel=False, room_tokens=room)


class PackedLayer(CacheLayerMixin):
    """The keys and values of one layer: the first tokens packed, the last ones waiting as they came; see `Packing`.

    Layers whose attention slides keep all tokens. `order` says how tokens are packed; layers of a cache whose bits are
    said token by token share it.
    """

    is_croppable = True
    is_sliding = False

    def __init__(self, packing: Packing, order: Order) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # transformers'
        self.packing = packing
        self.order = order
        self._packed: tuple[PackedStates, PackedStates] | None = None
        self._waiting: Pair | None = None

    def reset(self) -> None:
        """Forget everything."""
        self.order.clear()
        self._packed = self._waiting = None
        self.is_initialized = False

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Take shapes, dtype and device from the first tokens."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self._packed = self.packing.storage(key_states.shape[-1])
        self._waiting = key_states[:, :, :0].detach(), value_states[:, :, :0].detach()
        self.is_initialized = True

    @property
    def waiting(self) -> int:
        """Tokens that are not packed yet."""
        return 0 if self._waiting is None else self._waiting[0].shape[2]

    def _held(self, which: int, added: int) -> Tensor:
        """All tokens, keys or values, as they are stored, in front of room for so many more."""
        assert self._waiting is not None
        assert self._packed is not None
        waiting, packed = self._waiting[which], self.order.tokens
        past = packed + waiting.shape[2]
        room = waiting.new_empty(*waiting.shape[:2], past + added, waiting.shape[3])
        if packed:
            self._packed[which].write_to(room[:, :, :packed], self.order)
        room[:, :, packed:past] = waiting
        return room

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> Pair:
        """Add tokens [batch, heads, tokens, channels], and give back what attention is to see."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self._waiting is not None
        seen = key_states, value_states
        if past := self.get_seq_length():
            seen = self._held(0, key_states.shape[2]), self._held(1, key_states.shape[2])
            seen[0][:, :, past:], seen[1][:, :, past:] = key_states, value_states
        keys, values = self._waiting
        new_keys, new_values = key_states.detach(), value_states.detach()  # how they came about is not to be kept
        self._waiting = torch.cat([keys, new_keys], dim=2), torch.cat([values, new_values], dim=2)
        if self.packing.bits is not None:
            self._pack_oldest(self.packing.bits)
        return seen

    def _pack_oldest(self, bits: int) -> None:
        """Pack as many waiting tokens as there may be, all on the same bits but for the sinks."""
        unit = self.packing.unit
        count = max(self.waiting - self.packing.recent_tokens, 0) // unit * unit
        if not count:
            return
        sinks = min(max(self.packing.sink_tokens - self.order.tokens, 0), count)
        runs = [(FLOAT, sinks), (bits, count - sinks)]
        self.pack(runs)
        self.order.extend(runs, self.device)

    def pack(self, runs: Sequence[Run]) -> None:
        """Pack the oldest waiting tokens, a multiple of the unit; `order` is to be told, too."""
        count = sum(tokens for _, tokens in runs)
        assert self._waiting is not None
        assert self._packed is not None
        for packed, states in zip(self._packed, self._waiting, strict=True):
            packed.append(states[:, :, :count], runs)
        keys, values = self._waiting
        self._waiting = keys[:, :, count:].clone(), values[:, :, count:].clone()  # frees what they are cut from

    def demote(self, count: int, bits: int, fewer: int) -> None:
        """Round the oldest tokens of a width again, to `fewer` bits; `order` is to be told, too."""
        for packed in self._packed or ():
            packed.demote(count, bits, fewer)

    def unpack(self, tokens: int) -> None:
        """Let all but the first `tokens`, a multiple of the unit, wait again; `order` is to be told afterwards."""
        if self._waiting is not None and tokens < self.order.tokens:
            keys, values = (self._held(which, 0)[:, :, tokens:].clone() for which in (0, 1))
            self._waiting = keys, values

    def shorten(self, tokens: int) -> None:
        """Hold only the first `tokens`, once `order` is cut to no more than that."""
        if self._waiting is None or self._packed is None:
            return
        for packed in self._packed:
            packed.crop(self.order)
        keys, values = (states[:, :, : tokens - self.order.tokens].clone() for states in self._waiting)
        self._waiting = keys, values

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last tokens; their number is negative, as transformers has it.

        Tokens that don't fill a unit any more wait again, as they were stored.
        """
        tokens = max(self.get_seq_length() - abs(tokens_to_remove), 0)
        whole = min(tokens, self.order.tokens) // self.packing.unit * self.packing.unit
        self.unpack(whole)
        self.order.cut(whole, self.device)
        self.shorten(tokens)

    def _select(self, sequences: Tensor) -> None:
        """Keep these sequences of the batch, in this order, some perhaps several times."""
        if self._waiting is None or self._packed is None:
            return
        sequences = sequences.to(self.device)
        for packed in self._packed:
            packed.select(sequences)
        keys, values = (states.index_select(0, sequences) for states in self._waiting)
        self._waiting = keys, values

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Follow the beams of a beam search."""
        self._select(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Hold every sequence so many times."""
        if self._waiting is not None:
            self._select(torch.arange(self._waiting[0].shape[0]).repeat_interleave(repeats))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Hold only these sequences."""
        self._select(indices)

    def get_seq_length(self) -> int:
        """Tokens held."""
        return self.order.tokens + self.waiting

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """How many tokens a mask must cover, and where it begins."""
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        """There is no limit: storage grows."""
        return -1

    def offload(self) -> None:
        """Refused with a sentence."""
        raise InferometerError("a packed KV cache can't be offloaded to main memory; leave `offloading` out.")


def cached_layers(config: PreTrainedConfig) -> int:
    """The number of a model's layers, each of which keeps keys and values.

    Raises InferometerError for layers that keep anything else.
    """
    types, _ = get_layer_types_and_kwargs(config.get_text_config(decoder=True))
    for index, kind in enumerate(types):
        if kind not in KEEPS_ALL:
            raise InferometerError(
                f"layer {index} of the model is of type {kind}, which does not keep keys and values of every token; "
                "packed KV caches serve models with attention in every layer."
            )
    return len(types)


class PackedCache(Cache):
    """A cache whose layers are packed, to be given to a model as `past_key_values`.

    Where bits are said token by token, all sequences of a batch and all layers have the same ones.
    Raises InferometerError where it can't serve the model's layers.
    """

    def __init__(self, config: PreTrainedConfig, packing: Packing) -> None:
        static, shared = packing.bits is not None, Order()
        self.packed_layers = [PackedLayer(packing, Order() if static else shared) for _ in range(cached_layers(config))]
        super().__init__(layers=list(self.packed_layers))
        self.packing = packing
        self._said: list[int] = []  # bits of waiting tokens, as far as they are said

    def reset(self) -> None:
        """Forget everything."""
        self._said = []
        for layer in self.packed_layers:
            layer.reset()

    def write(self, bits: Sequence[int]) -> None:
        """Say the bits (or FLOAT) of as many tokens, the oldest whose bits are not said, and pack what can be packed.

        Raises InferometerError when a number of bits can't be packed, or more are said than tokens wait.
        """
        for wanted in set(bits) - {FLOAT}:
            check_bits(wanted)
        first = self.packed_layers[0]
        if len(self._said) + len(bits) > first.waiting:
            raise InferometerError(
                f"the bits of {len(bits)} tokens were said, but only {first.waiting - len(self._said)} wait for them."
            )
        self._said += bits
        count = len(self._said) // self.packing.unit * self.packing.unit
        runs = [(width, 1) for width in self._said[:count]]
        self._said = self._said[count:]
        for layer in self.packed_layers:
            layer.pack(runs)
        first.order.extend(runs, first.device)

    @property
    def said_bits(self) -> list[int]:
        """The bits of all tokens, as far as they are said, in the order of the text."""
        return self.packed_layers[0].order.bits(0) + self._said

    def demote_oldest(self, count: int, bits: int, fewer: int) -> None:
        """Round the oldest `count` packed tokens of `bits` again, to `fewer`, or all of them if there are less.

        All tokens on `fewer` bits must stand before them.
        """
        first = self.packed_layers[0]
        count = min(count, sum(width == bits for width in first.order.bits(0)))
        if count <= 0:
            return
        for layer in self.packed_layers:
            layer.demote(count, bits, fewer)
        first.order.demote(count, bits, fewer, first.device)

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last tokens; their number is negative, as transformers has it."""
        if self.packing.bits is not None:
            super().crop(tokens_to_remove)
            return
        first = self.packed_layers[0]
        order, tokens = first.order, max(first.get_seq_length() - abs(tokens_to_remove), 0)
        whole = min(tokens, order.tokens) // self.packing.unit * self.packing.unit
        for layer in self.packed_layers:
            layer.unpack(whole)
        self._said = (order.bits(whole) + self._said)[: tokens - whole]
        order.cut(whole, first.device)
        for layer in self.packed_layers:
            layer.shorten(tokens)
