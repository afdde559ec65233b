"""The parts that a model's config.json calls for, and with them its exact number of parameters; needs no torch.

A family is a function from the fields of the configuration to a list of parts. Names and sizes are those that
transformers gives the modules, so that counts can be held against the model itself.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from inferometer.errors import InferometerError

Group = Literal["embedding", "position", "attention", "mlp", "router", "norm", "head"]
Split = Literal["outputs", "kv_heads", "inputs", "none"]

PER_LAYER = "{layer}"


@dataclass(frozen=True)
class Part:
    """A weight [outputs, inputs] with its bias, of which every layer and every expert has one.

    `module` is its name in transformers, with `{layer}` where each decoder layer has one. Vectors have one input.
    `split` says along what tensor parallelism divides it (Shoeybi et al. 2019, Megatron-LM, section 3), `linear`
    whether it is a linear layer that schemes may round.
    """

    module: str
    group: Group
    outputs: int
    inputs: int
    split: Split
    bias: bool = False
    linear: bool = False
    layers: int = 1
    experts: int = 1

    @property
    def copies(self) -> int:
        """How many there are."""
        return self.layers * self.experts

    @property
    def parameters(self) -> int:
        """Numbers in all copies, biases included."""
        return self.copies * (self.outputs * self.inputs + self.outputs * self.bias)

    def modules(self, layers: Iterable[int]) -> Iterator[str]:
        """The module name in each of these layers."""
        return (self.module.replace(PER_LAYER, str(layer)) for layer in layers)


@dataclass(frozen=True)
class Shape:
    """A model as its configuration describes it.

    `windows` holds for each layer how many tokens its attention reaches back, None where it reaches all of them.
    `experts` is 1 and so is `active_experts` in models that are no mixture. `gated` says that the MLP multiplies two
    projections (SwiGLU and its like), `tied` that the output head is the embedding.
    """

    family: str
    layers: int
    hidden_size: int
    query_heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    vocabulary: int
    windows: tuple[int | None, ...]
    experts: int
    active_experts: int
    gated: bool
    tied: bool
    parts: tuple[Part, ...]

    @property
    def parameters(self) -> int:
        """Exact number of parameters, shared ones once."""
        return sum(part.parameters for part in self.parts)

    @property
    def active_parameters(self) -> int:
        """Parameters that one token meets: of all experts only those that are chosen."""
        return sum(part.parameters // part.experts * min(part.experts, self.active_experts) for part in self.parts)

    def parameters_of(self, group: Group) -> int:
        """Parameters in all parts of a group."""
        return sum(part.parameters for part in self.parts if part.group == group)


class _Fields:
    """The fields of a configuration, which says what it is when one is missing or wrong."""

    def __init__(self, fields: Mapping[str, Any], what: str) -> None:
        self._fields = fields
        self.what = what

    def whole(self, name: str, default: int | None = None) -> int:
        """A whole number of at least 1; null counts as left out. Raises InferometerError naming the field."""
        value = self._fields.get(name)
        value = default if value is None else value
        if value is None:
            raise InferometerError(f"{self.what} lacks the field `{name}`, without which nothing can be counted.")
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InferometerError(f"{self.what} has `{name}` as {value!r}; it must be a whole number above 0.")
        return value

    def flag(self, name: str, default: bool) -> bool:
        """A truth value, or what the family takes where the field is left out."""
        return bool(self._fields.get(name, default))

    def listed(self, name: str) -> list[Any] | None:
        """A list, or None where the field is left out."""
        return self._fields.get(name)

    def head_dim(self, hidden_size: int, heads: int) -> int:
        """The field `head_dim`, or the width parted among the heads."""
        if self._fields.get("head_dim") is None and hidden_size % heads:
            raise InferometerError(
                f"{self.what} has {heads} heads, which do not divide its width of {hidden_size}; add `head_dim`."
            )
        return self.whole("head_dim", hidden_size // heads)

    def windows(self, layers: int, slides: Callable[[int], bool]) -> tuple[int | None, ...]:
        """The reach of each layer's attention; `slides` says which layers have a window where the fields do not."""
        if self._fields.get("sliding_window") is None:
            return (None,) * layers
        window, kinds = self.whole("sliding_window"), self.listed("layer_types")
        sliding = [slides(layer) for layer in range(layers)]
        if kinds is not None:
            sliding = [kind == "sliding_attention" for kind in kinds]
        if len(sliding) != layers:
            raise InferometerError(f"{self.what} has {len(sliding)} `layer_types` for {layers} layers.")
        return tuple(window if slide else None for slide in sliding)


