"""Decoders with the parts, names and arithmetic of other packages' own, in plain torch, and the models around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm


class _Block(nn.Module):
    """A residual block of HiFi-GAN: in pairs, or one by one."""

    def __init__(self, channels: int, kernel: int, dilations: Sequence[int], pairs: bool) -> None:
        super().__init__()
        for name in ("convs1", "convs2") if pairs else ("convs",):
            rows = [1] * len(dilations) if name == "convs2" else dilations
            convs = [nn.Conv1d(channels, channels, kernel, dilation=d, padding=(kernel - 1) * d // 2) for d in rows]
            setattr(self, name, nn.ModuleList(weight_norm(conv) for conv in convs))

    def forward(self, x: Tensor) -> Tensor:
        lists: list[Any] = [getattr(self, name) for name in ("convs1", "convs2", "convs") if hasattr(self, name)]
        for row in zip(*lists, strict=True):
            y = x
            for conv in row:
                y = conv(F.leaky_relu(y, 0.1))
            x = x + y
        return x


class _Generator(nn.Module):
    ups_name, cond_name = "ups", "cond"

    def __init__(self, latent: int = 6, speaker: int = 0, *, pairs: bool = True, bias: bool = False) -> None:
        super().__init__()
        rates, width = (4, 3), 16
        self.num_kernels, self.num_upsamples = 2, len(rates)
        self.conv_pre = nn.Conv1d(latent, width, 7, padding=3)
        ups = [nn.ConvTranspose1d(width >> i, width >> i + 1, 2 * u + u % 2, u, (u + u % 2) // 2)
               for i, u in enumerate(rates)]  # fmt: skip
        setattr(self, self.ups_name, nn.ModuleList(weight_norm(up) for up in ups))
        self.resblocks = nn.ModuleList(
            _Block(width >> i + 1, kernel, (1, 3), pairs) for i in range(len(rates)) for kernel in (3, 7)
        )
        self.conv_post = nn.Conv1d(width >> len(rates), 1, 7, padding=3, bias=bias)
        if speaker:
            setattr(self, self.cond_name, nn.Conv1d(speaker, width, 1))

    def forward(self, x: Tensor, g: Tensor | None = None) -> Tensor:
        x = self.conv_pre(x)
        if g is not None:
            x = x + getattr(self, self.cond_name)(g)
        for i, up in enumerate(getattr(self, self.ups_name)):
            x = up(F.leaky_relu(x, 0.1))
            blocks = self.resblocks[i * self.num_kernels : (i + 1) * self.num_kernels]
            x = torch.stack([block(x) for block in blocks]).mean(0)
        return torch.tanh(self.conv_post(F.leaky_relu(x)))


class Generator(_Generator):
    """github.com/jaywalnut310/vits, and its kin."""


class HifiganGenerator(_Generator):
    """Coqui's."""

    cond_name = "cond_layer"
    inference_padding = 2


class SynthesizerTrn(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.dec = Generator(**options)


class Vits(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.waveform_decoder = HifiganGenerator(**options)


class SineGen(nn.Module):
    def __init__(self, amp: float, std: float, threshold: float) -> None:
        super().__init__()
        self.sine_amp, self.noise_std, self.voiced_threshold = amp, std, threshold


class SineGen2(SineGen):
    pass


class _Source(nn.Module):
    def __init__(self, sines: SineGen, harmonics: int) -> None:
        super().__init__()
        self.l_sin_gen, self.l_linear = sines, nn.Linear(harmonics + 1, 1)


class CausalConv1d(nn.Conv1d):
    """Sees the past only, or what is ahead only."""

    def __init__(self, inputs: int, outputs: int, kernel: int, dilation: int = 1, causal_type: str = "left") -> None:
        super().__init__(inputs, outputs, kernel, dilation=dilation)
        self.causal_type = causal_type

    def forward(self, x: Tensor) -> Tensor:
        reach = (self.kernel_size[0] - 1) * self.dilation[0]
        return super().forward(F.pad(x, (reach, 0) if self.causal_type == "left" else (0, reach)))


class CausalConv1dDownSample(nn.Conv1d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (self.stride[0] - 1, 0)))


class CausalConv1dUpsample(nn.Conv1d):
    def __init__(self, inputs: int, outputs: int, kernel: int, rate: int) -> None:
        super().__init__(inputs, outputs, kernel)
        self.upsample = nn.Upsample(scale_factor=rate, mode="nearest")

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(self.upsample(x), (self.kernel_size[0] - 1, 0)))


