"""Random-weight models of every architecture and rotary variant under test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    DeepseekV2Config,
    DeepseekV2ForCausalLM,
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPTJConfig,
    GPTJForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

VOCAB = 199
POSITIONS = 8192

_COMMON: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": POSITIONS,
}


def _llama(**rope: Any) -> Any:
    parameters = {"rope_theta": 10000.0, "rope_type": "default", **rope}
    return LlamaForCausalLM(LlamaConfig(**_COMMON, rope_parameters=parameters))


def _llama3() -> Any:
    return _llama(
        rope_type="llama3",
        rope_theta=500000.0,
        factor=8.0,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=1024,
    )


def _yarn() -> Any:
    return _llama(rope_type="yarn", factor=4.0, original_max_position_embeddings=2048)


def _neox() -> Any:
    config = GPTNeoXConfig(
        **{**_COMMON, "num_key_value_heads": None},
        rope_parameters={
            "rope_theta": 10000.0,
            "rope_type": "default",
            "partial_rotary_factor": 0.25,
        },
    )
    return GPTNeoXForCausalLM(config)


def _gptj() -> Any:
    config = GPTJConfig(
        vocab_size=VOCAB, n_positions=POSITIONS, n_embd=64, n_layer=3, n_head=4, rotary_dim=8
    )
    return GPTJForCausalLM(config)


def _gemma3() -> Any:
    config = Gemma3TextConfig(
        **_COMMON,
        head_dim=16,
        sliding_window=16,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
        query_pre_attn_scalar=16,
    )
    return Gemma3ForCausalLM(config)


def _gemma2() -> Any:
    return Gemma2ForCausalLM(Gemma2Config(**_COMMON, head_dim=16, sliding_window=16))


_MLA: dict[str, Any] = {
    **_COMMON,
    "num_key_value_heads": 4,
    "kv_lora_rank": 24,
    "q_lora_rank": 32,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 2,
}


def _deepseek3() -> Any:
    return DeepseekV3ForCausalLM(DeepseekV3Config(**_MLA))


def _deepseek2() -> Any:
    return DeepseekV2ForCausalLM(DeepseekV2Config(**_MLA))


MODELS: dict[str, Callable[[], Any]] = {
    "llama": _llama,
    "linear": lambda: _llama(rope_type="linear", factor=4.0),
    "llama3": _llama3,
    "yarn": _yarn,
    "neox_partial": _neox,
    "gptj": _gptj,
    "gemma3": _gemma3,
    "gemma2": _gemma2,
    "mistral_sliding": lambda: MistralForCausalLM(MistralConfig(**_COMMON, sliding_window=16)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**_COMMON, head_dim=16)),
    "deepseek3_mla": _deepseek3,
    "deepseek2_mla": _deepseek2,
}


def make(name: str, dtype: torch.dtype = torch.float32, seed: int = 7) -> Any:
    """A model in evaluation mode with weights large enough that layers matter."""
    torch.manual_seed(seed)
    model = MODELS[name]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3.0)
    return model.to(dtype)
