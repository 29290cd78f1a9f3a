"""github.com/FunAudioLLM/CosyVoice: the generators and F0 predictors of its `cosyvoice.hifigan`.

What upstream draws from torch's generator follows torch's generator here, too: `torch.manual_seed` decides the noise.
The numbers themselves are fastvoc's own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from fastvoc.compat import keywords
from fastvoc.compat.batches import one_each, padded
from fastvoc.compat.upstream import Upstream, folded
from fastvoc.errors import ArgumentError, DtypeError, LoadError, ShapeError
from fastvoc.loading import SkipInit, read_checkpoint
from fastvoc.models.f0 import CAUSAL_LOOKAHEAD, ConvF0
from fastvoc.models.hift_config import COSYVOICE1, COSYVOICE2, COSYVOICE3, HiftConfig
from fastvoc.models.hiftnet import HiftNet
from fastvoc.nn.prepared import Prepared
from fastvoc.nn.source import NsfSource
from fastvoc.ops import nsf_source

__all__ = ["CausalConvRNNF0Predictor", "CausalHiFTGenerator", "ConvRNNF0Predictor", "HiFTGenerator"]

_Generator = TypeVar("_Generator", bound="HiFTGenerator")
_NO_CACHE = torch.zeros(1, 1, 0, dtype=torch.float32, device="cpu")
_MERGE = "m_source.l_linear."
# What tells the generators apart beside their arguments.
_KIND = (
    *("source", "source_noise", "features", "source_padding", "snake_eps"),
    *("magnitude_clip", "causal", "f0_network", "f0_dtype"),
)


class ConvRNNF0Predictor(ConvF0):
    """F0 [B, T] in Hz of a log-mel [B, in_channels, T]; `num_class` must be 1.

    `load_state_dict` takes weight norm in either of torch's namings, or folded weights.
    """

    def __init__(self, num_class: int = 1, in_channels: int = 80, cond_channels: int = 512) -> None:
        _check_classes(num_class)
        super().__init__(in_channels, cond_channels)
        self.register_load_state_dict_pre_hook(_take)


class CausalConvRNNF0Predictor(ConvF0):
    """As `ConvRNNF0Predictor`, but seeing 3 frames ahead and the past only, and computing in float64."""

    def __init__(self, num_class: int = 1, in_channels: int = 80, cond_channels: int = 512) -> None:
        _check_classes(num_class)
        super().__init__(in_channels, cond_channels, causal=True, dtype=torch.float64)
        self.register_load_state_dict_pre_hook(_take)

    def forward(  # type: ignore[override]
        self, x: Tensor, finalize: bool = True, lengths: Tensor | None = None, backend: str | None = None
    ) -> Tensor:
        """[B, in_channels, T] -> [B, T]; with `finalize=False` the last 3 frames are look-ahead only: [B, T - 3]."""
        f0 = super().forward(x, lengths, backend)
        return f0 if finalize else f0[:, : f0.shape[1] - CAUSAL_LOOKAHEAD]


class _Source(NsfSource):
    """A source whose merging weights are a part, as upstream's are: `l_linear`, weight [1, harmonics + 1], bias [1]."""

    def __init__(self, source: NsfSource) -> None:
        nn.Module.__init__(self)
        self.l_linear = nn.Linear(source.weight.numel(), 1, device="meta")
        self.l_linear.weight, self.l_linear.bias = nn.Parameter(source.weight.detach()[None]), source.bias
        self._shape = source._shape
        self.prepared = Prepared(nsf_source.OP, self.params, self._tensors)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]  # read only
        """[harmonics + 1]."""
        return self.l_linear.weight[0]

    @property
    def bias(self) -> Tensor:  # type: ignore[override]
        """[1]."""
        return self.l_linear.bias


