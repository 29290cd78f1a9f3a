"""The choice of an implementation, and what it says of itself."""

from __future__ import annotations

import threading

import pytest
import torch

from fastvoc.errors import BackendError
from fastvoc.explanation import explain
from fastvoc.runtime.registry import OPS, Impl, Op, Spec, requested, use_backend

SPEC = Spec("cpu", torch.float32, None)


def _nothing(*_: object) -> None:
    return None


@pytest.fixture
def op() -> Op:
    made = Op("toy", check=_nothing, reference=lambda x, _: x, work=lambda x, _: (0, x))
    cpu = frozenset({"cpu"})
    made.register(Impl("torch", lambda x, _: x, cpu | {"cuda"}, priority=0))
    made.register(
        Impl("cpp", lambda x, _: x, cpu, priority=10, supports=lambda s: None if s.params is None else "is picky")
    )
    made.register(Impl("triton", lambda x, _: x, frozenset({"cuda"}), priority=20))
    return made


def test_priority_decides_and_refusals_fall_to_torch(op: Op) -> None:
    assert op.select(SPEC).name == "cpp"
    assert op.select(Spec("cuda", torch.float32, None)).name == "triton"
    assert op.select(Spec("cpu", torch.float32, "odd")).name == "torch"
    verdicts = {v.impl: v for v in op.verdicts(Spec("cpu", torch.float32, "odd"))}
    assert verdicts["cpp"].reason == "is picky"
    assert verdicts["triton"].reason == "runs on cuda, not on cpu"
    assert verdicts["torch"].chosen


def test_argument_beats_context_beats_environment(op: Op, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTVOC_BACKEND", "torch")
    assert op.select(SPEC).name == "torch"
    with use_backend("cpp"):
        assert op.select(SPEC).name == "cpp"
        assert op.select(SPEC, "torch").name == "torch"
        with use_backend("torch", op="toy"):
            assert op.select(SPEC).name == "torch"
    monkeypatch.setenv("FASTVOC_BACKEND", "toy=cpp,*=torch")
    assert op.select(SPEC).name == "cpp"
    assert requested("other") == "torch"


def test_a_forced_backend_never_falls_back(op: Op) -> None:
    with pytest.raises(BackendError, match=r"no implementation of toy takes this call \(cpp: is picky\)"):
        op.select(Spec("cpu", torch.float32, "odd"), "cpp")
    with pytest.raises(BackendError, match="triton: runs on cuda, not on cpu"):
        op.select(SPEC, "triton")
    with pytest.raises(BackendError, match="toy has no implementation 'cuda'"):
        op.select(SPEC, "cuda")


def test_unknown_names_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendError, match=r"use_backend: unknown backend 'tritn'"), use_backend("tritn"):
        pass
    monkeypatch.setenv("FASTVOC_BACKEND", "mrf=gpu")
    with pytest.raises(BackendError, match="FASTVOC_BACKEND: unknown backend 'gpu'"):
        requested("mrf")


def test_use_backend_ends_with_its_block_and_stays_in_its_thread(op: Op) -> None:
    seen: list[str | None] = []
    with use_backend("torch"):
        thread = threading.Thread(target=lambda: seen.append(requested("toy")))
        thread.start()
        thread.join()
        assert requested("toy") == "torch"
    assert requested("toy") is None
    assert seen == [None]


def test_an_implementation_registers_once(op: Op) -> None:
    with pytest.raises(ValueError, match="twice"):
        op.register(Impl("cpp", lambda x, _: x, frozenset({"cpu"}), priority=1))


def test_explain_names_every_layer() -> None:
    rows = {row.layer: row for row in explain()}
    assert list(rows) == ["conv_pre", "ups.0", "mrf.0", "conv_post"]
    assert all(row.chosen in ("cpp", "torch") for row in rows.values())
    forced = explain(backend="torch")
    assert all(row.chosen == "torch" for row in forced)
    assert "cpp: backend 'torch' is forced" in str(forced)


@pytest.mark.parametrize("name", ["conv1d", "upsample", "mrf"])
def test_the_cuda_kernels_run_only_by_force(name: str) -> None:
    """They have not been run on a device yet: torch goes before them, and here they say why they cannot run."""
    explain()
    spec = Spec("cuda", torch.float32, object())
    assert OPS[name].impls["cuda"].priority < OPS[name].impls["torch"].priority
    if torch.version.cuda is None:
        with pytest.raises(BackendError, match=r"cuda: (this torch is a CPU build|the CUDA library is not built)"):
            OPS[name].select(spec, "cuda")
