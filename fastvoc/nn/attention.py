"""A transformer's layer along time."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastvoc.nn.layer import Layer
from fastvoc.nn.norm import LayerNorm
from fastvoc.nn.prepared import Prepared
from fastvoc.ops import attention_block as op


class _Weight(nn.Module):
    """A linear layer's weight [out, in], which an op of the layer around it takes."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels))


class _Scale(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.empty(channels))


class _Attention(nn.Module):
    def __init__(self, channels: int, heads: int, kv_heads: int, head_dim: int) -> None:
        super().__init__()
        self.q_proj = _Weight(channels, heads * head_dim)
        self.k_proj = _Weight(channels, kv_heads * head_dim)
        self.v_proj = _Weight(channels, kv_heads * head_dim)
        self.o_proj = _Weight(heads * head_dim, channels)


class _Expansion(nn.Module):
    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = _Weight(channels, hidden)
        self.fc2 = _Weight(hidden, channels)


class AttentionBlock(Layer, nn.Module):
    """attention_block with its weights, under Transformers' names: `input_layernorm`, `self_attn`, `mlp`, and so on."""

    REACH = "past"

    def __init__(
        self,
        channels: int,
        hidden: int,
        heads: int,
        window: int,
        *,
        kv_heads: int | None = None,
        head_dim: int | None = None,
        theta: float = 10000.0,
        eps: float = 1e-5,
        layer_scale: float = 0.01,
    ) -> None:
        super().__init__()
        self._heads, self._kv_heads = heads, heads if kv_heads is None else kv_heads
        self._window, self._theta, self._layer_scale = window, theta, layer_scale
        size = channels // heads if head_dim is None else head_dim
        self.input_layernorm = LayerNorm(channels, eps=eps)
        self.self_attn = _Attention(channels, heads, self._kv_heads, size)
        self.self_attn_layer_scale = _Scale(channels)
        self.post_attention_layernorm = LayerNorm(channels, eps=eps)
        self.mlp = _Expansion(channels, hidden)
        self.mlp_layer_scale = _Scale(channels)
        self.prepared = Prepared(op.OP, self.params, self._tensors)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal with deviation 0.02 cut at 2; what is added begins small, times `layer_scale`."""
        for module in (*self.self_attn.children(), *self.mlp.children()):
            nn.init.trunc_normal_(module.weight, std=0.02)  # type: ignore[arg-type]
        for scale in (self.self_attn_layer_scale, self.mlp_layer_scale):
            nn.init.constant_(scale.scale, self._layer_scale)

    def params(self) -> op.AttentionBlockParams:
        """The op's view of this layer."""
        attention, mlp = self.self_attn, self.mlp
        return op.AttentionBlockParams(
            attention.q_proj.weight,
            attention.k_proj.weight,
            attention.v_proj.weight,
            attention.o_proj.weight,
            mlp.fc1.weight,
            mlp.fc2.weight,
            self.input_layernorm.params(),
            self.post_attention_layernorm.params(),
            self.self_attn_layer_scale.scale,
            self.mlp_layer_scale.scale,
            self._heads,
            self._kv_heads,
            self._window,
            self._theta,
        )

    def _tensors(self) -> list[Tensor]:
        return list(self.parameters())

    def width(self) -> int:
        return self.mlp.fc2.weight.shape[0]
