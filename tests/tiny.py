"""Tiny causal models with a working tokenizer, built from configurations in well under a second.

Random weights have no outliers, so some are planted: two channels of each norm are a hundred times as large.
"""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

WORDS = [f"word{number}" for number in range(60)]
CONTEXT_TOKENS = 64
OUTLIER_CHANNELS = (3, 11)
OUTLIER_FACTOR = 100.0

COMMON = {"vocab_size": 64, "max_position_embeddings": CONTEXT_TOKENS, "bos_token_id": 0, "eos_token_id": 1}
LLAMA_SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", **LLAMA_SHAPE, "tie_word_embeddings": True},
    "qwen2": {"model_type": "qwen2", **LLAMA_SHAPE},
    "gemma": {"model_type": "gemma", **LLAMA_SHAPE, "head_dim": 8},
    "gemma2": {"model_type": "gemma2", **LLAMA_SHAPE, "head_dim": 8, "sliding_window": 32},
    "gpt2": {"model_type": "gpt2", "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": CONTEXT_TOKENS},
    "opt": {
        "model_type": "opt",
        "hidden_size": 32,
        "word_embed_proj_dim": 32,
        "ffn_dim": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "pad_token_id": 1,
    },
    "gpt_neox": {
        "model_type": "gpt_neox",
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
    },
    "bloom": {"model_type": "bloom", "hidden_size": 32, "n_layer": 3, "n_head": 4},
    "mixtral": {"model_type": "mixtral", **LLAMA_SHAPE, "num_local_experts": 2, "num_experts_per_tok": 1},
}


def tiny_model(kind: str = "llama", *, seed: int = 0, outliers: bool = True) -> PreTrainedModel:
    """A model of one of CONFIGS with seeded random weights, in float32 and evaluation mode."""
    torch.manual_seed(seed)
    fields = dict(CONFIGS[kind])
    config = AutoConfig.for_model(fields.pop("model_type"), **{**COMMON, **fields})
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1 and ("norm" in name or "ln_" in name):
                parameter.add_(0.2 * torch.randn_like(parameter))
                if outliers and name.endswith("weight"):
                    parameter[list(OUTLIER_CHANNELS)] *= OUTLIER_FACTOR
    model.config.use_cache = False
    model.requires_grad_(False).eval()
    return model


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer for texts made of WORDS."""
    vocabulary = {token: index for index, token in enumerate(["<s>", "</s>", "<pad>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def tiny_checkpoint(folder: Path, kind: str = "llama", **options: Any) -> Path:
    """Save a tiny model and its tokenizer as a folder of safetensors, as the hub would serve it."""
    tiny_model(kind, **options).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def tiny_texts(count: int = 40, words: int = 30, *, seed: int = 0) -> list[str]:
    """Texts of random WORDS."""
    generator = torch.Generator().manual_seed(seed)
    picks = torch.randint(len(WORDS), (count, words), generator=generator).tolist()
    return [" ".join(WORDS[pick] for pick in row) for row in picks]
