"""The front of a voice: the part of its graph that makes the decoder's input, as a model of its own in onnxruntime."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from fastvoc.checkpoints.checkpoint import refuse
from fastvoc.checkpoints.onnx_graph import Array, Graph
from fastvoc.errors import ArgumentError, LoadError
from fastvoc.piper.flow import Flow, find_flow

_RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")


def cut(graph: Graph, outputs: Sequence[str], seed: int | None = None, given: Sequence[str] = ()) -> bytes:
    """The part of a graph that makes these values, as an ONNX file: no node, constant or input that they do not need.

    seed: of the first node that makes random numbers, the next ones count up; None leaves them to chance. given:
    values [1, C, n], float32, that become inputs, in this order.
    """
    import onnx

    whole = graph.model.graph
    wanted, kept = set(outputs), []
    for node in reversed(whole.node):
        if not wanted.isdisjoint(set(node.output).difference(given)):
            kept.append(node)
            wanted.update(_reads(node))
    kept.reverse()
    model = onnx.ModelProto(ir_version=graph.model.ir_version, producer_name="fastvoc")
    model.opset_import.extend(graph.model.opset_import)
    front = model.graph
    front.name = "front"
    front.node.extend(kept)
    kind = onnx.TensorProto.FLOAT
    front.input.extend(onnx.helper.make_tensor_value_info(name, kind, [1, None, None]) for name in given)
    front.input.extend(value for value in whole.input if value.name in wanted)
    front.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)  # whose types onnxruntime infers
    for tensor in whole.initializer:
        if tensor.name in wanted:
            graph.fetch(tensor.name)
            front.initializer.append(tensor)
    front.sparse_initializer.extend(tensor for tensor in whole.sparse_initializer if tensor.values.name in wanted)
    if seed is not None:
        sow(front.node, seed)
    data: bytes = model.SerializeToString()
    return data


def sow(nodes: Sequence[Any], seed: int) -> None:
    """Gives the nodes that make random numbers, in their order, the seeds from `seed` on."""
    import onnx

    for count, node in enumerate(node for node in nodes if node.op_type in _RANDOM):
        rest = [attribute for attribute in node.attribute if attribute.name != "seed"]
        del node.attribute[:]
        node.attribute.extend([*rest, onnx.helper.make_attribute("seed", float(seed + count))])


def _reads(node: Any) -> Iterator[str]:
    """The values that a node reads, also in the graphs inside of it."""
    yield from filter(None, node.input)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs) if attribute.type in (attribute.GRAPH, attribute.GRAPHS) else ():
            for inner in graph.node:
                yield from _reads(inner)
            yield from (value.name for value in graph.output)


def _session(path: Path, model: bytes, threads: int) -> Any:
    """A cut model in onnxruntime, on the CPU. Raises LoadError when that is not installed or does not take it."""
    try:
        import onnxruntime
    except ImportError as error:
        problem = f"the front of a voice needs the package onnxruntime ({error}): pip install onnxruntime"
        raise refuse(path, problem) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    # Its threads would go on waiting actively beside those of the decoder.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own, which have no base but this
        reason = " ".join(str(error).split())[:200]
        raise refuse(path, f"onnxruntime does not take the front of this voice: {reason}") from error


class Front:
    """What makes a decoder's input and, where it has several speakers, their vector; the flow at its end by parts.

    outputs: the values that it makes, the latent of so many channels first. Raises LoadError when onnxruntime is not
    installed or does not take it.
    """

    def __init__(
        self, path: Path, graph: Graph, outputs: Sequence[str], channels: int, seed: int | None, threads: int
    ) -> None:
        latent, *vectors = outputs
        self._flow: Flow | None = None
        self._begins, place = 1, find_flow(graph, latent)
        if place is not None:
            # A cut that onnxruntime does not take leaves the front whole, which says what is wrong if it is wrong, too.
            with suppress(LoadError):
                self._session = _session(path, cut(graph, [*place.begins, *vectors], seed), threads)
                kinds = self._session.get_outputs()[: len(place.begins)]
                if all(kind.type == "tensor(float)" and len(kind.shape) == 3 for kind in kinds):
                    flow = Flow(_session(path, cut(graph, [latent], given=place.begins), threads), place)
                    counts = [n if isinstance(n := kind.shape[1], int) else channels for kind in kinds]
                    if flow.local(counts, [kind.shape[2] == 1 for kind in kinds]):
                        self._flow, self._begins = flow, len(place.begins)
        if self._flow is None:
            self._session = _session(path, cut(graph, outputs, seed), threads)
        self.inputs = [value.name for value in self._session.get_inputs()]

    def __call__(self, feeds: Mapping[str, Array]) -> tuple[Iterator[Array], list[Array]]:
        """Of these inputs, those that the front has: the latents [1, C, n] part by part, and the vectors; float32.

        Raises ArgumentError where they lead to what onnxruntime cannot compute, as a length_scale that is huge; the
        parts raise it, too.
        """
        with _computed(feeds):
            made = self._session.run(None, {name: feeds[name] for name in self.inputs})
        arrays = [np.asarray(array, dtype=np.float32) for array in made]
        given, vectors = arrays[: self._begins], arrays[self._begins :]
        return iter(given) if self._flow is None else _told(self._flow.parts(given), feeds), vectors


@contextmanager
def _computed(feeds: Mapping[str, Array]) -> Iterator[None]:
    """Says which scales led to what onnxruntime cannot compute."""
    try:
        yield
    except Exception as error:  # onnxruntime's own, which have no base but this
        told = ", ".join(f"{number:g}" for number in feeds["scales"])
        reason = " ".join(str(error).split())[:200]
        problem = f"with noise_scale, length_scale and noise_w {told} onnxruntime cannot run the voice's front"
        raise ArgumentError(f"scales: {problem}: {reason}") from error


def _told(parts: Iterator[Array], feeds: Mapping[str, Array]) -> Iterator[Array]:
    with _computed(feeds):
        yield from parts
