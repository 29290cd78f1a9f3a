"""Which stages of a model may round: those that save the most time, within a bound of their error."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from torch import Tensor


def within(
    saved: Mapping[str, float], error: Callable[[Collection[str]], Tensor], most: Tensor
) -> tuple[tuple[str, ...], Tensor]:
    """The stages that round, in the order of `saved`, and the error of them all.

    Args:
        saved: time saved by each stage that rounds, in any unit.
        error: squared error of each clip, a tensor like `most`, where the named stages round.
        most: what it may be.

    Each is tried alone, since errors of stages add up as power. One after another is taken that still fits, beginning
    with the least error for the time that is saved, or with the most time where that saves more; the last of them go
    again while the whole, tried then, does not fit.
    """
    alone = {name: error((name,)) for name in saved}

    def fitting(order: Callable[[str], float]) -> list[str]:
        found: list[str] = []
        total = most.new_zeros(most.shape)
        for name in sorted(saved, key=order):
            if bool((total + alone[name] <= most).all()):
                found.append(name)
                total = total + alone[name]
        return found

    by_cost = fitting(lambda name: float((alone[name] / most).max()) / saved[name])
    by_time = fitting(lambda name: -saved[name])
    taken = max(by_cost, by_time, key=lambda names: sum(saved[name] for name in names))
    while taken and bool(((whole := error(taken)) > most).any()):
        taken.pop()
    return tuple(name for name in saved if name in taken), whole if taken else most.new_zeros(most.shape)
