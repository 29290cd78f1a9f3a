"""The language model over EnCodec's codes (Défossez et al. 2022, arXiv 2210.13438, section 3.3), for entropy coding.

Step t predicts all codebooks of frame t from the frames before it. The probabilities steer an arithmetic coder, which
reads a file only with the very numbers it was written with: operations, their order and their shapes are those of
github.com/facebookresearch/encodec, one step at a time. Matrix products, attention and softmax split their sums by the
number of threads, so that is a part of the format, too. `fastvoc.models.integer_lm` has no such frailty.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastvoc.ecdc.coder_python import Cdf, Codes
from fastvoc.errors import ArgumentError, DeviceError, DtypeError
from fastvoc.models.checks import require, require_positive
from fastvoc.models.families import Config
from fastvoc.nn.model import Model
from fastvoc.nn.prepared import Prepared
from fastvoc.runtime.autocast import without_autocast
from fastvoc.runtime.forks import forked

# The published sizes are a small part of these; beyond them lies only a file made to exhaust memory.
_MOST = {"codebooks": 64, "codes": 1 << 14, "dim": 4096, "layers": 64, "heads": 256, "hidden": 4096, "past": 4096}
_TOTAL = 1 << 24
_LEAST_SHARE = 2
_ROUNDOFF = 1e-8
_LIKELY_THREADS = (1, 2, 4, 8, 6, 16, 12, 10, 3, 5, 7, 9, 14, 11, 13, 15)


@dataclass(frozen=True)
class EncodecLmConfig(Config):
    """Sizes: `past` is the number of steps that attention looks back, 3.5 s; `sample_rate` is that of the codec."""

    family: ClassVar[str] = "encodec_lm"

    sample_rate: int = 24000
    codebooks: int = 32
    codes: int = 1024
    dim: int = 200
    layers: int = 5
    heads: int = 8
    hidden: int = 800
    past: int = 262

    def __post_init__(self) -> None:
        require_positive(self, "sample_rate", *_MOST)
        for name, most in _MOST.items():
            require(self, getattr(self, name) <= most, name, f"at most {most}")
        require(self, self.dim % 2 == 0 and self.dim >= 4, "dim", "an even number from 4 on")
        require(self, self.dim % self.heads == 0, "heads", f"a divisor of dim, {self.dim}")
        require(self, self.codes > 1, "codes", "at least 2")


class _Layer(nn.Module):
    """Attention over this and past steps, then two linear layers; each is added and normalised afterwards."""

    def __init__(self, c: EncodecLmConfig) -> None:
        super().__init__()
        self.past = c.past
        self.self_attn = nn.MultiheadAttention(c.dim, c.heads, batch_first=True)
        self.linear1 = nn.Linear(c.dim, c.hidden)
        self.linear2 = nn.Linear(c.hidden, c.dim)
        self.norm1 = nn.LayerNorm(c.dim)
        self.norm2 = nn.LayerNorm(c.dim)

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        """Inputs [B, T, dim] of this call and [B, P, dim] of earlier ones -> [B, T, dim]."""
        keys = torch.cat([before, x], dim=1)
        positions = torch.arange(keys.shape[1], device=x.device)
        distance = positions[before.shape[1] :, None] - positions[None]
        hidden = (distance < 0) | (distance > self.past)
        attended = self.self_attn(x, keys, keys, attn_mask=hidden, need_weights=False)[0]
        x = self.norm1(x + attended)
        return self.norm2(x + self.linear2(F.gelu(self.linear1(x))))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class LmState:
    """What a stream remembers: each layer's last inputs [B, up to past, dim], and the number of steps so far."""

    before: tuple[Tensor, ...]
    steps: int


class _Transformer(nn.Module):
    def __init__(self, c: EncodecLmConfig) -> None:
        super().__init__()
        self.norm_in = nn.LayerNorm(c.dim)
        self.layers = nn.ModuleList(_Layer(c) for _ in range(c.layers))


class EncodecLm(Model):
    """Probabilities of the next codes; parameters carry the published names."""

    def __init__(self, config: EncodecLmConfig) -> None:
        super().__init__()
        self.config = config
        self.transformer = _Transformer(config)
        self.emb = nn.ModuleList(nn.Embedding(config.codes + 1, config.dim) for _ in range(config.codebooks))
        self.linears = nn.ModuleList(nn.Linear(config.dim, config.codes) for _ in range(config.codebooks))

    def start(self, batch: int = 1) -> LmState:
        """The state before the first step: attention sees one input of zeros."""
        zeros = self.linears[0].weight.new_zeros((batch, 1, self.config.dim))  # type: ignore[operator]
        return LmState((zeros,) * self.config.layers, 0)

    @without_autocast
    def forward(self, tokens: Tensor, state: LmState | None = None) -> tuple[Tensor, LmState]:
        """Tokens int64 [B, K, T], 0 at the start of a stream and 1 + code of the frame before after it -> probabilities
        [B, K, T, codes] and the state after these steps. K is 1 to all codebooks."""
        state = self.start(len(tokens)) if state is None else state
        x = sum(self.emb[k](tokens[:, k]) for k in range(tokens.shape[1]))
        x = self.transformer.norm_in(x)
        x = x + _positions(state.steps, x)
        before = []
        for layer, past in zip(self.transformer.layers, state.before, strict=True):
            before.append(torch.cat([past, x], dim=1)[:, -self.config.past :])
            x = layer(x, past)
        # Softmax runs over an axis of this stride in the original, too.
        logits = torch.stack([self.linears[k](x) for k in range(tokens.shape[1])], dim=1).permute(0, 3, 1, 2)
        return torch.softmax(logits, dim=1).permute(0, 2, 3, 1), LmState(tuple(before), state.steps + tokens.shape[2])

    def layers(self) -> dict[str, Prepared]:
        """None: the steps are torch's own, since their rounding is part of the file format."""
        return {}


