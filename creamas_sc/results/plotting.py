"""Plots of results: a line for each run, or a mean with a band for runs that are alike."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from io import BytesIO
from statistics import fmean, stdev
from typing import Any, NamedTuple

from creamas_sc.errors import BadValue
from creamas_sc.results.columns import to_json
from creamas_sc.results.tables import Table, needed


class Line(NamedTuple):
    """A line of a plot, over steps.

    Attributes:
        low, high: Of the band around it; empty without one.
    """

    label: str
    steps: list[int]
    values: list[float]
    low: list[float]
    high: list[float]


def lines(
    metrics: Table, agents: Table, runs: Table, name: str, by: str | None = None
) -> list[Line]:
    """The lines of one metric.

    It is a metric of the whole, or else the mean over the agents of a step.

    Args:
        by: A parameter: the runs that have the same value are one line, their mean, with a band of
            one standard deviation to each side. None for a line for each run.

    Raises:
        BadValue: There is no such metric, or no such parameter.
    """
    by_run = _by_run(metrics, agents, name)
    groups: dict[str, list[str]] = {}
    for run, parameters in zip(runs["run"], runs["parameters"], strict=True):
        if run in by_run:
            groups.setdefault(run if by is None else group_of(by, parameters), []).append(run)
    found = [line_of(label, [by_run[run] for run in of]) for label, of in groups.items()]
    return found if by is None else sorted(found, key=lambda line: natural(line.label))


def plot(lines: Sequence[Line], name: str, ax: Any = None) -> Any:
    """Draw lines; the axes.

    Args:
        ax: Where; by default, axes of a new figure, which pyplot does not know.
    """
    if ax is None:
        # Without pyplot: no window opens, and no figure is kept.
        figure = needed("matplotlib.figure", "plot").Figure(layout="constrained")
        figure._repr_png_ = partial(_png, figure)  # so notebooks show it without pyplot
        ax = figure.subplots()
    for line in lines:
        (drawn,) = ax.plot(line.steps, line.values, label=line.label)
        if line.low:
            color = drawn.get_color()
            ax.fill_between(line.steps, line.low, line.high, alpha=0.2, color=color, linewidth=0)
    ax.set_xlabel("step")
    ax.set_ylabel(name)
    if len(lines) > 1 or (lines and lines[0].low):
        ax.legend()
    return ax


def _png(figure: Any) -> bytes:
    file = BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _by_run(metrics: Table, agents: Table, name: str) -> dict[str, dict[int, float]]:
    """Run -> step -> value."""
    if name in metrics:
        table, whose = metrics, "metric"
    elif name in agents:
        table, whose = agents, "agents'"
    else:
        known = [*list(metrics)[2:], *list(agents)[3:]]
        raise BadValue(f"there is no metric {name!r}; there are: {', '.join(known) or 'none'}")
    values: dict[str, dict[int, list[float]]] = {}
    for run, step, value in zip(table["run"], table["step"], table[name], strict=True):
        if value is None:
            continue
        if not isinstance(value, (int, float)):
            raise BadValue(f"{name!r} ({whose}) cannot be plotted: {value!r} is not a number")
        if not math.isnan(value):
            values.setdefault(run, {}).setdefault(step, []).append(value)
    return {
        run: {step: fmean(of_step) for step, of_step in steps.items()}
        for run, steps in values.items()
    }


def group_of(by: str, parameters: Mapping[str, Any]) -> str:
    """The label of the runs that have the same value of a parameter.

    Raises:
        BadValue: There is no such parameter.
    """
    if by not in parameters:
        known = ", ".join(parameters) or "none"
        raise BadValue(f"a run has no parameter {by!r}; its parameters: {known}")
    value = parameters[by]
    return f"{by} = {value if isinstance(value, str) else to_json(value)}"


def line_of(label: str, runs: Sequence[Mapping[int, float]]) -> Line:
    """The mean of runs, each of them step -> value, with a band of one standard deviation."""
    steps = sorted({step for run in runs for step in run})
    values, low, high = [], [], []
    for step in steps:
        of_step = [run[step] for run in runs if step in run]
        mean = fmean(of_step)
        values.append(mean)
        if len(runs) > 1:
            spread = stdev(of_step) if len(of_step) > 1 else 0.0
            low.append(mean - spread)
            high.append(mean + spread)
    return Line(label, steps, values, low, high)


def natural(label: str) -> tuple[str, float, str]:
    """Sorts labels of numbers by these."""
    name, _, value = label.partition(" = ")
    try:
        return name, float(value), ""
    except ValueError:
        return name, math.inf, value
