"""Which implementation runs at which size: tables of times by device, estimated and measured."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from recording import Rerun

import fastvoc
from fastvoc.cli.info import info
from fastvoc.explanation import explain
from fastvoc.graphs.graphed import Graphed
from fastvoc.models.hifigan import HifiGan, HifiGanConfig
from fastvoc.runtime import choice
from fastvoc.runtime.choice import Layer, Row, Size
from fastvoc.runtime.registry import OPS, Impl
from fastvoc.vocoder import Vocoder
from helpers import ROOT

sys.path.append(str(ROOT / "benchmarks"))
import choices

LAYER = Layer("conv1d", 4, (8, 8, 3))
SMALL, LARGE = Size(1, 0.001), Size(4, 0.01)


def row(times: dict[str, float], size: Size = SMALL, source: str = "measured", **layer: Any) -> dict[str, Any]:
    op, itemsize, weight = LAYER._replace(**layer)
    return {
        "op": op, "bytes": itemsize, "weight": weight, "items": size.items, "seconds": size.seconds, "from": source,
        "us": times,
    }  # fmt: skip


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in the place of the tables; the CPU counts as a device of capability 9.0."""
    monkeypatch.setattr(choice, "HERE", tmp_path)
    monkeypatch.setattr(choice, "capability", lambda _: 90)
    choice.table.cache_clear()
    yield tmp_path
    choice.table.cache_clear()


def write(folder: Path, *rows: dict[str, Any], capability: int = 90) -> None:
    (folder / f"sm_{capability}.json").write_text(json.dumps({"rows": rows}))


def test_an_estimate_must_promise_more_than_it_may_err() -> None:
    def order(measured: bool, **times: float) -> list[str]:
        return Row(LAYER, SMALL, times, measured).order(["triton", "torch", "cuda"])

    assert order(True, triton=10, torch=9, cuda=9.9) == ["cuda", "triton", "torch"]
    assert order(True, triton=float("inf"), torch=9, cuda=float("inf")) == ["torch", "triton", "cuda"], "they failed"
    assert order(False, triton=10, torch=9, cuda=7.3) == ["cuda", "triton", "torch"]
    assert order(True, triton=10, cuda=9) == ["cuda", "triton", "torch"], "what has no time comes last"
    assert order(True, torch=1, cuda=2) == ["triton", "torch", "cuda"], "nothing is known of the first"


def test_a_layer_goes_by_the_row_nearest_to_it(tables: Path) -> None:
    write(
        tables,
        row({"torch": 1}),
        row({"torch": 2}, LARGE),
        row({"torch": 3}, weight=(64, 64, 3)),
        row({"torch": 4}, itemsize=2),
        row({"torch": 5}, op="mrf"),
    )
    table = choice.table(90)
    assert table is not None
    assert table.sizes == [SMALL, LARGE]

    def found(layer: Layer, size: Size = SMALL) -> float | None:
        near = table.row(layer, size)
        return None if near is None else near.times["torch"]

    assert found(LAYER) == found(LAYER._replace(weight=(16, 8, 3))) == 1
    assert found(LAYER, LARGE) == 2
    assert found(LAYER._replace(weight=(40, 40, 7)), LARGE) == 3, "the layer counts more than the size"
    assert found(LAYER._replace(itemsize=2, weight=(64, 64, 3))) == 4, "bytes count more than widths"
    assert found(Layer("mrf", 2, (512, 512, 3))) == 5
    assert found(Layer("lstm", 4, (8, 8))) is None
    assert found(LAYER._replace(weight=(8,))) is None, "a weight of another kind"
    assert table.nearest(1, 0.002) == table.nearest(2, 0.002) == SMALL
    assert table.nearest(1, 1e-9) == SMALL
    assert table.nearest(2, 0.01) == table.nearest(1000, 100.0) == LARGE


def test_a_device_without_a_table_takes_the_nearest_older_and_says_so(tables: Path) -> None:
    assert choice.table(90) is None
    choice.table.cache_clear()
    write(tables, row({"torch": 1}), capability=80)
    write(tables, row({"torch": 2}), row({"torch": 2}, source="estimated"), capability=90)
    said = {asked: table.note for asked in (75, 80, 89, 90, 120) if (table := choice.table(asked)) is not None}
    assert said == {
        75: "sm_80: 0 rows estimated, 1 measured; sm_75 has none of its own, this is the nearest newer one",
        80: "sm_80: 0 rows estimated, 1 measured",
        89: "sm_80: 0 rows estimated, 1 measured; sm_89 has none of its own, this is the nearest older one",
        90: "sm_90: 1 rows estimated, 1 measured",
        120: "sm_90: 1 rows estimated, 1 measured; sm_120 has none of its own, this is the nearest older one",
    }


def line(impl: str, shape: str = "1x0.001", **facts: Any) -> str:
    return json.dumps({"op": "conv1d", "bytes": 4, "weight": [8, 8, 3], "shape": shape, "impl": impl, **facts})


