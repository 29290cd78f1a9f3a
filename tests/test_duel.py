"""The turns of contenders that are compared, each in a process of its own."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from helpers import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import duel

TASK = duel.Task("v2", "fp32", 1, 1.0, 1)


class _Seats:
    """Contenders by name: seconds of a turn, or the round in which it dies."""

    def __init__(self, speed: dict[str, float], dies: dict[str, int] | None = None) -> None:
        self.speed, self.dies = speed, dies or {}
        self.order: list[str] = []

    def ask(self, name: str, said: dict[str, Any], seconds: float) -> dict[str, Any]:
        if said:
            return {"failed": "cannot"} if name not in self.speed else {"error": 0.0}
        self.order.append(name)
        if self.order.count(name) > self.dies.get(name, 99):
            return {"failed": "the process died (-9)"}
        return {"usual": self.speed[name], "rested": 2 * self.speed[name]}


def compared(seats: _Seats, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    clock = iter(range(100))
    monkeypatch.setattr(duel.time, "monotonic", lambda: float(next(clock)))
    args = SimpleNamespace(busy=False, limit=1.0, budget=3.0)
    row: dict[str, Any] = duel.compare(seats, TASK, ("torch", "onnxruntime"), args)
    return row


def test_turns_go_round_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    seats = _Seats({"cpp": 0.1, "torch": 0.3, "onnxruntime": 0.2})
    row = compared(seats, monkeypatch)
    assert seats.order[:6] == ["cpp", "torch", "onnxruntime", "onnxruntime", "torch", "cpp"]
    assert row["over"] == {"torch": pytest.approx(3), "onnxruntime": pytest.approx(2)}
    assert row["over_best"] == pytest.approx(2)
    assert row["impls"]["cpp"]["rested_s"] == pytest.approx(0.2)
    assert row["failed"] == {}


def test_who_fails_is_left_out_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    row = compared(_Seats({"cpp": 0.1, "torch": 0.3}, {"torch": 1}), monkeypatch)
    assert row["failed"] == {"onnxruntime": "cannot", "torch": "the process died (-9)"}
    assert row["impls"]["cpp"]["rounds"] > 1
    assert row["over"] == {}
    row = compared(_Seats({"torch": 0.3}), monkeypatch)
    assert row["failed"]["cpp"] == "cannot"
    assert "over" not in row


def test_a_process_plays_and_one_that_dies_says_so() -> None:
    seats = duel.Seats()
    try:
        task = duel.asdict(replace(TASK, model="v3", seconds=0.02))
        assert seats.ask("torch", task, 100) == {"error": 0.0}
        assert set(seats.ask("torch", {}, 100)) == {"rested", "usual"}
        seats._seats["torch"]._process.kill()
        assert seats.ask("torch", {}, 100) == {"failed": "the process died (-9)"}
        assert not seats._seats
    finally:
        seats.end()


def test_a_process_that_does_not_answer_is_ended() -> None:
    seat = duel.Seat("torch")
    answer = seat.ask(duel.asdict(TASK), 0.05)
    assert answer == {"failed": "did not finish in 0.05 s"}
    assert seat.ended
    assert seat._process.poll() == -9