@dataclass(frozen=True)
class _Kind:
    """What tells the families with rotary positions and RMS norms from each other."""

    kv_heads_needed: bool = True  # where left out, transformers would take the number of another model
    head_dim_needed: bool = False
    qkv_bias: bool = False
    bias_fields: bool = False
    norms: int = 2
    tied: bool = False
    slides: Callable[[int], bool] = lambda layer: True
    windows_switch: bool = False


KINDS: Mapping[str, _Kind] = MappingProxyType(
    {
        "llama": _Kind(kv_heads_needed=False, bias_fields=True, slides=lambda layer: False),
        "mistral": _Kind(),
        "mixtral": _Kind(),
        "qwen2": _Kind(qkv_bias=True, windows_switch=True),
        "gemma": _Kind(head_dim_needed=True, tied=True, slides=lambda layer: False),
        "gemma2": _Kind(head_dim_needed=True, norms=4, tied=True, slides=lambda layer: layer % 2 == 0),
    }
)
NORM_NAMES = ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm")


def _of_rms_family(family: str, fields: _Fields) -> Shape:
    """Llama and its descendants: rotary positions, RMS norms, a gated MLP or experts of that kind."""
    kind = KINDS[family]
    width, layers = fields.whole("hidden_size"), fields.whole("num_hidden_layers")
    inner, vocabulary = fields.whole("intermediate_size"), fields.whole("vocab_size")
    heads = fields.whole("num_attention_heads")
    kv_heads = fields.whole("num_key_value_heads", None if kind.kv_heads_needed else heads)
    head_dim = fields.whole("head_dim") if kind.head_dim_needed else fields.head_dim(width, heads)
    experts = fields.whole("num_local_experts") if family == "mixtral" else 1
    active = fields.whole("num_experts_per_tok") if family == "mixtral" else 1
    attention_bias = kind.bias_fields and fields.flag("attention_bias", False)
    mlp_bias = kind.bias_fields and fields.flag("mlp_bias", False)
    tied = fields.flag("tie_word_embeddings", kind.tied)
    block = f"model.layers.{PER_LAYER}"
    qkv_bias = kind.qkv_bias or attention_bias
    mlp = f"{block}.block_sparse_moe.experts" if experts > 1 else f"{block}.mlp"

    def attention(name: str, outputs: int, inputs: int, split: Split, bias: bool) -> Part:
        return Part(f"{block}.self_attn.{name}", "attention", outputs, inputs, split, bias, True, layers)

    def feed_forward(name: str, outputs: int, inputs: int, split: Split) -> Part:
        return Part(f"{mlp}.{name}", "mlp", outputs, inputs, split, mlp_bias, True, layers, experts)

    parts = [
        Part("model.embed_tokens", "embedding", vocabulary, width, "outputs"),
        attention("q_proj", heads * head_dim, width, "outputs", qkv_bias),
        attention("k_proj", kv_heads * head_dim, width, "kv_heads", qkv_bias),
        attention("v_proj", kv_heads * head_dim, width, "kv_heads", qkv_bias),
        attention("o_proj", width, heads * head_dim, "inputs", attention_bias),
        feed_forward("gate_proj", inner, width, "outputs"),
        feed_forward("up_proj", inner, width, "outputs"),
        feed_forward("down_proj", width, inner, "inputs"),
        *(Part(f"{block}.{name}", "norm", width, 1, "none", layers=layers) for name in NORM_NAMES[: kind.norms]),
        Part("model.norm", "norm", width, 1, "none"),
    ]
    if experts > 1:
        parts.append(Part(f"{block}.block_sparse_moe.gate", "router", experts, width, "none", layers=layers))
    if not tied:
        parts.append(Part("lm_head", "head", vocabulary, width, "outputs"))
    switched_on = not kind.windows_switch or fields.flag("use_sliding_window", False)
    first_sliding = fields.whole("max_window_layers", 28) if kind.windows_switch else 0  # transformers' own default
    windows = fields.windows(layers, lambda layer: kind.slides(layer) and layer >= first_sliding)
    return Shape(
        family=family,
        layers=layers,
        hidden_size=width,
        query_heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate_size=inner,
        vocabulary=vocabulary,
        windows=windows if switched_on else (None,) * layers,
        experts=experts,
        active_experts=active,
        gated=True,
        tied=tied,
        parts=tuple(parts),
    )


