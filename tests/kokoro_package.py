"""Kokoro's decoder with the parts, names and arithmetic of its package, in plain torch, and the models around it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm


class _AdaIn(nn.Module):
    def __init__(self, channels: int, style: int) -> None:
        super().__init__()
        self.norm, self.fc = nn.InstanceNorm1d(channels, affine=True), nn.Linear(style, 2 * channels)

    def forward(self, x: Tensor, s: Tensor) -> Tensor:
        gamma, beta = self.fc(s)[:, :, None].chunk(2, 1)
        y: Tensor = (1 + gamma) * self.norm(x) + beta
        return y


class _Styled(nn.Module):
    """A block of the decoder; `double`: at twice the rate."""

    def __init__(self, inputs: int, outputs: int, style: int, *, double: bool = False) -> None:
        super().__init__()
        self.conv1 = weight_norm(nn.Conv1d(inputs, outputs, 3, padding=1))
        self.conv2 = weight_norm(nn.Conv1d(outputs, outputs, 3, padding=1))
        self.norm1, self.norm2 = _AdaIn(inputs, style), _AdaIn(outputs, style)
        self.conv1x1 = weight_norm(nn.Conv1d(inputs, outputs, 1, bias=False)) if inputs != outputs else None
        self.rate = 2 if double else 1
        pool = nn.ConvTranspose1d(inputs, inputs, 3, 2, 1, output_padding=1, groups=inputs)
        self.pool: nn.Module = weight_norm(pool) if double else nn.Identity()

    def forward(self, x: Tensor, s: Tensor) -> Tensor:
        y = self.conv1(self.pool(F.leaky_relu(self.norm1(x, s), 0.2)))
        y = self.conv2(F.leaky_relu(self.norm2(y, s), 0.2))
        x = x.repeat_interleave(self.rate, 2)
        return (y + (x if self.conv1x1 is None else self.conv1x1(x))) / math.sqrt(2)


class _Snaked(nn.Module):
    def __init__(self, channels: int, kernel: int, dilations: Sequence[int], style: int) -> None:
        super().__init__()
        for i, rows in enumerate((dilations, [1] * len(dilations)), 1):
            convs = [nn.Conv1d(channels, channels, kernel, dilation=d, padding=(kernel - 1) * d // 2) for d in rows]
            setattr(self, f"convs{i}", nn.ModuleList(weight_norm(conv) for conv in convs))
            setattr(self, f"adain{i}", nn.ModuleList(_AdaIn(channels, style) for _ in rows))
            alphas = (nn.Parameter(0.5 + torch.rand(1, channels, 1)) for _ in rows)
            setattr(self, f"alpha{i}", nn.ParameterList(alphas))

    def forward(self, x: Tensor, s: Tensor) -> Tensor:
        mine: Any = self
        for m in range(len(mine.convs1)):
            y = x
            for norms, alphas, convs in (
                (mine.adain1, mine.alpha1, mine.convs1),
                (mine.adain2, mine.alpha2, mine.convs2),
            ):
                y = norms[m](y, s)
                y = convs[m](y + torch.sin(alphas[m] * y) ** 2 / alphas[m])
            x = x + y
        return x


class _SineGen(nn.Module):
    def __init__(self, rate: int, scale: int, harmonics: int) -> None:
        super().__init__()
        self.sampling_rate, self.upsample_scale, self.harmonic_num = rate, scale, harmonics
        self.sine_amp, self.noise_std, self.voiced_threshold = 0.1, 0.003, 10

    def forward(self, f0: Tensor) -> Tensor:
        """[B, S, 1] -> [B, S, harmonics + 1]."""
        scale = self.upsample_scale
        cycles = (f0 * torch.arange(1, self.harmonic_num + 2) / self.sampling_rate).double().mT % 1
        phase = F.interpolate(cycles, scale_factor=1 / scale, mode="linear").cumsum(2) * scale
        sines = torch.sin(F.interpolate(phase, scale_factor=scale, mode="linear") * 2 * math.pi).mT.to(f0.dtype)
        voiced = (f0 > self.voiced_threshold).to(f0.dtype)
        noise = torch.randn_like(sines) * (voiced * self.noise_std + (1 - voiced) * self.sine_amp / 3)
        return self.sine_amp * sines * voiced + noise


class _Source(nn.Module):
    def __init__(self, sines: _SineGen) -> None:
        super().__init__()
        self.l_sin_gen, self.l_linear = sines, nn.Linear(sines.harmonic_num + 1, 1)

    def forward(self, f0: Tensor) -> tuple[Tensor, None, None]:
        return torch.tanh(self.l_linear(self.l_sin_gen(f0))), None, None


class TorchSTFT(nn.Module):
    def __init__(self, n_fft: int, hop: int) -> None:
        super().__init__()
        self.filter_length, self.hop_length, self.window = n_fft, hop, torch.hann_window(n_fft)

    def transform(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = torch.stft(x, self.filter_length, self.hop_length, window=self.window, return_complex=True)
        return z.abs(), z.angle()

    def inverse(self, magnitude: Tensor, phase: Tensor) -> Tensor:
        z = torch.polar(magnitude, phase)
        return torch.istft(z, self.filter_length, self.hop_length, window=self.window)[:, None]


class CustomSTFT(TorchSTFT):
    """What the package has where complex numbers are not wanted."""


class _Generator(nn.Module):
    def __init__(
        self, style: int, width: int, rates: Sequence[int], n_fft: int, hop: int, stft: type[TorchSTFT]
    ) -> None:
        super().__init__()
        scale = math.prod(rates) * hop
        self.m_source, self.f0_upsamp = _Source(_SineGen(24000, scale, 8)), nn.Upsample(scale_factor=scale)
        self.num_kernels, last = 2, len(rates) - 1
        ups, convs, sources, blocks = [], [], [], []
        for i, rate in enumerate(rates):
            channels, stride = width >> i + 1, math.prod(rates[i + 1 :])
            ups.append(weight_norm(nn.ConvTranspose1d(width >> i, channels, 2 * rate, rate, rate // 2)))
            half = (stride + 1) // 2
            shape = {"kernel_size": 1} if i == last else {"kernel_size": 2 * stride, "stride": stride, "padding": half}
            convs.append(nn.Conv1d(n_fft + 2, channels, **shape))
            sources.append(_Snaked(channels, 11 if i == last else 7, (1, 3, 5), style))
            blocks += [_Snaked(channels, kernel, (1, 3), style) for kernel in (3, 5)]
        self.ups, self.noise_convs = nn.ModuleList(ups), nn.ModuleList(convs)
        self.noise_res, self.resblocks = nn.ModuleList(sources), nn.ModuleList(blocks)
        self.conv_post = weight_norm(nn.Conv1d(width >> len(rates), n_fft + 2, 7, padding=3))
        self.stft = stft(n_fft, hop)

    def forward(self, x: Tensor, s: Tensor, f0: Tensor) -> Tensor:
        source, _, _ = self.m_source(self.f0_upsamp(f0[:, None]).mT)
        har = torch.cat(self.stft.transform(source[:, :, 0]), 1)
        for i, up in enumerate(self.ups):
            x = up(F.leaky_relu(x, 0.1))
            if i + 1 == len(self.ups):
                x = F.pad(x, (1, 0), mode="reflect")
            x = x + self.noise_res[i](self.noise_convs[i](har), s)
            blocks = self.resblocks[i * self.num_kernels : (i + 1) * self.num_kernels]
            x = torch.stack([block(x, s) for block in blocks]).mean(0)
        magnitude, phase = self.conv_post(F.leaky_relu(x)).chunk(2, 1)
        return self.stft.inverse(magnitude.exp(), torch.sin(phase))


class Decoder(nn.Module):
    def __init__(self, features: int = 6, style: int = 5, stft: type[TorchSTFT] = TorchSTFT) -> None:
        super().__init__()
        wide, aside, last = 12, 3, 16
        inside = wide + aside + 2
        self.encode = _Styled(features + 2, wide, style)
        blocks = [*[_Styled(inside, wide, style) for _ in range(3)], _Styled(inside, last, style, double=True)]
        self.decode = nn.ModuleList(blocks)
        self.F0_conv, self.N_conv = (weight_norm(nn.Conv1d(1, 1, 3, 2, 1)) for _ in range(2))
        self.asr_res = nn.Sequential(weight_norm(nn.Conv1d(features, aside, 1)))
        self.generator = _Generator(style, last, (4, 2), 16, 4, stft)

    def forward(self, asr: Tensor, F0_curve: Tensor, N: Tensor, s: Tensor) -> Tensor:
        aside = [self.F0_conv(F0_curve[:, None]), self.N_conv(N[:, None])]
        x = self.encode(torch.cat([asr, *aside], 1), s)
        for block in self.decode:
            x = block(torch.cat([x, self.asr_res(asr), *aside], 1), s)
        wav: Tensor = self.generator(x, s, F0_curve)
        return wav


class KModel(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.decoder = Decoder(**options)


class KPipeline:
    def __init__(self, model: KModel | None) -> None:
        self.model = model
