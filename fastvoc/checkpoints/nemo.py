"""NVIDIA NeMo (github.com/NVIDIA/NeMo): `.nemo` archives of `model_config.yaml` and `model_weights.ckpt`.

Residual blocks are numbered stage.block; the oldest files number them through.
"""

from __future__ import annotations

import re

from fastvoc.checkpoints.checkpoint import Checkpoint, make_config
from fastvoc.checkpoints.source import Source
from fastvoc.checkpoints.state import canonical_state, renamed

_CONFIG = "model_config.yaml"
_NESTED = re.compile(r"^resblocks\.(\d{1,4})\.(\d{1,4})\.")


def detect(source: Source) -> bool:
    return source.has(_CONFIG) and any(name.startswith("generator.conv_pre.") for name in source.entries)


def load(source: Source) -> Checkpoint:
    fields = source.yaml(_CONFIG)
    generator = fields.sub("generator")
    kernels = generator.integers("resblock_kernel_sizes")

    def flat(name: str) -> str:
        return _NESTED.sub(lambda m: f"resblocks.{int(m[1]) * len(kernels) + int(m[2])}.", name)

    tensors = renamed(source, source.with_prefix("generator."), flat)
    config = make_config(
        fields.path,
        sample_rate=fields.sub("preprocessor").integer("sample_rate"),
        num_mels=generator.integer("initial_input_size", 80),
        upsample_rates=generator.integers("upsample_rates"),
        upsample_kernel_sizes=generator.integers("upsample_kernel_sizes"),
        upsample_initial_channel=generator.integer("upsample_initial_channel"),
        # Upstream compares with the number 1; anything else is its second kind of block.
        resblock="1" if generator.values.get("resblock") == 1 else "2",
        resblock_kernel_sizes=kernels,
        resblock_dilation_sizes=generator.rows("resblock_dilation_sizes"),
        post_bias="conv_post.bias" in tensors,
        # NeMo's window is the symmetric Hann window, which no MelConfig has.
        mel=None,
    )
    return Checkpoint(config, canonical_state(source, config, tensors), "nemo", {"container": source.container})