def _positions(steps: int, x: Tensor) -> Tensor:
    half = x.shape[2] // 2
    time = torch.arange(steps, steps + x.shape[1], device=x.device).view(1, -1, 1).to(x.dtype)
    phase = time / (10000 ** (torch.arange(half, dtype=x.dtype, device=x.device).view(1, 1, -1) / (half - 1)))
    return torch.cat([torch.cos(phase), torch.sin(phase)], dim=-1)


def quantised_cdf(probabilities: Tensor) -> Cdf:
    """The arithmetic coder's table of float32 probabilities [..., N]: uint32 of the same shape, ends of 24-bit shares.

    Each symbol has a share of 2 at least; what rounding adds beyond 2^24 is taken from the largest.
    """
    size = probabilities.shape[-1]
    rounded = torch.floor(probabilities / _ROUNDOFF) * _ROUNDOFF
    shares = torch.floor((1 - _LEAST_SHARE * size / _TOTAL) * _TOTAL * rounded).long() + _LEAST_SHARE
    excess = (shares.sum(-1, keepdim=True) - _TOTAL).clamp(min=0)
    shares.scatter_add_(-1, shares.argmax(-1, keepdim=True), -excess)
    return shares.cumsum(-1).numpy().astype(np.uint32)


class FloatLm:
    """The model as the .ecdc format uses it (`fastvoc.ecdc.LanguageModel`): for files of version 0.

    threads: of torch, on which it computes whatever torch is set to. A file decodes on the number that it was made on.
    """

    fingerprint = ""

    def __init__(self, model: EncodecLm, threads: int = 1) -> None:
        """Raises DeviceError or DtypeError for a model that is not on the CPU in float32, ArgumentError for threads."""
        if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
            raise ArgumentError(f"threads: expected a positive integer, got {threads!r}")
        weight = model.linears[0].weight
        if weight.device.type != "cpu":
            raise DeviceError(f"model: expected one on the CPU, got {weight.device}")
        if weight.dtype is not torch.float32:
            raise DtypeError(f"model: expected float32 weights, got {weight.dtype}")
        self.model, self.threads = model.eval(), threads

    def others(self) -> list[FloatLm]:
        """The same on the other numbers of threads from 1 to 16, likely ones first.

        None in a forked process, in which more than one thread may wait for ever.
        """
        return [] if forked() else [FloatLm(self.model, n) for n in _LIKELY_THREADS if n != self.threads]

    def start(self, codebooks: int) -> FloatSteps:
        """Begins a segment. Raises ArgumentError when the model has fewer codebooks."""
        check_codebooks(codebooks, self.model.config)
        return FloatSteps(self.model, codebooks, self.threads)


def check_codebooks(codebooks: int, config: EncodecLmConfig) -> None:
    """Raises ArgumentError unless the model has so many codebooks."""
    if not 1 <= codebooks <= config.codebooks:
        raise ArgumentError(f"codebooks: the language model has {config.codebooks}, the stream {codebooks}")


class FloatSteps:
    """A segment's way through the model, `fastvoc.ecdc.Steps`."""

    def __init__(self, model: EncodecLm, codebooks: int, threads: int) -> None:
        self._model, self._threads = model, threads
        self._state: LmState | None = None
        self._codebooks = codebooks

    def step(self, codes: Codes | None) -> Cdf:
        """The next distribution [K, codes], after codes [K]; None at the start."""
        tokens = torch.zeros((1, self._codebooks, 1), dtype=torch.int64, device="cpu")
        if codes is not None:
            tokens[0, :, 0] = torch.from_numpy(codes.astype(np.int64)) + 1
        with _on_threads(self._threads), torch.no_grad():
            probabilities, self._state = self._model(tokens, self._state)
            return quantised_cdf(probabilities[0, :, 0])


@contextmanager
def _on_threads(count: int) -> Iterator[None]:
    """Sums depend on how they are shared out among threads."""
    before = torch.get_num_threads()
    if before == count:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