def _classic(
    family: str, fields: _Fields, heads: int, width: int, inner: int, layers: int, tied: bool, parts: list[Part]
) -> Shape:
    """A shape with as many KV heads as query heads, a plain MLP and full attention."""
    return Shape(
        family=family,
        layers=layers,
        hidden_size=width,
        query_heads=heads,
        kv_heads=heads,
        head_dim=fields.head_dim(width, heads),
        intermediate_size=inner,
        vocabulary=fields.whole("vocab_size"),
        windows=(None,) * layers,
        experts=1,
        active_experts=1,
        gated=False,
        tied=tied,
        parts=tuple(parts),
    )


def _of_gpt2(family: str, fields: _Fields) -> Shape:
    """GPT-2: learned positions, one projection for queries, keys and values, biases everywhere."""
    width, layers, heads = fields.whole("n_embd"), fields.whole("n_layer"), fields.whole("n_head")
    inner, vocabulary = fields.whole("n_inner", 4 * width), fields.whole("vocab_size")
    tied, block = fields.flag("tie_word_embeddings", True), f"transformer.h.{PER_LAYER}"
    norms = [(f"{block}.ln_1", layers), (f"{block}.ln_2", layers), ("transformer.ln_f", 1)]
    parts = [
        Part("transformer.wte", "embedding", vocabulary, width, "outputs"),
        Part("transformer.wpe", "position", fields.whole("n_positions"), width, "none"),
        Part(f"{block}.attn.c_attn", "attention", 3 * width, width, "outputs", True, True, layers),
        Part(f"{block}.attn.c_proj", "attention", width, width, "inputs", True, True, layers),
        Part(f"{block}.mlp.c_fc", "mlp", inner, width, "outputs", True, True, layers),
        Part(f"{block}.mlp.c_proj", "mlp", width, inner, "inputs", True, True, layers),
        *(Part(name, "norm", width, 1, "none", True, layers=count) for name, count in norms),
    ]
    if not tied:
        parts.append(Part("lm_head", "head", vocabulary, width, "outputs"))
    return _classic(family, fields, heads, width, inner, layers, tied, parts)


OPT_POSITION_OFFSET = 2  # its table of positions has two rows in front that stand for padding


