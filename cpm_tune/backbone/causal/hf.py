"""What this family takes of transformers, imported in silence: torchao, which it imports, warns on
every machine of CUDA kernels that cannot be loaded."""

from __future__ import annotations

from cpm_tune.backbone.quantize import quiet_logging

with quiet_logging():
    from transformers import (
        CONFIG_MAPPING,
        AttentionInterface,
        AttentionMaskInterface,
        AutoModelForCausalLM,
        PretrainedConfig,
        __version__,
    )
    from transformers.cache_utils import DynamicLayer
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask
    from transformers.pytorch_utils import Conv1D
    from transformers.utils import logging

__all__ = [
    "CONFIG_MAPPING",
    "AttentionInterface",
    "AttentionMaskInterface",
    "AutoModelForCausalLM",
    "Conv1D",
    "DynamicLayer",
    "PretrainedConfig",
    "__version__",
    "logging",
    "sdpa_attention_forward",
    "sdpa_mask",
]
