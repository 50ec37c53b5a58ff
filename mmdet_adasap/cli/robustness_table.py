# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The table that ``adasap robustness`` prints."""


def format_table(results: dict) -> str:
    """Format the figures of all models, one line each, and the settings they belong to."""
    # mmdet prints fractions with four digits, and mmpretrain percents with two.
    percent = results['protocol']['metric'].startswith('accuracy/')
    scale, digits = (100, 2) if percent else (1, 4)

    def number(value: float) -> str:
        return f'{scale * value:.{digits}f}'

    def shown(model: dict, key: str) -> str:
        if model[key] is None:
            return '-'
        ends = (model['ci95'] or {}).get(key)
        return number(model[key]) + (f' [{number(ends[0])}, {number(ends[1])}]' if ends else '')

    unit = ', %' if percent else ''
    rows = [('', *(f'{key}{unit}' for key in ('clean', 'mPC', 'rPC')), 'mCE, %')]
    for name, model in results['models'].items():
        mce = '-' if model['mCE'] is None else f'{model["mCE"]:.2f}'
        rows.append((name, *(shown(model, key) for key in ('clean', 'mPC', 'rPC')), mce))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = []
    for name, *figures in rows:
        cells = [cell.rjust(width) for cell, width in zip(figures, widths[1:], strict=True)]
        lines.append('  '.join([name.ljust(widths[0]), *cells]))
    lines.append(_settings_line(results))
    for name, model in results['models'].items():
        for kind, found in model['shifts'].items():
            p, r = shown(found, 'P'), shown(found, 'R')
            lines.append(f'{name} on {kind}: {p}, of clean {r}{unit}')
    return '\n'.join([*lines, *_mean_line(results)])


def _settings_line(results: dict) -> str:
    protocol, images = results['protocol'], results['protocol']['dataset']
    resamples = protocol['bootstrap']['resamples']
    count = len(protocol['corruptions'])
    parts = [
        protocol['metric'],
        f'{count} corruption{"s" * (count != 1)}, severities '
        f'{", ".join(map(str, protocol["severities"]))}',
        f'{images["images"]} of {images["of"]} images',
        f'[95 % interval, {resamples} resamples of the images]' if resamples else 'no intervals',
    ]
    if any(model['mCE'] is not None for model in results['models'].values()):
        parts.append(f'mCE refers to {results["mCE_reference"]}')
    return '; '.join(parts)


def _mean_line(results: dict) -> list[str]:
    """Return what mPC is over, if that is not the benchmark or not all that was tested."""
    from ..robustness.report.notices import mean_note

    protocol, over = results['protocol'], next(iter(results['models'].values()))['over']
    note = mean_note(protocol['corruptions'], protocol['severities'], over)
    if over is None or over['complete'] or set(protocol['corruptions']) - set(over['corruptions']):
        return [note] if note else []
    # Short where all corruptions in the line above are in the mean.
    return ['mPC is over these alone, not over the whole benchmark of 15 and 5']
