"""github.com/yl4579/HiFTNet: `g_XXXXXXXX` with `config.json` beside it; the pitch network is in the same file."""

from __future__ import annotations

from fastvoc.checkpoints.checkpoint import Checkpoint, refuse
from fastvoc.checkpoints.hift_names import SIGNATURE, canonical_names, hift_config
from fastvoc.checkpoints.jik876 import mel_front_end
from fastvoc.checkpoints.source import Source
from fastvoc.checkpoints.state import canonical_state, renamed
from fastvoc.models.hift_config import HIFTNET

_PREFIX = "generator."
_RENAMED = (
    ("noise_convs.", "source_downs."),
    ("noise_res.", "source_resblocks."),
    ("F0_model.", "f0_predictor."),
)
# Parts of the pitch network that synthesis has no use for: its voicing detector, and the count of its training steps.
_UNUSED = ("f0_predictor.detector.", "f0_predictor.detector_conv.", "f0_predictor.bilstm_detector.")
_UNUSED_ENDS = ".num_batches_tracked"
_ALPHAS = (".alpha1.", ".alpha2.")


def detect(source: Source) -> bool:
    return _prefix(source) is not None


def load(source: Source) -> Checkpoint:
    fields = source.json("config.json")
    if fields.get("resblock") != "1":
        raise refuse(fields.path, f"resblock {fields.get('resblock')!r}, expected '1'")
    rates = fields.integers("upsample_rates")
    # Upstream's constants: kernel 7 for the source blocks but 11 for the last, dilations 1, 3 and 5.
    kernels = (7,) * (len(rates) - 1) + (11,)
    config = hift_config(
        fields.path,
        HIFTNET,
        mel=mel_front_end(fields),
        sample_rate=fields.integer("sampling_rate"),
        base_channels=fields.integer("upsample_initial_channel"),
        upsample_rates=rates,
        upsample_kernel_sizes=fields.integers("upsample_kernel_sizes"),
        n_fft=fields.integer("gen_istft_n_fft"),
        istft_hop=fields.integer("gen_istft_hop_size"),
        resblock_kernel_sizes=fields.integers("resblock_kernel_sizes"),
        resblock_dilation_sizes=fields.rows("resblock_dilation_sizes"),
        source_resblock_kernel_sizes=kernels,
        source_resblock_dilation_sizes=((1, 3, 5),) * len(kernels),
    )
    tensors = renamed(source, source.with_prefix(_prefix(source) or ""), _canonical)
    tensors = {
        name: entry
        for name, entry in tensors.items()
        if not name.startswith(_UNUSED) and not name.endswith(_UNUSED_ENDS)
    }
    return Checkpoint(
        config, canonical_state(source, config, canonical_names(tensors)), "hiftnet", {"container": source.container}
    )


def _prefix(source: Source) -> str | None:
    prefixes = (p for p in ("", _PREFIX) if {p + SIGNATURE, f"{p}noise_convs.0.bias"} <= source.entries.keys())
    return next(prefixes, None)


def _canonical(name: str) -> str:
    for old, new in _RENAMED:
        if name.startswith(old):
            name = new + name[len(old) :]
    for i, part in enumerate(_ALPHAS, 1):
        head, found, number = name.rpartition(part)
        if found:
            return f"{head}.activations{i}.{number}.alpha"
    return name
