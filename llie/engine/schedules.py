"""Learning-rate schedules as pure functions of the iteration, so resuming needs no history.

A curve maps (base rate, number of earlier steps) to a rate; as in BasicSR, this number is 0 at the first iteration.
After its last period, a curve keeps its last value.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any

from llie.errors import UserError, suggest
from llie.registry import check_arguments

Curve = Callable[[float, int], float]


def _half_cosine(start: float, end: float, fraction: float) -> float:
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * fraction))


def constant() -> Curve:
    """The base rate, always."""
    return lambda base, step: base


def multi_step(milestones: Sequence[int], gamma: float = 0.1) -> Curve:
    """Multiply the rate by `gamma` at each milestone.

    Args:
        milestones: iterations, in any order.
        gamma: the factor.
    """
    milestones = sorted(milestones)
    return lambda base, step: base * gamma ** bisect_right(milestones, step)


def cosine(T_max: int, eta_min: float = 0.0) -> Curve:
    """Half a cosine from the base rate down to `eta_min` after `T_max` steps.

    Args:
        T_max: length in iterations; in option files by default the length of the run.
        eta_min: rate at the end.
    """
    return lambda base, step: _half_cosine(base, eta_min, min(step, T_max) / T_max)


def cosine_restart(periods: Sequence[int], restart_weights: Sequence[float] = (1,), eta_min: float = 0.0) -> Curve:
    """Half cosines from the base rate to `eta_min`, one after the other, each scaled by its weight.

    Args:
        periods: lengths of the periods in iterations.
        restart_weights: factors on the amplitudes of the periods; a single one applies to all.
        eta_min: rate at the end of each period.
    """
    return cosine_restart_cyclic(periods, [eta_min] * len(periods), restart_weights)


def cosine_restart_cyclic(
    periods: Sequence[int], eta_mins: Sequence[float], restart_weights: Sequence[float] = (1,)
) -> Curve:
    """`cosine_restart` with a separate minimum for each period (Retinexformer family).

    With a minimum above the base rate, the rate rises. A step on a boundary belongs to the period that ends there.

    Args:
        periods: lengths of the periods in iterations.
        eta_mins: rate at the end of each period.
        restart_weights: factors on the amplitudes of the periods; a single one applies to all.
    """
    weights = list(restart_weights) * (len(periods) if len(restart_weights) == 1 else 1)
    if not 0 < len(periods) == len(weights) == len(eta_mins):
        raise UserError(
            f"scheduler: periods, restart_weights and eta_mins must be equally long, not "
            f"{len(periods)}, {len(weights)} and {len(eta_mins)}"
        )
    ends = list(accumulate(periods))

    def curve(base: float, step: int) -> float:
        step = min(step, ends[-1])
        i = bisect_left(ends, step)
        fraction = (step - (ends[i] - periods[i])) / periods[i]
        return eta_mins[i] + weights[i] * (_half_cosine(base, eta_mins[i], fraction) - eta_mins[i])

    return curve


def edvr_cosine(
    T_period: Sequence[int],
    restarts: Sequence[int] = (),
    restart_weights: Sequence[float] = (),
    eta_min: float = 0.0,
) -> Curve:
    """Cosine with restarts of the EDVR family (SNR-Aware, LFPV), with the argument names used there.

    Args:
        T_period: lengths of the half cosines in steps, one more than restarts (a restart at the end of the run does
            not count).
        restarts: steps after which the rate restarts.
        restart_weights: the rate after each restart, as a factor on the base rate.
        eta_min: rate at the end of each half cosine.
    """
    if len(restarts) != len(restart_weights) or len(T_period) < max(len(restarts), 1):
        raise UserError(
            f"scheduler: each restart needs a weight and a period, not {len(restarts)}, {len(restart_weights)} and "
            f"{len(T_period)}"
        )
    begins = [0, *(restart + 1 for restart in restarts)]
    weights = [1.0, *restart_weights]
    periods = [*T_period, T_period[-1]]

    def curve(base: float, step: int) -> float:
        i = bisect_right(begins, step) - 1
        return _half_cosine(weights[i] * base, eta_min, min((step - begins[i]) / periods[i], 1.0))

    return curve


def hvi_cosine(
    total_epochs: int, warmup_epochs: int = 3, eta_min: float = 1e-7, cyclic_eta: float | None = None
) -> Curve:
    """HVI-CIDNet's schedule, with a step per epoch: linear warm-up from zero, then one cosine.

    Args:
        total_epochs: length of the whole run.
        warmup_epochs: if this is not 0, the rate of the first epoch is 0, as published.
        eta_min: rate at the end.
        cyclic_eta: CIDNet's "cos_restart_cyclic": the rate falls to this in the first quarter, then to `eta_min`.
    """
    # After a warm-up the cosine is one step behind: epochs w + 1 and w + 2 both have the base rate.
    origin = warmup_epochs + 1 if warmup_epochs else 0
    if cyclic_eta is None:
        curve = cosine(total_epochs - warmup_epochs, eta_min)
    else:
        periods = (total_epochs // 4 - warmup_epochs, 3 * total_epochs // 4)
        curve = cosine_restart_cyclic(periods, (cyclic_eta, eta_min))
    return lambda base, epoch: base * epoch / warmup_epochs if epoch < origin else curve(base, epoch - origin)


SCHEDULES: dict[str, Callable[..., Curve]] = {
    "constant": constant,
    "MultiStepLR": multi_step,
    "MultiStepRestartLR": multi_step,
    "cosine": cosine,
    "CosineAnnealingLR": cosine,
    "TrueCosineAnnealingLR": cosine,
    "CosineAnnealingRestartLR": cosine_restart,
    "CosineAnnealingRestartCyclicLR": cosine_restart_cyclic,
    "CosineAnnealingLR_Restart": edvr_cosine,
    "HVICosine": hvi_cosine,
}


def create_schedule(
    spec: Mapping[str, Any], total_iter: int, iterations_per_epoch: int = 1, warmup_iter: int = -1
) -> Curve:
    """Build the function (base rate, 1-based iteration) -> learning rate that `{type: NAME, **arguments}` describes.

    Args:
        spec: name and arguments of a schedule; missing lengths are that of the whole run. `first_step: 1` is for
            recipes of the EDVR family, which advance the schedule before an iteration instead of after it.
        total_iter: number of iterations of the run.
        iterations_per_epoch: number of iterations after which schedules counted in epochs advance.
        warmup_iter: iteration up to which the rate rises linearly to the value of the schedule.

    Raises:
        UserError: unknown schedule or argument.

    Example:
        >>> rate = create_schedule({"type": "MultiStepLR", "milestones": [10], "gamma": 0.5}, 20, warmup_iter=4)
        >>> [rate(1e-3, iteration) for iteration in (1, 4, 10, 11)]
        [0.00025, 0.001, 0.001, 0.0005]
    """
    name = spec.get("type", "constant")
    if name not in SCHEDULES:
        raise UserError(f"scheduler: there is no {name!r}.{suggest(name, SCHEDULES)} Known: {', '.join(SCHEDULES)}")
    factory = SCHEDULES[name]
    arguments = {key: value for key, value in spec.items() if key not in ("type", "first_step")}
    first_step = spec.get("first_step", 0)
    if first_step not in (0, 1):
        raise UserError(f"scheduler: first_step must be 0 or 1, not {first_step!r}")
    by_epoch = factory is hvi_cosine
    if factory is cosine:
        arguments.setdefault("T_max", total_iter)
    if by_epoch:
        arguments.setdefault("total_epochs", math.ceil(total_iter / iterations_per_epoch))
    check_arguments(factory, arguments, "scheduler")
    curve = factory(**arguments)

    def rate(base: float, iteration: int) -> float:
        step = (iteration - 1) // iterations_per_epoch if by_epoch else iteration - 1 + first_step
        return curve(base, step) * min(1.0, iteration / warmup_iter if warmup_iter > 0 else 1.0)

    return rate