def test_what_a_device_measured_takes_the_place_of_an_estimate(tables: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tables, row({"torch": 5, "triton": 1}, source="estimated"), row({"torch": 7}, LARGE, "estimated"))
    path = tables / "lines.jsonl"
    machine = json.dumps({"machine": {"cuda": {"arch": "sm_90"}}})
    both = [line("torch", seconds=2.34567e-6), line("triton", failed="CUDA error", error=0.1), line("cuda", error=0.1)]
    path.write_text("\n".join([machine, *both]))
    monkeypatch.setattr("sys.argv", ["choices.py", str(path), "--into", str(tables)])
    choices.main()
    assert choice.read(tables / "sm_90.json") == [
        Row(LAYER, SMALL, {"torch": 2.35, "triton": float("inf")}, True),
        Row(LAYER, LARGE, {"torch": 7}, False),
    ]
    assert choice.read(tables / "sm_90.json")[0].order(["triton", "torch"]) == ["torch", "triton"]
    choices.merged(
        tables / "sm_90.json", [row({"torch": 9}, source="estimated"), row({"torch": 8}, LARGE, "estimated")]
    )
    assert [found.times["torch"] for found in choice.read(tables / "sm_90.json")] == [2.35, 8]
    path.write_text("\n".join([machine, machine.replace("90", "80")]))
    with pytest.raises(SystemExit, match=r"one kind of device, got .'sm_80', 'sm_90'"):
        choices.main()


def test_a_file_of_another_source_is_refused(tables: Path) -> None:
    write(tables, row({"torch": 1}, source="guessed"))
    with pytest.raises(KeyError, match="guessed"):
        choice.table(90)


@pytest.fixture
def voc(tables: Path, monkeypatch: pytest.MonkeyPatch) -> Vocoder:
    """Small calls by C++, large ones by what stands in for CUDA; by torch none, however fast it is."""
    for name in ("conv1d", "upsample", "mrf"):
        op = OPS[name]
        monkeypatch.setitem(op.impls, "cuda", Impl("cuda", op.reference, frozenset({"cpu"}), priority=-10))
    sizes = ((SMALL, {"cpp": 1, "cuda": 2, "torch": 0.5}), (LARGE, {"cpp": 2, "cuda": 1, "torch": 0.5}))
    write(tables, *[row(times, size, op=op) for op in ("conv1d", "upsample", "mrf") for size, times in sizes])
    torch.manual_seed(0)
    config = HifiGanConfig(upsample_rates=(2,), upsample_kernel_sizes=(4,), upsample_initial_channel=32)
    return Vocoder(HifiGan(config).eval().requires_grad_(False), config)


@pytest.mark.native
def test_the_size_of_a_call_decides_for_all_its_layers(voc: Vocoder) -> None:
    small = torch.randn(1, voc.n_mels, 8)
    large = torch.cat([small] * 50)
    cpp, reference = (Vocoder(voc.model, voc.config, backend=name) for name in ("cpp", "cuda"))
    assert not torch.equal(cpp(large), reference(large)), "their bits tell them apart"
    for _ in range(2):
        assert torch.equal(voc(small), cpp(small))
        assert torch.equal(voc(large), reference(large))
    exact = cpp(small, exact=True)
    assert torch.equal(voc(large, exact=True), exact.expand(50, -1)), "one implementation whatever the size"
    with fastvoc.use_exact():
        assert torch.equal(voc(large), exact.expand(50, -1))
    live = voc.stream()
    assert torch.equal(torch.cat([live.push(small[0]), live.flush()]), exact[0])


@pytest.mark.native
def test_what_one_implementation_packs_is_kept_once(voc: Vocoder) -> None:
    layer = voc.layers()["conv_pre"]
    layer.bound(torch.float32)
    layer.bound(torch.float32, "cpp")
    with voc.computing(50, 16):
        layer.bound(torch.float32)
    small, forced, large = layer._kept[1].values()
    assert small is forced
    assert (small.impl.name, large.impl.name) == ("cpp", "cuda")


@pytest.mark.native
def test_a_graph_goes_by_its_own_size(voc: Vocoder, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Size | None] = []
    forward = voc.model.forward
    monkeypatch.setattr(
        voc.model, "forward", lambda *args, **named: (seen.append(choice.size()), forward(*args, **named))[1]
    )
    graphs = Graphed(Vocoder(voc.model, voc.config, backend="cpp"), capture=Rerun())
    graphs(torch.randn(50, voc.n_mels, 8))
    assert set(seen) == {LARGE}
    graphs(torch.randn(1, voc.n_mels, 8))
    assert set(seen) == {LARGE, SMALL}


@pytest.mark.native
def test_explain_says_what_runs_at_which_size_and_how_that_is_known(voc: Vocoder) -> None:
    text = str(explain(voc))
    assert "choice on cpu: sm_90: 0 rows estimated, 6 measured" in text
    assert "cpp at 1 x 0.001 s (1 us measured), cuda at 4 x 0.01 s (1 us measured)" in text
    with voc.computing(50, 16):
        assert {row.chosen for row in explain(voc)} == {"cuda"}
    assert "torch at 1 x 0.001 s (0.5 us measured)" in str(explain(voc, "torch"))


def test_info_lists_the_tables(tables: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tables, row({"torch": 1}, source="estimated"))
    info(None)
    assert "sm_90  sm_90: 1 rows estimated, 0 measured" in capsys.readouterr().out