class HiFTGenerator(Upstream):
    """CosyVoice 1 and 2's generator, with upstream's arguments; the sine generator is the first at 22050 Hz.

    `load_state_dict` takes `hift.pt`, without the `generator.` of GAN training, weight norm in either of torch's
    namings or folded; also as a part of another module.

    Raises ArgumentError naming an argument that is illegal.
    """

    predictor: ClassVar[type[ConvF0]] = ConvRNNF0Predictor

    def __init__(
        self,
        in_channels: int = 80,
        base_channels: int = 512,
        nb_harmonics: int = 8,
        sampling_rate: int = 22050,
        nsf_alpha: float = 0.1,
        nsf_sigma: float = 0.003,
        nsf_voiced_threshold: float = 10,
        upsample_rates: Sequence[int] = (8, 8),
        upsample_kernel_sizes: Sequence[int] = (16, 16),
        istft_params: Mapping[str, int] = {"n_fft": 16, "hop_len": 4},
        resblock_kernel_sizes: Sequence[int] = (3, 7, 11),
        resblock_dilation_sizes: Sequence[Sequence[int]] = ((1, 3, 5),) * 3,
        source_resblock_kernel_sizes: Sequence[int] = (7, 11),
        source_resblock_dilation_sizes: Sequence[Sequence[int]] = ((1, 3, 5),) * 2,
        lrelu_slope: float = 0.1,
        audio_limit: float = 0.99,
        f0_predictor: nn.Module | None = None,
    ) -> None:
        config = replace(
            self.published(sampling_rate),
            mel=None,
            num_mels=in_channels,
            base_channels=base_channels,
            harmonics=nb_harmonics,
            sample_rate=sampling_rate,
            source_amp=nsf_alpha,
            noise_std=nsf_sigma,
            voiced_threshold=nsf_voiced_threshold,
            upsample_rates=tuple(upsample_rates),
            upsample_kernel_sizes=tuple(upsample_kernel_sizes),
            n_fft=istft_params["n_fft"],
            istft_hop=istft_params["hop_len"],
            resblock_kernel_sizes=tuple(resblock_kernel_sizes),
            resblock_dilation_sizes=tuple(map(tuple, resblock_dilation_sizes)),
            source_resblock_kernel_sizes=tuple(source_resblock_kernel_sizes),
            source_resblock_dilation_sizes=tuple(map(tuple, source_resblock_dilation_sizes)),
            leaky_relu_slope=lrelu_slope,
            clamp=audio_limit,
            f0_channels=512 if f0_predictor is None else f0_predictor.state_dict()["classifier.weight"].shape[1],
        )
        self._build(config, f0_predictor)

    def _build(self, config: HiftConfig, f0_predictor: nn.Module | None) -> None:
        model = HiftNet(config)
        model.f0_predictor = self._own_predictor(f0_predictor, config)
        model.m_source = _Source(model.m_source)
        super().__init__(model)
        self.out_channels = 1
        self.nb_harmonics, self.sampling_rate = config.harmonics, config.sample_rate
        self.istft_params = {"n_fft": config.n_fft, "hop_len": config.istft_hop}
        self.lrelu_slope, self.audio_limit = config.leaky_relu_slope, config.clamp
        self.num_kernels, self.num_upsamples = len(config.resblock_kernel_sizes), len(config.upsample_rates)
        self.register_load_state_dict_pre_hook(_take)

    @classmethod
    def _own_predictor(cls, given: nn.Module | None, config: HiftConfig) -> ConvF0:
        """The F0 predictor, or one of fastvoc's with the weights of another package's."""
        if isinstance(given, cls.predictor):
            return given
        make: Any = cls.predictor
        own: ConvF0 = make(in_channels=config.num_mels, cond_channels=config.f0_channels)
        if given is not None:
            own.load_state_dict(given.state_dict())
        return own

    @classmethod
    def published(cls, sampling_rate: int) -> HiftConfig:
        """The published configuration that has what the arguments do not say."""
        return COSYVOICE1 if sampling_rate == COSYVOICE1.sample_rate else COSYVOICE2

    @classmethod
    def check_kind(cls, name: str | os.PathLike[str], config: HiftConfig) -> None:
        """Raises LoadError unless a configuration read from `name` differs by arguments only."""
        published = cls.published(config.sample_rate)
        for field in _KIND:
            if getattr(config, field) != getattr(published, field):
                values = f"{getattr(config, field)!r}, expected {getattr(published, field)!r}"
                raise LoadError(f"{name}: another generator than {cls.__module__}.{cls.__name__}: {field} {values}")

    @classmethod
    def from_pretrained(
        cls: type[_Generator],
        name: str | os.PathLike[str],
        map_location: str | torch.device | None = None,
        **options: Any,
    ) -> _Generator:
        """The generator of a file, folder or hub id, in eval mode with its weights frozen.

        options: further keywords of loading (`fastvoc.compat.keywords`).

        Raises LoadError naming the file and what is wrong with it, also when it holds another kind of generator;
        ArgumentError for an option that does not exist or cannot be honoured.
        """
        given = keywords.loading({"map_location": map_location, **options}).plain()
        checkpoint = read_checkpoint(name, given.files)
        config = checkpoint.config
        if not isinstance(config, HiftConfig):
            raise LoadError(f"{name}: a {config.family} model, expected hiftnet")
        cls.check_kind(name, config)
        with SkipInit():
            model = cls.__new__(cls)
            model._build(config, None)
        model.load_state_dict(checkpoint.state, assign=True)
        return given.ready(model, given.saved_dtype(checkpoint.stored))

    def forward(self, batch: Mapping[str, Tensor], device: str | torch.device) -> tuple[Tensor, Tensor]:
        """The training step's samples [B, S] and F0 [B, T] of `batch["speech_feat"]` [B, T, in_channels]."""
        mel = batch["speech_feat"].transpose(1, 2).to(device, self._dtype)
        f0 = self._model.predict_f0(mel)
        return self.decode(mel, self._model.make_source(f0, seed=_drawn(len(mel)))), f0

    def decode(self, x: Tensor, s: Tensor) -> Tensor:
        """Samples [B, T * hop] of a log-mel [B, in_channels, T] and a source [B, 1, T * hop]."""
        wav: Tensor = self._model.decode(x.to(self._dtype), s)[:, 0]
        return wav

    @torch.inference_mode()
    def inference(self, speech_feat: Tensor, cache_source: Tensor | None = _NO_CACHE) -> tuple[Tensor, Tensor]:
        """Samples, and the source that they were made from.

        Args:
            speech_feat: [B, in_channels, T] log-mel.
            cache_source: [B, 1, n] source of an earlier call, which takes the place of the first n samples of the new
                one; none where n is 0. The phase after it begins anew, as upstream's does: what joins without a border
                is `fastvoc.load(...).stream()`.

        Returns:
            Samples [B, T * hop] and source [B, 1, T * hop].

        Raises ShapeError and DtypeError for an argument that does not fit.
        """
        mel = speech_feat.to(self._dtype)
        source = self._model.make_source(self._model.predict_f0(mel), seed=_drawn(len(mel)))
        source = _continued(source, cache_source)
        return self.decode(mel, source), source

    @torch.inference_mode()
    def inference_batch(
        self, speech_feats: Sequence[Tensor], cache_sources: Sequence[Tensor | None] | None = None
    ) -> list[tuple[Tensor, Tensor]]:
        """`inference` of several requests at once, each with what calls one after the other would give.

        Args:
            speech_feats: a log-mel [in_channels, T] or [1, in_channels, T] of each request, of any lengths.
            cache_sources: of each request what `inference` takes, [1, 1, n] or None; none where it is None.

        Returns:
            Samples [1, T * hop] and source [1, 1, T * hop] of each request.

        Raises ArgumentError, ShapeError, DtypeError and DeviceError for an argument that does not fit.
        """
        caches = [None] * len(speech_feats) if cache_sources is None else cache_sources
        one_each(caches, len(speech_feats), "cache_sources")
        if not len(speech_feats):
            return []
        mel, lengths = padded(speech_feats, self._model.config.num_mels, self._model.conv_pre.weight)
        samples = [n * self._model.config.hop for n in lengths.tolist()]
        for i, (cache, n) in enumerate(zip(caches, samples, strict=True)):
            _check_cache(cache, (1, 1, n), f"cache_sources[{i}]")
        f0 = self._model.predict_f0(mel, lengths)
        drawn = torch.cat([_drawn(1) for _ in speech_feats])  # as one call after the other draws them
        source = self._model.make_source(f0, lengths, seed=drawn)
        for own, cache in zip(source, caches, strict=True):
            if cache is not None:
                own[:, : cache.shape[2]] = cache[0]
        wav = self._model.decode(mel, source, lengths)
        return [(wav[i, :, :n].clone(), source[i : i + 1, :, :n].clone()) for i, n in enumerate(samples)]

    @property
    def _dtype(self) -> torch.dtype:
        dtype: torch.dtype = self._model.conv_pre.weight.dtype
        return dtype


