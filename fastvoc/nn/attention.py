"""A transformer's layer along time."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastvoc.errors import ArgumentError
from fastvoc.nn.layer import Layer
from fastvoc.nn.norm import LayerNorm
from fastvoc.nn.prepared import Prepared
from fastvoc.nn.quantized import QuantizedInput
from fastvoc.ops import attention_block as op


class _Weight(QuantizedInput):
    """A linear layer's weight [out, in], which an op of the layer around it takes; its input may be bytes."""

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
            self._ranges(),
        )

    def _ranges(self) -> Tensor | None:
        """Those of the four products, None where the layer computes in floating point."""
        a, mlp = self.self_attn, self.mlp
        spans = [weight.input_range for weight in (a.q_proj, a.k_proj, a.v_proj, a.o_proj, mlp.fc1, mlp.fc2)]
        given = [span for span in spans if span is not None]
        if not given:
            return None
        if len(given) < len(spans):
            raise ArgumentError(f"attention_block: input_range: expected all {len(spans)} or none, got {len(given)}")
        query, key, value, *others = given
        if not (torch.equal(query, key) and torch.equal(query, value)):
            raise ArgumentError("attention_block: input_range: expected the same for q_proj, k_proj and v_proj")
        return torch.stack([query, *others])

    def _tensors(self) -> list[Tensor]:
        return [*self.parameters(), *self.buffers()]

    def saved_by_bytes(self) -> float:
        return 0.75 * sum(module.weight.numel() for module in self.modules() if isinstance(module, _Weight))

    def width(self) -> int:
        return self.mlp.fc2.weight.shape[0]
