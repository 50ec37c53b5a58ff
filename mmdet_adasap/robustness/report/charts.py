# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The charts of a report: differences to the reference, P over severity, P against cost.

Each is drawn by :class:`~.axes.Axes`; templates/macros.html.j2 writes it as SVG.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from .axes import (
    TEXT_DROP,
    Axes,
    Mark,
    ModelLabel,
    axis_limits,
    marker,
    model_labels,
    names_width,
    ticks,
    upper_limit,
)
from .schema import OTHER_GROUP, UNKNOWN, Cost, Estimate, ModelResults, Results
from .text import format_estimate, format_significant, metric_names, performance_name

WIDTH = 380
"""Pixels of a chart: three stand side by side in the 1240 pixels of a page (style.css). Distances
below are pixels, too, chosen by eye for the 11 pixel type of charts."""
TOP, LEFT = 28, 34
"""Room for the heading above the plot area, and for numbers of three digits left of it."""


class ChartFigure(NamedTuple):
    """Charts side by side, and the caption below them."""

    charts: list[Axes]
    caption: str


def difference_charts(results: Results) -> ChartFigure | None:
    """Draw each model minus the reference as a point with its interval, a chart for each metric.

    Returns:
        ChartFigure | None: None if there is no difference to show.
    """
    models = [
        model
        for model in results.compared_models
        if any(difference.value is not None for difference in model.difference.values())
    ]
    if not models:
        return None
    differences = [difference for model in models for difference in model.difference.values()]
    with_intervals = any(difference.low is not None for difference in differences)
    # Where all models are equal the axis has some length all the same.
    reach = 100 * max(map(abs, _known_ends(differences))) or 1
    caption = f'Points of 100 minus {results.reference}'
    caption += '. Filled: the 95 % interval lies on one side of 0.' if with_intervals else '.'
    # 5 % more, so that the longest interval does not touch the edge.
    charts = [
        _difference_chart(results, models, key, reach * 1.05) for key in metric_names(results)
    ]
    return ChartFigure(charts, caption)


def _difference_chart(
    results: Results, models: list[ModelResults], metric: str, reach: float
) -> Axes:
    labels = model_labels(results)
    top, row_height = 26, 26
    left = 12 + names_width([labels[model.name] for model in models])
    bottom = top + row_height * len(models)
    heading = metric_names(results)[metric]
    axes = Axes(
        title=f'{heading} of each model minus {results.reference}',
        size=(WIDTH, bottom + 26),  # room for the numbers below
        area=(left, top, WIDTH - 14, bottom),
        x_limits=(-reach, reach),
        y_limits=(len(models), 0),  # a row for each model, the first at the top
    )
    axes.heading(heading, left)
    axes.x_rules(ticks(-reach, reach, 5), base=0)
    for i, model in enumerate(models):
        y = axes.y(i + 0.5)
        estimate = model.difference.get(metric, UNKNOWN)
        css_class = labels[model.name].css_class
        axes.text(left - 10, y + TEXT_DROP, labels[model.name].short, 'end', model.name)
        if estimate.value is None:
            axes.text(axes.x(0) + 6, y + TEXT_DROP, 'not known', 'soft')
            continue
        if estimate.low is not None:
            ends = axes.x(100 * estimate.low), axes.x(100 * estimate.high)
            axes.line((ends[0], y), (ends[1], y), f'whisker {css_class}')
        filled = 'mark' if estimate.significant_sign else 'mark hollow'
        x = axes.x(100 * estimate.value)
        axes.marks.append(
            Mark(
                'circle',
                {'cx': x, 'cy': y, 'r': 5.0, 'class': f'{filled} {css_class}'},
                title=f'{model.name}, {heading}: {format_estimate(estimate, signed=True)}',
            )
        )
    return axes


class _Curve(NamedTuple):
    """P of a model by severity, 0 for clean images."""

    label: ModelLabel
    estimates: dict[int, Estimate]