class CausalHiFTGenerator(HiFTGenerator):
    """CosyVoice 3's generator: the arguments of `HiFTGenerator`, and `conv_pre_look_right`.

    Its noise is drawn once, when it is made, so that calls on ever longer parts of a mel agree.
    """

    predictor: ClassVar[type[ConvF0]] = CausalConvRNNF0Predictor

    def __init__(self, *args: Any, conv_pre_look_right: int = COSYVOICE3.lookahead, **kwargs: Any) -> None:
        self._look_right = conv_pre_look_right
        super().__init__(*args, **kwargs)

    def _build(self, config: HiftConfig, f0_predictor: nn.Module | None) -> None:
        lookahead = self.__dict__.get("_look_right", config.lookahead)
        super()._build(replace(config, lookahead=lookahead), f0_predictor)
        self.conv_pre_look_right, self._seed = lookahead, _drawn(1)

    @classmethod
    def published(cls, sampling_rate: int) -> HiftConfig:
        """CosyVoice 3; with the first sine generator at 22050 Hz."""
        return replace(COSYVOICE3, source="sample") if sampling_rate == COSYVOICE1.sample_rate else COSYVOICE3

    def decode(self, x: Tensor, s: Tensor, finalize: bool = True) -> Tensor:
        """Samples [B, T * hop] of a log-mel [B, in_channels, T] and a source [B, 1, T * hop].

        With `finalize=False` the samples of the first T - conv_pre_look_right - 1 frames.
        """
        wav: Tensor = self._model.decode(x.to(self._dtype), s, final=finalize)[:, 0]
        return wav

    @torch.inference_mode()
    def inference(self, speech_feat: Tensor, finalize: bool = True) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Samples [B, T * hop] and source [B, 1, T * hop] of a log-mel [B, in_channels, T].

        With `finalize=False` what more frames would not change: the samples of the first T - conv_pre_look_right - 4
        frames, and a source of T - 3.

        Raises ShapeError and DtypeError for an argument that does not fit.
        """
        mel = speech_feat.to(self._dtype)
        f0 = self._model.predict_f0(mel, final=finalize)
        source = self._model.make_source(f0, seed=self._seed.expand(len(mel)))
        return self.decode(mel[:, :, : f0.shape[1]], source, finalize), source

    @torch.inference_mode()
    def inference_batch(  # type: ignore[override]
        self, speech_feats: Sequence[Tensor], finalize: bool | Sequence[bool] = True
    ) -> list[tuple[Tensor, Tensor]]:
        """`inference` of several requests at once, each with what its own call gives.

        Args:
            speech_feats: a log-mel [in_channels, T] or [1, in_channels, T] of each request, of any lengths.
            finalize: as `inference` has it, for all or for each; those that are alike run together.

        Returns and raises as `HiFTGenerator.inference_batch`.
        """
        finals = [finalize] * len(speech_feats) if isinstance(finalize, bool) else list(finalize)
        one_each(finals, len(speech_feats), "finalize")
        made: dict[int, tuple[Tensor, Tensor]] = {}
        for final in (True, False):
            chosen = [i for i, value in enumerate(finals) if bool(value) == final]
            results = self._batch([speech_feats[i] for i in chosen], final) if chosen else []
            made.update(zip(chosen, results, strict=True))
        return [made[i] for i in range(len(speech_feats))]

    def _batch(self, speech_feats: Sequence[Tensor], final: bool) -> list[tuple[Tensor, Tensor]]:
        model, hop = self._model, self._model.config.hop
        mel, lengths = padded(speech_feats, model.config.num_mels, model.conv_pre.weight)
        f0 = model.predict_f0(mel, lengths, final=final)
        made = lengths - (0 if final else model.f0_held_frames)
        source = model.make_source(f0, made, seed=self._seed.expand(len(mel)))
        wav = model.decode(mel[:, :, : f0.shape[1]], source, made, final=final)
        whole = lengths - (0 if final else model.held_frames)
        sizes = zip((made * hop).tolist(), (whole * hop).tolist(), strict=True)
        return [(wav[i, :, :n].clone(), source[i : i + 1, :, :m].clone()) for i, (m, n) in enumerate(sizes)]


def _check_classes(num_class: int) -> None:
    if num_class != 1:
        raise ArgumentError(f"num_class: expected 1, an F0 for every frame, got {num_class!r}")


def _drawn(count: int) -> Tensor:
    """Seeds [count] by torch's generator."""
    return torch.randint(1 << 62, (count,), device="cpu")


