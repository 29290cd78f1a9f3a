"""The transformers-style Mimi against transformers itself: shapes, values, streams, files."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from fastvoc.compat import mimi_transformers as ours
from fastvoc.compat import transformers as names
from fastvoc.errors import ArgumentError, LoadError, ShapeError
from helpers import assert_golden, golden, relative_l2

transformers: Any = pytest.importorskip("transformers")


def both() -> tuple[Any, Any]:
    """The golden folder in our class and in theirs."""
    folder = golden("mimi_hf").dir
    return names.MimiModel.from_pretrained(folder), transformers.MimiModel.from_pretrained(folder).eval()


@pytest.mark.golden
def test_same_as_transformers() -> None:
    mine, theirs = both()
    case = golden("mimi_hf")
    audio = case.inputs["audio"]
    with torch.no_grad():
        for arguments in ({}, {"num_quantizers": 3}, {"padding_mask": torch.ones(2, 9000, dtype=torch.bool)}):
            a, b = mine(audio, **arguments), theirs(audio, **arguments)
            assert a.audio_values.shape == b.audio_values.shape
            assert torch.equal(a.audio_codes, b.audio_codes)
            assert relative_l2(a.audio_values, b.audio_values) < 1e-5
        for kind, made in (("encode", mine.encode(audio)), ("decode", mine.decode(a.audio_codes))):
            there = getattr(theirs, kind)(audio if kind == "encode" else a.audio_codes)
            assert list(made) == [key for key in there if key in ("audio_codes", "audio_values")]
        assert [type(v) for v in mine.encode(audio, return_dict=False)] == [torch.Tensor]
        lengths = torch.tensor([1, 1920, 1921, 25691])
        assert torch.equal(mine.get_encoded_length(lengths), theirs.get_encoded_length(lengths))
        mask = torch.arange(6000) < torch.tensor([[100], [6000], [3840]])
        for side in ("right", "left"):
            assert torch.equal(mine.get_audio_codes_mask(mask, side), theirs.get_audio_codes_mask(mask, side))


@pytest.mark.golden
def test_streams() -> None:
    case, (mine, _) = golden("mimi_hf"), both()
    audio, hop = case.inputs["audio"], 1920
    edges = [0]
    for frames in case.case["streaming"]["pieces_in_frames"]:
        edges.append(edges[-1] + frames * hop)
    made, parts = None, []
    for first, end in pairwise(edges):
        caches = {} if made is None else {"encoder_cache": made.encoder_cache, "padding_cache": made.padding_cache}
        made = mine.encode(audio[:, :, first:end], use_streaming=True, **caches)
        parts.append(made.audio_codes)
    assert_golden(torch.cat(parts, 2), case, "codes_streamed")
    last = mine.encode(audio[:, :, edges[-1] :], encoder_cache=made.encoder_cache)
    assert last.encoder_cache is None
    assert_golden(torch.cat([*parts, last.audio_codes], 2), case, "codes")
    cache, sound = None, []
    for piece in case.outputs["codes"].split([3, 1, 10], 2):
        out = mine.decode(piece, decoder_cache=cache, use_cache=True)
        cache = out.decoder_cache
        sound.append(out.audio_values)
    assert_golden(torch.cat(sound, 2), case, "audio")
    with pytest.raises(ArgumentError, match="num_quantizers: expected 6"):
        mine.encode(audio, num_quantizers=2, encoder_cache=made.encoder_cache)


@pytest.mark.golden
def test_files_go_there_and_back(tmp_path: Path) -> None:
    mine, theirs = both()
    mine.save_pretrained(tmp_path)
    read, again = transformers.MimiModel.from_pretrained(tmp_path).eval(), ours.MimiModel.from_pretrained(tmp_path)
    codes = golden("mimi_hf").inputs["codes_any"]
    with torch.no_grad():
        wav = mine.decode(codes).audio_values
        assert torch.equal(again.decode(codes).audio_values, wav)
        assert relative_l2(wav, read.decode(codes).audio_values) < 1e-5
        assert relative_l2(wav, theirs.decode(codes).audio_values) < 1e-5
    state = transformers.MimiModel.from_pretrained(tmp_path).state_dict()
    published = {n.replace("encoder.encoder_", "encoder_"): t for n, t in state.items()}
    assert mine.num_parameters() < sum(t.numel() for t in published.values())


@pytest.mark.golden
def test_states_of_the_files_load() -> None:
    from safetensors.torch import load_file

    mine, _ = both()
    fresh = ours.MimiModel(mine.config)
    fresh.load_state_dict(load_file(golden("mimi_hf").dir / "model.safetensors"))
    fresh.eval().requires_grad_(False)
    codes = golden("mimi_hf").inputs["codes_any"]
    assert torch.equal(fresh.decode(codes).audio_values, mine.decode(codes).audio_values)


def test_configuration_is_transformers() -> None:
    mine, theirs = ours.MimiConfig(), transformers.MimiConfig()
    for name, value in vars(mine).items():
        if name not in ("return_dict", "rope_parameters"):
            assert getattr(theirs, name) == value, name
    for name in ("frame_rate", "frame_size", "encodec_frame_rate", "num_codebooks"):
        assert getattr(mine, name) == getattr(theirs, name), name
    assert mine.to_codec() == ours.MimiConfig.of(theirs).to_codec()


def test_wrong_arguments_are_named() -> None:
    small: dict[str, Any] = {"hidden_size": 16, "num_filters": 2, "upsample_groups": 16, "num_hidden_layers": 1}
    small |= {"codebook_size": 8, "codebook_dim": 4, "vector_quantization_hidden_dimension": 4, "num_quantizers": 3}
    model = ours.MimiModel(ours.MimiConfig(**small, intermediate_size=8)).eval().requires_grad_(False)
    with pytest.raises(ShapeError, match="audio_codes: expected"):
        model.decode(torch.zeros(1, 4, 2, dtype=torch.int64))
    with pytest.raises(ShapeError, match="input_values"):
        model.encode(torch.randn(1, 2, 30), use_streaming=True)
    with pytest.raises(ArgumentError, match="n_q"):
        model.encode(torch.randn(1, 1, 30), num_quantizers=4)
    with pytest.raises(ArgumentError, match="power of two"):
        ours.MimiModel(ours.MimiConfig(codebook_size=12))
    with pytest.raises(ArgumentError, match="upsample_groups"):
        ours.MimiModel(ours.MimiConfig(upsample_groups=3))
    with pytest.raises(LoadError, match="no such folder"):
        ours.MimiModel.from_pretrained("/no/such/folder/at/all")
