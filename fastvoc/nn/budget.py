"""Which stages of a model may round: those that save the most time for their error, within a bound."""

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

    Each is tried alone; of those that fit, the one with the most error for the time that it saves goes again until all
    that are left fit together, which is tried too, since errors only about add up.
    """
    alone = {name: float((error((name,)) / most).max()) for name in saved}
    fitting = [name for name in saved if alone[name] <= 1]
    taken = sorted(fitting, key=lambda name: alone[name] / saved[name])
    while taken:
        whole = error(taken)
        if bool((whole <= most).all()):
            return tuple(name for name in saved if name in taken), whole
        taken.pop()
    return (), most.new_zeros(most.shape)