def severity_means(results: Results) -> dict[str, dict[str, dict[int, Estimate]]]:
    """Return P by severity: means over the benchmark and over its groups, and other corruptions.

    Returns:
        dict[str, dict[str, dict[int, Estimate]]]: By what P is the mean of, model and severity.
    """
    models, counted = results.models.values(), results.counted_corruptions
    others = results.groups.get(OTHER_GROUP, [])
    means = {}
    if counted:
        number = f'{len(counted)} ' if others else ''
        title = f'mean over {number}corruptions' if len(counted) > 1 else counted[0]
        means[title] = {model.name: model.per_severity for model in models}
    groups = {group: names for group, names in results.groups.items() if group != OTHER_GROUP}
    # A single group would repeat the mean.
    for group, names in groups.items() if len(groups) > 1 else ():
        means[group] = {
            model.name: model.severity_means(names, results.severities) for model in models
        }
    # Corruptions of no group have no common cause: each stands for itself.
    for name in others:
        means[name] = {model.name: model.cells.get(name, {}) for model in models}
    return means


def severity_charts(results: Results) -> list[Axes]:
    """Draw P over severity, a chart for each of :func:`severity_means`, all to the same scale."""
    means = severity_means(results)
    curves = {title: _curves(results, by_model) for title, by_model in means.items()}
    curves = {title: panel for title, panel in curves.items() if panel}
    if not curves:
        return []
    ends = [
        100 * end
        for panel in curves.values()
        for curve in panel
        for end in _known_ends(curve.estimates.values())
    ]
    # One scale for all charts, or the groups would not compare.
    limits = axis_limits(min(ends), max(ends))
    return [
        _severity_chart(title, panel, results.severities, limits)
        for title, panel in curves.items()
    ]


def _curves(results: Results, by_model: dict[str, dict[int, Estimate]]) -> list[_Curve]:
    """Return a curve for each model that has any of these estimates, from clean images on."""
    labels = model_labels(results)
    curves = []
    for name, estimates in by_model.items():
        clean = results.models[name].metrics['clean']
        start = {} if clean.value is None else {0: clean}
        if estimates:
            curves.append(_Curve(labels[name], {**start, **estimates}))
    return curves


def _severity_chart(
    title: str,
    curves: Sequence[_Curve],
    severities: Sequence[int],
    limits: tuple[float, float],
) -> Axes:
    height = 250
    right = WIDTH - 18 - names_width([curve.label for curve in curves])
    columns = [0, *severities]
    axes = Axes(
        title=f'P over severity: {title}',
        size=(WIDTH, height),
        area=(LEFT, TOP, right, height - 34),
        x_limits=(0, len(columns) - 1),
        y_limits=limits,
        x_padding=(10, 10),
    )
    axes.heading(title)
    axes.y_ticks(ticks(*limits), base=limits[0])
    for column, severity in enumerate(columns):
        axes.x_tick(column, str(severity) if severity else 'clean')
    axes.x_title('severity', below=31)
    for i, curve in enumerate(curves):
        # Models at one severity stand side by side, or their intervals would hide each other: 4
        # pixels apart, of more than four models less, so that they stay near their severity.
        aside = min(4.0, 16 / len(curves)) * (i - (len(curves) - 1) / 2)
        pixels = {severity: axes.x(column) + aside for column, severity in enumerate(columns)}
        axes.marks += _polylines(axes, curve, pixels)
        for severity, estimate in curve.estimates.items():
            where = f'severity {severity}' if severity else 'clean'
            text = f'{curve.label.name}, {title}, {where}: {format_estimate(estimate)}'
            x, y = pixels[severity], axes.y(100 * estimate.value)
            axes.whisker(curve.label, x, estimate)
            axes.marks.append(marker(curve.label.css_class, x, y, 3.2, text))
    axes.name_models(
        {
            curve.label: axes.y(100 * curve.estimates[max(curve.estimates)].value)
            for curve in curves
        },
        offset=6,
    )
    return axes


def _polylines(axes: Axes, curve: _Curve, pixels: dict[int, float]) -> list[Mark]:
    """Return lines between neighbouring severities; a missing severity leaves a gap."""
    runs: list[list[str]] = [[]]
    for severity, x in pixels.items():
        estimate = curve.estimates.get(severity)
        if estimate is None:
            runs.append([])
        else:
            runs[-1].append(f'{x:.1f},{axes.y(100 * estimate.value):.1f}')
    css_class = f'curve {curve.label.css_class}'
    return [
        Mark('polyline', {'points': ' '.join(run), 'class': css_class})
        for run in runs
        if len(run) > 1
    ]