class Snake(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        alpha = self.alpha[:, None]
        return x + (1.0 / (alpha + 1e-9)) * torch.sin(x * alpha) ** 2


class _SnakeBlock(nn.Module):
    def __init__(self, channels: int, kernel: int, dilations: Sequence[int], causal: bool) -> None:
        super().__init__()

        def conv(dilation: int) -> nn.Module:
            padding = (kernel - 1) * dilation // 2
            plain = nn.Conv1d(channels, channels, kernel, dilation=dilation, padding=padding)
            made: nn.Module = weight_norm(CausalConv1d(channels, channels, kernel, dilation) if causal else plain)
            return made

        self.convs1 = nn.ModuleList(conv(d) for d in dilations)
        self.convs2 = nn.ModuleList(conv(1) for _ in dilations)
        self.activations1 = nn.ModuleList(Snake(channels) for _ in dilations)
        self.activations2 = nn.ModuleList(Snake(channels) for _ in dilations)

    def forward(self, x: Tensor) -> Tensor:
        for act1, conv1, act2, conv2 in zip(
            self.activations1, self.convs1, self.activations2, self.convs2, strict=True
        ):
            x = x + conv2(act2(conv1(act1(x))))
        return x


class ConvRNNF0Predictor(nn.Module):
    def __init__(self, num_class: int = 1, in_channels: int = 80, cond_channels: int = 512) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(5):
            layers += [weight_norm(self.conv(cond_channels if i else in_channels, cond_channels, i)), nn.ELU()]
        self.condnet, self.classifier = nn.Sequential(*layers), nn.Linear(cond_channels, num_class)

    def conv(self, inputs: int, outputs: int, layer: int) -> nn.Module:
        return nn.Conv1d(inputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        f0: Tensor = self.classifier(self.condnet(x).transpose(1, 2)).squeeze(-1).abs()
        return f0


class CausalConvRNNF0Predictor(ConvRNNF0Predictor):
    def conv(self, inputs: int, outputs: int, layer: int) -> nn.Module:
        return CausalConv1d(inputs, outputs, 3 if layer else 4, causal_type="left" if layer else "right")


class HiFTGenerator(nn.Module):
    """That of CosyVoice and Chatterbox."""

    causal = False

    def __init__(
        self,
        f0_predictor: nn.Module,
        sines: type[SineGen],
        *,
        in_channels: int = 80,
        base_channels: int,
        nb_harmonics: int = 8,
        sampling_rate: int,
        nsf_alpha: float = 0.1,
        nsf_sigma: float = 0.003,
        nsf_voiced_threshold: float = 10,
        upsample_rates: Sequence[int],
        upsample_kernel_sizes: Sequence[int],
        istft_params: Mapping[str, int] = MappingProxyType({"n_fft": 16, "hop_len": 4}),
        resblock_kernel_sizes: Sequence[int] = (3, 7, 11),
        resblock_dilation_sizes: Sequence[Sequence[int]] = ((1, 3, 5),) * 3,
        source_resblock_kernel_sizes: Sequence[int],
        source_resblock_dilation_sizes: Sequence[Sequence[int]],
        lrelu_slope: float = 0.1,
        audio_limit: float = 0.99,
        conv_pre_look_right: int = 4,
    ) -> None:
        super().__init__()
        self.nb_harmonics, self.sampling_rate, self.istft_params = nb_harmonics, sampling_rate, istft_params
        self.lrelu_slope, self.audio_limit = lrelu_slope, audio_limit
        self.num_kernels = len(resblock_kernel_sizes)
        self.m_source = _Source(sines(nsf_alpha, nsf_sigma, nsf_voiced_threshold), nb_harmonics)
        bins, causal = istft_params["n_fft"] + 2, self.causal
        if causal:
            self.conv_pre_look_right = conv_pre_look_right
            self.conv_pre = weight_norm(
                CausalConv1d(in_channels, base_channels, conv_pre_look_right + 1, causal_type="right")
            )
        else:
            self.conv_pre = weight_norm(nn.Conv1d(in_channels, base_channels, 7, padding=3))
        widths = [base_channels >> i for i in range(len(upsample_rates) + 1)]
        ups: list[nn.Module] = []
        for i, (u, k) in enumerate(zip(upsample_rates, upsample_kernel_sizes, strict=True)):
            if causal:
                ups.append(CausalConv1dUpsample(widths[i], widths[i + 1], k, u))
            else:
                ups.append(nn.ConvTranspose1d(widths[i], widths[i + 1], k, u, (k - u) // 2))
        self.ups = nn.ModuleList(weight_norm(up) for up in ups)
        downs, stride = [], 1
        for width, rate in zip(widths[:0:-1], [*upsample_rates[:0:-1], 1], strict=True):
            if stride == 1:
                downs.append(CausalConv1d(bins, width, 1) if causal else nn.Conv1d(bins, width, 1))
            elif causal:
                downs.append(CausalConv1dDownSample(bins, width, 2 * stride, stride))
            else:
                downs.append(nn.Conv1d(bins, width, 2 * stride, stride, stride // 2))
            stride *= rate
        self.source_downs = nn.ModuleList(downs[::-1])
        rows = zip(widths[1:], source_resblock_kernel_sizes, source_resblock_dilation_sizes, strict=True)
        self.source_resblocks = nn.ModuleList(_SnakeBlock(width, k, d, causal) for width, k, d in rows)
        self.resblocks = nn.ModuleList(
            _SnakeBlock(width, k, d, causal)
            for width in widths[1:]
            for k, d in zip(resblock_kernel_sizes, resblock_dilation_sizes, strict=True)
        )
        last = CausalConv1d(widths[-1], bins, 7) if causal else nn.Conv1d(widths[-1], bins, 7, padding=3)
        self.conv_post = weight_norm(last)
        self.f0_predictor = f0_predictor

    def decode(self, x: Tensor, s: Tensor) -> Tensor:
        n_fft, hop = self.istft_params["n_fft"], self.istft_params["hop_len"]
        window = torch.hann_window(n_fft)
        spectrum = torch.stft(s[:, 0], n_fft, hop, n_fft, window, return_complex=True)
        features = torch.cat([spectrum.real, spectrum.imag], 1)
        x = self.conv_pre(x)
        for i, up in enumerate(self.ups):
            x = up(F.leaky_relu(x, self.lrelu_slope))
            if i + 1 == len(self.ups):
                x = F.pad(x, (1, 0), mode="reflect")
            x = x + self.source_resblocks[i](self.source_downs[i](features))
            blocks = self.resblocks[i * self.num_kernels : (i + 1) * self.num_kernels]
            x = torch.stack([block(x) for block in blocks]).mean(0)
        magnitude, phase = self.conv_post(F.leaky_relu(x)).chunk(2, 1)
        made = torch.polar(magnitude.exp().clip(max=1e2), torch.sin(phase))
        return torch.istft(made, n_fft, hop, n_fft, window).clamp(-self.audio_limit, self.audio_limit)


class CausalHiFTGenerator(HiFTGenerator):
    causal = True


class CosyVoiceModel:
    def __init__(self, hift: nn.Module) -> None:
        self.hift = hift


class CosyVoice:
    def __init__(self, hift: nn.Module) -> None:
        self.model = CosyVoiceModel(hift)


class S3Gen(nn.Module):
    def __init__(self, hift: nn.Module) -> None:
        super().__init__()
        self.mel2wav = hift


class ChatterboxTTS:
    def __init__(self, hift: nn.Module) -> None:
        self.s3gen = S3Gen(hift).eval()