def _continued(source: Tensor, cache: Tensor | None) -> Tensor:
    """The source, begun with a cached one."""
    if cache is None or (isinstance(cache, Tensor) and cache.shape[-1] == 0):
        return source
    _check_cache(cache, source.shape, "cache_source")
    rest = source[:, :, cache.shape[2] :]
    return torch.cat([cache.expand(len(source), -1, -1).to(source), rest], 2)


def _check_cache(cache: Tensor | None, shape: Sequence[int], name: str) -> None:
    """Raises ShapeError or DtypeError for a cache that is not the beginning of a source of this shape."""
    if cache is None:
        return
    if not isinstance(cache, Tensor):
        raise DtypeError(f"{name}: expected a tensor, got {type(cache).__name__}")
    batch, rows, samples = shape
    if cache.dim() != 3 or cache.shape[0] not in (1, batch) or cache.shape[1] != rows or cache.shape[2] > samples:
        first = "1" if batch == 1 else f"1 or {batch}"
        raise ShapeError(f"{name}: expected [{first}, {rows}, at most {samples}], got {list(cache.shape)}")


def _take(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Before a state is loaded: upstream's names of old, the model's own and weight norm become the module's."""
    own = {name[len(prefix) :]: state.pop(name) for name in list(state) if name.startswith(prefix)}
    for name, tensor in folded(own).items():
        if name in ("m_source.weight", "m_source.bias"):
            name, tensor = name.replace("m_source.", _MERGE), tensor[None] if name.endswith("weight") else tensor
        state[prefix + name] = tensor
