# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The tables of a report as rows of cells; the templates lay them out.

The models side by side, heat maps of P by corruption and severity, other test sets.
"""

from collections.abc import Callable
from typing import NamedTuple

from ..shifted_sets import FIGURES as SHIFTED_METRICS
from .axes import ModelLabel, model_labels
from .cells import CellFiles
from .colours import RAMP_STEPS, diverging_class, sequential_class
from .schema import UNKNOWN, Cost, Estimate, ModelResults, Results
from .text import (
    DASH,
    count_of,
    format_decimal,
    format_estimate,
    format_interval,
    format_params,
    format_percent,
    format_significant,
    metric_names,
    performance_name,
)

WITHOUT_INTERVALS = 'Without intervals: which of these are more than chance is not known.'


class TableCell(NamedTuple):
    """A cell of a table.

    Attributes:
        text (str): What it says.
        css_class (str): Its classes. Defaults to those of a number.
        title (str): Its tooltip. Defaults to none.
        small (str): Smaller words below, as an interval. Defaults to none.
        colspan (int): Columns that it takes. Defaults to 1.
    """

    text: str
    css_class: str = 'number'
    title: str = ''
    small: str = ''
    colspan: int = 1


class ModelRow(NamedTuple):
    """A row about one model."""

    label: ModelLabel
    cells: list[TableCell]


class ModelTable(NamedTuple):
    """Models in rows.

    Attributes:
        columns (list[str]): Headings.
        differences (list[str]): Headings of differences to the reference; empty without others.
        rows (list[ModelRow]): The models, the reference first.
    """

    columns: list[str]
    differences: list[str]
    rows: list[ModelRow]


def model_table(results: Results) -> ModelTable:
    """Return the headline metrics and costs of each model, and its differences."""
    names = metric_names(results)
    columns = headline_columns(results)
    differences = list(names.values()) if results.compared_models else []
    labels = model_labels(results)
    rows = []
    for model in results.models.values():
        cells = [number_cell(model.metrics[key]) for key in names]
        cells += [TableCell(text) for text in mce_and_costs(results, model)]
        if differences and model.name == results.reference:
            # One word in place of three differences of 0.
            cells.append(TableCell('reference', 'note', colspan=len(differences)))
        elif differences:
            cells += [difference_cell(model.difference.get(key, UNKNOWN)) for key in names]
        rows.append(ModelRow(labels[model.name], cells))
    return ModelTable(columns, differences, rows)


def headline_columns(results: Results) -> list[str]:
    """Return the headings of headline metrics, and of what :func:`mce_and_costs` returns."""
    mce = ['mCE'] if results.counted_corruptions else []
    return [*metric_names(results).values(), *mce, 'parameters', 'GFLOPs', 'ms an image']


def mce_and_costs(results: Results, model: ModelResults) -> list[str]:
    """Return mCE, where the tested corruptions allow one, and what the model costs."""
    cost = model.cost
    texts = [format_decimal(model.mce)] if results.counted_corruptions else []
    gflops = None if cost.flops is None else cost.flops / 1e9
    return [
        *texts,
        format_params(cost.params),
        format_significant(gflops),
        _milliseconds(cost),
    ]


def _milliseconds(cost: Cost) -> str:
    """Return the median time and its quartiles, '12.5 (12.1 to 13.0)'."""
    text = format_significant(cost.latency_ms)
    if cost.latency_spread is None:
        return text
    return f'{text} ({" to ".join(map(format_significant, cost.latency_spread))})'


def shifted_set_columns(results: Results) -> list[str]:
    """Return the headings of what :func:`shifted_set_estimates` returns."""
    performance = performance_name(results)
    columns = []
    for name in results.shifted_sets:
        pair = [f'{performance} on {name}', f'{name} / clean {performance}']
        columns += pair
        if results.compared_models:
            columns += [f'{each} minus {results.reference}' for each in pair]
    return columns


def shifted_set_estimates(results: Results, model: ModelResults) -> list[tuple[Estimate, bool]]:
    """Return P on each other test set and its ratio to clean P, then their differences.

    Returns:
        list[tuple[Estimate, bool]]: True goes with differences to the reference, which the
        reference itself has not.
    """
    estimates = []
    # In the order of shifted_set_columns: two values, then their differences.
    for name in results.shifted_sets:
        on_set = model.shifted_sets.get(name)
        metrics, difference = (on_set.metrics, on_set.difference) if on_set else ({}, {})
        estimates += [(metrics.get(key, UNKNOWN), False) for key in SHIFTED_METRICS]
        if results.compared_models:
            estimates += [(difference.get(key, UNKNOWN), True) for key in SHIFTED_METRICS]
    return estimates


def shifted_set_table(results: Results) -> ModelTable | None:
    """Return the models on other test sets; None without such sets."""
    if not results.shifted_sets:
        return None
    labels = model_labels(results)
    rows = [
        ModelRow(
            labels[model.name],
            [
                difference_cell(estimate) if is_difference else number_cell(estimate)
                for estimate, is_difference in shifted_set_estimates(results, model)
            ],
        )
        for model in results.models.values()
    ]
    return ModelTable(shifted_set_columns(results), [], rows)


def number_cell(estimate: Estimate) -> TableCell:
    """Return a cell with a number and its interval."""
    return TableCell(format_percent(estimate.value), small=format_interval(estimate))


def difference_cell(difference: Estimate) -> TableCell:
    """Return a cell with a difference and its interval, bold if that excludes 0."""
    if difference.value is None:
        return TableCell(DASH)
    css_class = 'number'
    if difference.low is not None:
        css_class += ' sure' if difference.significant_sign else ' unsure'
    interval = format_interval(difference, signed=True)
    return TableCell(format_percent(difference.value, signed=True), css_class, small=interval)


class HeatMap(NamedTuple):
    """P of a model, or its difference to the reference, by corruption and severity.

    Attributes:
        label (ModelLabel): The label of the model.
        minus (str): The model that is subtracted; empty if none is.
        groups (dict[str, dict[str, list[TableCell]]]): By group and corruption a cell for each
            severity, then one for their mean if there are several.
    """

    label: ModelLabel
    minus: str
    groups: dict[str, dict[str, list[TableCell]]]


class HeatMaps(NamedTuple):
    """Heat maps of several models in the same colours.

    Attributes:
        columns (list[str]): Headings: the severities, and 'mean' if there are several.
        ramp (list[str]): CSS classes of the colours, from low to high.
        low (str): The number that the lowest colour stands for.
        high (str): The same of the highest.
        note (str): What the reader should know of them. Empty if nothing.
        maps (list[HeatMap]): One for each model.
    """

    columns: list[str]
    ramp: list[str]
    low: str
    high: str
    note: str
    maps: list[HeatMap]


def heat_maps(results: Results) -> HeatMaps:
    """Return a heat map of each model."""
    labels = model_labels(results)
    models = results.models.values()
    values = [
        one.value for model in models for row in model.cells.values() for one in row.values()
    ]
    clean = [model.metrics['clean'].value or 0 for model in models]
    # Clean P is in the scale, so that the colour of a cell shows its distance to it.
    highest = max([*values, *clean], default=0) or 1.0

    def style(estimate: Estimate) -> tuple[str, str]:
        return format_percent(estimate.value), sequential_class(estimate.value, highest)

    maps = [
        HeatMap(
            labels[model.name],
            '',
            _heat_map_rows(results, model.name, model.cells, model.per_corruption, style),
        )
        for model in models
    ]
    ramp = [f'q{step}' for step in range(RAMP_STEPS + 1)]
    return HeatMaps(_severity_columns(results), ramp, '0', format_percent(highest), '', maps)


def difference_heat_maps(results: Results, files: CellFiles) -> HeatMaps | None:
    """Return a heat map of each model minus the reference; None if there is no difference.

    Raises:
        MalformedResultsError: If the file of a cell is malformed.
    """
    by_model = {
        model.name: _differences(results, model, files) for model in results.compared_models
    }
    differences = [
        one
        for cells in by_model.values()
        for row in cells.values()
        for one in row.values()
        if one.value is not None
    ]
    if not differences:
        return None
    # At least one point, so that differences of nearly nothing have nearly no colour.
    widest = max(*(abs(one.value) for one in differences), 0.01)

    def style(difference: Estimate) -> tuple[str, str]:
        colour = diverging_class(difference.value, widest)
        css_class = f'{colour} sure' if difference.significant_sign else colour
        return format_percent(difference.value, signed=True), css_class

    labels = model_labels(results)
    maps = []
    for model in results.compared_models:
        title = f'{model.name} minus {results.reference}'
        means = _mean_differences(results, model)
        rows = _heat_map_rows(results, title, by_model[model.name], means, style)
        maps.append(HeatMap(labels[model.name], results.reference, rows))
    return HeatMaps(
        _severity_columns(results),
        [f'd{step}' for step in range(RAMP_STEPS + 1)],
        format_percent(-widest),
        format_percent(widest, signed=True),
        _difference_note(results, differences),
        maps,
    )


def _severity_columns(results: Results) -> list[str]:
    severities = [str(severity) for severity in results.severities]
    return [*severities, 'mean'] if len(severities) > 1 else severities


def _heat_map_rows(
    results: Results,
    title: str,
    cells: dict[str, dict[int, Estimate]],
    means: dict[str, Estimate],
    style: Callable[[Estimate], tuple[str, str]],
) -> dict[str, dict[str, list[TableCell]]]:
    """Return the cells of a heat map; ``style`` gives the text and the class of one."""

    def cell(estimate: Estimate, place: str, css_class: str = '') -> TableCell:
        if estimate.value is None:
            # Hatched, so that a missing cell is not taken for a low one.
            return TableCell('·', f'gap {css_class}'.strip(), f'{title}, {place}: missing')
        text, colour = style(estimate)
        tooltip = f'{title}, {place}: {format_estimate(estimate)}'
        return TableCell(text, f'{colour} {css_class}'.strip(), tooltip)

    groups: dict[str, dict[str, list[TableCell]]] = {}
    for group, corruptions in results.groups.items():
        rows = groups[group] = {}
        for corruption in corruptions:
            own = cells.get(corruption, {})
            rows[corruption] = [
                cell(own.get(severity, UNKNOWN), f'{corruption} {severity}')
                for severity in results.severities
            ]
            if len(results.severities) > 1:
                mean = means.get(corruption, UNKNOWN)
                rows[corruption].append(cell(mean, f'{corruption}, mean', 'mean'))
    return groups


def _differences(
    results: Results, model: ModelResults, files: CellFiles
) -> dict[str, dict[int, Estimate]]:
    reference = results.models[results.reference]
    return {
        corruption: {
            severity: files.difference(model.name, (corruption, severity))
            for severity in results.severities
            if severity in model.cells.get(corruption, {})
            and severity in reference.cells.get(corruption, {})
        }
        for corruption in results.corruptions
    }


def _mean_differences(results: Results, model: ModelResults) -> dict[str, Estimate]:
    """Return differences of means; without intervals, as no file has the means' resamples."""
    reference = results.models[results.reference].per_corruption
    return {
        corruption: Estimate(mean.value - reference[corruption].value)
        for corruption, mean in model.per_corruption.items()
        if corruption in reference
    }


def _difference_note(results: Results, differences: list[Estimate]) -> str:
    with_interval = [one for one in differences if one.low is not None]
    if not with_interval:
        return WITHOUT_INTERVALS
    # The count belongs to the note: with many cells some are significant by chance.
    significant = sum(one.significant_sign != 0 for one in with_interval)
    note = (
        f'Bold and underlined: the 95 % interval of that cell lies on one side of 0, '
        f'{significant} of {count_of(len(with_interval), "cell")}; one in twenty would by chance.'
    )
    return f'{note} Means have no interval.' if len(results.severities) > 1 else note