class _CostPoint(NamedTuple):
    label: ModelLabel
    cost: float
    spread: tuple[float, float] | None
    clean: Estimate
    mpc: Estimate


def cost_charts(results: Results) -> ChartFigure | None:
    """Draw mPC and clean P against parameters and against latency.

    Returns:
        ChartFigure | None: None if fewer than two models have both, so that nothing compares.
    """
    charts = [
        _cost_chart(results, 'parameters, millions', lambda cost: (cost.params or 0) / 1e6),
        _cost_chart(
            results,
            'milliseconds an image',
            lambda cost: cost.latency_ms,
            lambda cost: cost.latency_spread,
        ),
    ]
    charts = [chart for chart in charts if chart is not None]
    if not charts:
        return None
    caption = f'Filled with a name: mPC; hollow: clean {performance_name(results)}.'
    shown = [model.metrics[key] for model in results.models.values() for key in ('clean', 'mPC')]
    if any(estimate.low is not None for estimate in shown):
        caption += ' Whiskers: 95 % intervals.'
    if any(model.cost.latency_spread is not None for model in results.models.values()):
        caption += ' Lines across: the middle half of all timed runs.'
    return ChartFigure(charts, caption)


def _cost_chart(
    results: Results,
    title: str,
    cost_of: Callable[[Cost], float | None],
    spread_of: Callable[[Cost], tuple[float, float] | None] = lambda cost: None,
) -> Axes | None:
    labels = model_labels(results)
    points = [
        _CostPoint(
            labels[model.name],
            cost,
            spread_of(model.cost),
            model.metrics['clean'],
            model.metrics['mPC'],
        )
        for model in results.models.values()
        if (cost := cost_of(model.cost))
        and None not in (model.metrics['clean'].value, model.metrics['mPC'].value)
    ]
    # A single point shows no trade-off.
    if len(points) < 2:
        return None
    height = 270
    name = performance_name(results)
    highest = upper_limit(
        100 * max(_known_ends(one for point in points for one in (point.clean, point.mpc)))
    )
    widest = upper_limit(
        max(end for point in points for end in (point.cost, *(point.spread or ())))
    )
    right = WIDTH - 20 - names_width([point.label for point in points])
    axes = Axes(
        title=f'{name} against {title}',
        size=(WIDTH, height),
        area=(LEFT, TOP, right, height - 40),
        x_limits=(0, widest),
        y_limits=(0, highest),
        x_padding=(0, 6),
    )
    axes.heading(axes.title)
    axes.y_ticks(ticks(0, highest), base=0)
    for value in ticks(0, widest):
        axes.x_tick(value, f'{value:g}')
    axes.x_title(title, below=33)
    for point in points:
        _draw_cost_point(axes, point, name, title)
    axes.name_models(
        {point.label: axes.y(100 * point.mpc.value) for point in points},
        offset=8,
        leaders_from={point.label: axes.x(point.cost) for point in points},
    )
    return axes


def _draw_cost_point(axes: Axes, point: _CostPoint, name: str, title: str) -> None:
    """Draw clean P and mPC of a model, with their intervals and the spread of its cost."""
    x, css_class = axes.x(point.cost), point.label.css_class
    # A stem from clean P to mPC: its length is what corruptions cost the model.
    ends = axes.y(100 * point.clean.value), axes.y(100 * point.mpc.value)
    axes.line((x, ends[0]), (x, ends[1]), f'stem {css_class}')
    for estimate, what, group in (
        (point.clean, f'clean {name}', {'class': 'hollow'}),
        (point.mpc, 'mPC', {}),
    ):
        text = (
            f'{point.label.name}, {what}: {format_estimate(estimate)} at '
            f'{format_significant(point.cost)} {title}'
        )
        y = axes.y(100 * estimate.value)
        axes.whisker(point.label, x, estimate)
        if point.spread is not None:
            low, high = map(axes.x, point.spread)
            axes.line((low, y), (high, y), f'spread {css_class}')
        shape = marker(css_class, x, y, 4.6, text)
        axes.marks.append(Mark('g', group, children=(shape,)))


def _known_ends(estimates: Iterable[Estimate]) -> list[float]:
    """Return all values and ends of intervals that are known."""
    return [end for estimate in estimates for end in estimate if end is not None]