def _of_opt(family: str, fields: _Fields) -> Shape:
    """OPT: learned positions, and in some sizes embeddings of another width than the layers."""
    width, layers = fields.whole("hidden_size"), fields.whole("num_hidden_layers")
    inner, vocabulary = fields.whole("ffn_dim"), fields.whole("vocab_size")
    narrow = fields.whole("word_embed_proj_dim", width)
    bias, affine = fields.flag("enable_bias", True), fields.flag("layer_norm_elementwise_affine", True)
    tied, block = fields.flag("tie_word_embeddings", True), f"model.decoder.layers.{PER_LAYER}"
    norms = [(f"{block}.self_attn_layer_norm", layers), (f"{block}.final_layer_norm", layers)]
    if fields.flag("do_layer_norm_before", True) and not fields.flag("_remove_final_layer_norm", False):
        norms.append(("model.decoder.final_layer_norm", 1))
    positions = fields.whole("max_position_embeddings") + OPT_POSITION_OFFSET
    parts = [
        Part("model.decoder.embed_tokens", "embedding", vocabulary, narrow, "outputs"),
        Part("model.decoder.embed_positions", "position", positions, width, "none"),
        *(
            Part(f"{block}.self_attn.{name}", "attention", width, width, "outputs", bias, True, layers)
            for name in ("q_proj", "k_proj", "v_proj")
        ),
        Part(f"{block}.self_attn.out_proj", "attention", width, width, "inputs", bias, True, layers),
        Part(f"{block}.fc1", "mlp", inner, width, "outputs", bias, True, layers),
        Part(f"{block}.fc2", "mlp", width, inner, "inputs", bias, True, layers),
        *(Part(name, "norm", width, 1, "none", True, layers=count) for name, count in norms if affine),
    ]
    if narrow != width:
        parts.append(Part("model.decoder.project_in", "embedding", width, narrow, "none", linear=True))
        parts.append(Part("model.decoder.project_out", "head", narrow, width, "none", linear=True))
    if not tied:
        parts.append(Part("lm_head", "head", vocabulary, narrow, "outputs"))
    heads = fields.whole("num_attention_heads")
    return _classic(family, fields, heads, width, inner, layers, tied, parts)


def _of_gpt_neox(family: str, fields: _Fields) -> Shape:
    """GPT-NeoX and Pythia: rotary positions, one projection for queries, keys and values, layer norms with bias."""
    width, layers = fields.whole("hidden_size"), fields.whole("num_hidden_layers")
    inner, vocabulary = fields.whole("intermediate_size"), fields.whole("vocab_size")
    bias, tied = fields.flag("attention_bias", True), fields.flag("tie_word_embeddings", False)
    block = f"gpt_neox.layers.{PER_LAYER}"
    norms = [(f"{block}.input_layernorm", layers), (f"{block}.post_attention_layernorm", layers)]
    parts = [
        Part("gpt_neox.embed_in", "embedding", vocabulary, width, "outputs"),
        Part(f"{block}.attention.query_key_value", "attention", 3 * width, width, "outputs", bias, True, layers),
        Part(f"{block}.attention.dense", "attention", width, width, "inputs", bias, True, layers),
        Part(f"{block}.mlp.dense_h_to_4h", "mlp", inner, width, "outputs", True, True, layers),
        Part(f"{block}.mlp.dense_4h_to_h", "mlp", width, inner, "inputs", True, True, layers),
        *(
            Part(name, "norm", width, 1, "none", True, layers=count)
            for name, count in [*norms, ("gpt_neox.final_layer_norm", 1)]
        ),
    ]
    if not tied:
        parts.append(Part("lm_head", "head", vocabulary, width, "outputs"))
    heads = fields.whole("num_attention_heads")
    return _classic(family, fields, heads, width, inner, layers, tied, parts)


FAMILIES: Mapping[str, Callable[[str, _Fields], Shape]] = MappingProxyType(
    {**dict.fromkeys(KINDS, _of_rms_family), "gpt2": _of_gpt2, "opt": _of_opt, "gpt_neox": _of_gpt_neox}
)


def shape_of(fields: Mapping[str, Any], what: str) -> Shape:
    """The shape that the fields of a config.json describe; `what` names it to the user.

    Raises InferometerError naming a field that is missing or wrong, or a family that is not known here.
    """
    family = str(fields.get("model_type"))
    if family not in FAMILIES:
        raise InferometerError(
            f"{what} has the `model_type` {family}, whose parts are not known here; known are {', '.join(FAMILIES)}."
        )
    shape = FAMILIES[family](family, _Fields(fields, what))
    if shape.query_heads % shape.kv_heads:
        raise InferometerError(
            f"{what} has {shape.query_heads} query heads and {shape.kv_heads} KV heads, of which the one must be a "
            "multiple of the other; mend `num_key_value_heads`."
        )
    if shape.active_experts > shape.experts:
        raise InferometerError(
            f"{what} sends each token to {shape.active_experts} of {shape.experts} experts; mend `num_experts_per_tok`."
        )
    return shape
