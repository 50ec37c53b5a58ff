# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The words of a report: numbers, names and sentences, without any markup."""

import itertools
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from .schema import Cost, Estimate, ModelResults, Results

DASH = '\N{EN DASH}'
"""Stands for a number that is not known."""
MINUS = '\N{MINUS SIGN}'
PERFORMANCE_NAMES = {
    'accuracy/top1': 'top-1',
    **dict.fromkeys(('pascal_voc/mAP', 'coco/bbox_mAP', 'coco/segm_mAP'), 'mAP'),
}
"""Short names of P by the metric's key; of other metrics the end of the key is taken."""
WORD_SO_FAR = re.compile(r'[^_/.\- ]*$')
"""The end of a name behind its last separator."""
MANY_INTERVALS = 6
"""From so many intervals on, the report says that some miss 0 by chance. Of six that are
independent, one does in 1 - 0.95^6 = 26 % of cases."""


class Paragraph(NamedTuple):
    """A paragraph, and the model whose name stands before it, if any."""

    words: str
    model: str | None = None


def plain_text(value: object) -> str:
    """Return a value as text that shows what it is.

    Names come from files. Control characters, and those that turn the order of letters, could
    hide what a name is; half of a surrogate pair cannot be written as UTF-8 at all.
    """
    text = str(value)
    if text.isprintable():
        return text
    # 'replace' writes a question mark for half of a surrogate pair.
    text = text.encode('utf-8', 'replace').decode()
    return ''.join(
        ' ' if c in '\t\r\n' else '\ufffd' if unicodedata.category(c) in ('Cc', 'Cf') else c
        for c in text
    )


def format_percent(value: float | None, signed: bool = False) -> str:
    """Format a fraction times 100 with one decimal, as '12.3'; ``signed`` for differences."""
    return format_decimal(None if value is None else 100 * value, signed)


def format_decimal(value: float | None, signed: bool = False) -> str:
    """Format a number with one decimal; ``signed`` writes the sign of positive ones, too."""
    if value is None:
        return DASH
    shown = f'{abs(value):.1f}'
    # What rounds to 0.0 has no sign: '-0.0' would look like a loss.
    if not float(shown):
        return shown
    return f'{MINUS if value < 0 else "+" if signed else ""}{shown}'


def format_interval(estimate: Estimate, signed: bool = False) -> str:
    """Format an interval times 100; empty if there is none."""
    if estimate.low is None:
        return ''
    return f'{format_percent(estimate.low, signed)} to {format_percent(estimate.high, signed)}'


def format_estimate(estimate: Estimate, signed: bool = False) -> str:
    """Format a number with its interval in parentheses, both times 100."""
    interval = format_interval(estimate, signed)
    return format_percent(estimate.value, signed) + (f' ({interval})' if interval else '')


def format_significant(value: float | None) -> str:
    """Format a positive number with three significant digits; large ones keep all digits."""
    if value is None:
        return DASH
    # '#' keeps zeros at the end (2.50), and then also a dot after whole numbers.
    return f'{value:,.0f}' if value >= 1000 else f'{value:#.3g}'.rstrip('.')


def format_params(count: int | None) -> str:
    """Format a number of parameters in millions."""
    return DASH if count is None else f'{format_significant(count / 1e6)} M'


def compare_with_clean(drop: float) -> str:
    """Say how much lower P is than clean P, a fraction; it may be higher as well."""
    points = format_percent(abs(drop))
    if not float(points):
        return 'nearly as clean' if drop else 'as clean'
    return f'{points} {"less" if drop > 0 else "more"} than clean'


def count_of(number: int, singular: str, plural: str = '') -> str:
    """Return a number with its noun: '1 image', '2 images'."""
    return f'{number} {singular if number == 1 else plural or f"{singular}s"}'


def join_names(names: Sequence[str]) -> str:
    """Join names as a sentence lists them: 'a, b and c'."""
    names = list(names)
    if len(names) < 2:
        return ''.join(names)
    return f'{", ".join(names[:-1])} and {names[-1]}'


def letter_count(text: str) -> int:
    """Return the width of text in letters; Chinese, Japanese and Korean ones count twice."""
    seen = (c for c in text if unicodedata.category(c) not in ('Mn', 'Me', 'Cf'))
    return sum(1 + (unicodedata.east_asian_width(c) in 'WF') for c in seen)


def shorten(text: str, length: int) -> str:
    """Shorten text to ``length`` letters; the middle goes, as names differ at both ends."""
    if letter_count(text) <= length:
        return text
    kept = len(text)
    while True:
        kept -= 1
        shown = f'{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}'
        if letter_count(shown) <= length or not kept:
            return shown


def shorten_names(names: Sequence[str], length: int) -> dict[str, str]:
    """Shorten names to ``length`` letters so that they stay apart.

    Where only the middle of names tells them apart, what they share at both ends goes instead.
    """
    shown = {name: shorten(name, length) for name in names}
    alike = [name for name, one in shown.items() if list(shown.values()).count(one) > 1]
    if alike:
        start = _common_start(alike)
        # From the start of a word on, if that is short.
        word = WORD_SO_FAR.search(alike[0][:start]).group()
        start -= len(word) if len(word) <= length // 3 else 0
        cores = [name[start:] for name in alike]
        end = _common_start([core[::-1] for core in cores])
        for name, core in zip(alike, cores, strict=True):
            core = core[: len(core) - end]
            # Two for the ellipses; what is left over is filled from the shared end.
            core = shorten(core, length - 2)
            rest = ''
            for letter in name[len(name) - end :]:
                if letter_count(core + rest + letter) > length - 2:
                    break
                rest += letter
            tail = '…' if len(rest) < end else ''
            shown[name] = f'{"…" if start else ""}{core}{rest}{tail}'
    # Names that differ where no room is left have their number as well.
    for i, name in enumerate(names):
        if list(shown.values()).count(shown[name]) > 1:
            number = f'{i + 1}'
            shown[name] = f'{shorten(shown[name], length - len(number) - 1)} {number}'
    return shown


def _common_start(texts: Sequence[str]) -> int:
    """Return how many letters at the start of all texts are the same."""
    same = (len(set(letters)) == 1 for letters in zip(*texts, strict=False))
    return len(list(itertools.takewhile(bool, same)))


def performance_name(results: Results) -> str:
    """Return what P is called: 'mAP', 'top-1', ..."""
    key = results.protocol['metric']
    return PERFORMANCE_NAMES.get(key) or key.rpartition('/')[2]


def metric_names(results: Results) -> dict[str, str]:
    """Return what the headline metrics are called, those that the tested corruptions allow."""
    names = {'clean': f'clean {performance_name(results)}'}
    return names | {'mPC': 'mPC', 'rPC': 'rPC'} if results.counted_corruptions else names


def title(results: Results) -> str:
    """Return the title of the report."""
    names = list(results.models)
    return f'Robustness of {names[0] if len(names) == 1 else f"{len(names)} models"}'


def subtitle(results: Results) -> str:
    """Return what was measured, on what images."""
    dataset = results.protocol['dataset']
    return (
        f'{results.protocol["metric"]} on {count_of(dataset["images"], "image")} of '
        f'{dataset.get("type", "a dataset")}, clean and under '
        f'{count_of(len(results.corruptions), "corruption")} at '
        f'{count_of(len(results.severities), "severity", "severities")}'
    )


def units_note(results: Results) -> str:
    """Return what the metrics are, and their units."""
    name = performance_name(results)
    if not results.counted_corruptions:
        return f'All {name} are times 100.'
    return (
        f'All {name}, mPC and rPC are times 100. mPC is the mean of {name} over corruptions and '
        f'severities, rPC = mPC / clean {name}. mCE, in percent: error under corruption relative '
        f'to {results.mce_reference}, lower is better.'
    )


def cost_note(results: Results) -> str | None:
    """Return what GFLOPs and times are of; None if neither is known."""
    costs = {model.name: model.cost for model in results.models.values()}
    figures = []
    if any(cost.flops is not None for cost in costs.values()):
        figures.append('GFLOPs are 10⁹ multiply-accumulates')
    if any(cost.latency_ms is not None for cost in costs.values()):
        spread = any(cost.latency_spread is not None for cost in costs.values())
        figures.append(f'ms are the median time{" (and its quartiles)" if spread else ""}')
    if not figures:
        return None
    threads = sorted({cost.threads for cost in costs.values()} - {None})
    suffix = ''
    if threads and len(figures) > 1:
        counts = ' or '.join(map(str, threads))
        suffix = f'; times with {counts} thread{"s" * (threads != [1])}'
    return f'{join_names(figures)} of one image, {_image_sizes(costs)}{suffix}.'


def _image_sizes(costs: Mapping[str, Cost]) -> str:
    """Return the size of the image that costs were measured on, by model if they differ."""
    models: dict[str, list[str]] = {}
    for name, cost in costs.items():
        shown = f'{cost.image[1]} by {cost.image[0]} pixels' if len(cost.image) == 2 else ''
        models.setdefault(shown or 'of unknown size', []).append(name)
    if len(models) == 1:
        return next(iter(models))
    return '; '.join(f'{size}: {join_names(names)}' for size, names in models.items())


def verdict(results: Results) -> list[Paragraph]:
    """Return for each compared model whether it differs from the reference beyond chance."""
    paragraphs = [
        Paragraph(summary_sentence(results, model), model.name)
        for model in results.compared_models
    ]
    return paragraphs or [Paragraph(_single_model_sentence(results))]


def summary_sentence(results: Results, model: ModelResults) -> str:
    """Return how a model compares with the reference; the model's name is to stand before it."""
    reference, names = results.reference, metric_names(results)
    differences = {key: model.difference.get(key) for key in names}
    known = {key: one for key, one in differences.items() if one and one.value is not None}

    def listed(keys: Iterable[str]) -> str:
        return join_names([f'{names[key]} ({_with_semicolon(known[key])})' for key in keys])

    if not known:
        return f'is compared with {reference} in no figure over all images: they are missing.'
    without = [key for key, one in known.items() if one.low is None]
    if len(without) == len(known):
        return (
            f'minus {reference}: {listed(known)}. Without intervals it is not known '
            f'whether that is more than chance.'
        )
    # A difference counts only if its interval excludes 0; all others are said to be unclear.
    by_word = {
        word: [key for key, one in known.items() if one.significant_sign == sign]
        for sign, word in ((1, 'higher'), (-1, 'lower'))
    }
    significant = [f'{word} {listed(keys)}' for word, keys in by_word.items() if keys]
    unclear = [
        key for key, one in known.items() if one.low is not None and one.significant_sign == 0
    ]
    parts = [f'has {" and ".join(significant)} than {reference}.'] if significant else []
    if unclear:
        that = 'that' if len(unclear) == 1 else 'those'
        parts.append(
            f'Its {listed(unclear)} cannot be told apart from {that} of {reference}.'
            if significant
            else f'cannot be told apart from {reference} by {listed(unclear)}.'
        )
    if without:
        parts.append(f'Of {listed(without)} there is no interval.')
    return ' '.join(parts)


def interval_caveats(results: Results) -> str | None:
    """Return what the intervals do not show; None without intervals."""
    of_differences = [
        one
        for model in results.compared_models
        for differences in (
            model.difference,
            *(on_set.difference for on_set in model.shifted_sets.values()),
        )
        for one in differences.values()
        if one.low is not None
    ]
    intervals = of_differences or [
        model for model in results.models.values() if model.metrics['clean'].low is not None
    ]
    if not intervals:
        return None
    # The key may be missing or null in results of a run without intervals.
    resamples = (results.protocol.get('bootstrap') or {}).get('resamples')
    text = (
        f'Intervals are 95 %, from {resamples or "an unknown number of"} resamples of the '
        f'{count_of(results.image_count, "test image")}'
        f'{" and of those of each other set" if results.shifted_sets else ""}. '
        f'They say what other images of this kind would change, not what training again would.'
    )
    if of_differences:
        text += ' What cannot be told apart is not thereby equal.'
    if len(results.compared_models) > 1:
        text += f' Models are compared with {results.reference} alone, not with each other.'
    if len(of_differences) >= MANY_INTERVALS:
        text += (
            f' Of {len(of_differences)} such intervals one in twenty misses 0 by chance where '
            f'there is no difference.'
        )
    return text


def protocol_rows(results: Results) -> list[tuple[str, str]]:
    """Return the protocol as names and values, then where each model is from."""
    protocol = results.protocol
    dataset = protocol['dataset']
    subset = protocol.get('subset')
    rows = [
        ('metric', str(protocol['metric'])),
        (
            'images',
            f'{dataset["images"]} of {dataset.get("of") or "an unknown number"} of '
            f'{dataset.get("type", "a dataset")}'
            + (f' (--subset {subset}, always the same ones)' if subset else ''),
        ),
        ('dataset, sha256 of ids, sizes and annotations', str(dataset['sha256'])),
        ('corruptions', ', '.join(results.corruptions)),
        ('severities', ', '.join(map(str, results.severities))),
        ('seed and mode of corruptions', f'{results.seed}, {protocol["mode"]}'),
        ('intervals', _describe_bootstrap(protocol.get('bootstrap'))),
        ('reference', results.reference),
    ]
    # Without a corruption of the benchmark there is no mCE.
    if results.counted_corruptions:
        rows.append(('mCE refers to', results.mce_reference))
    # Keys that are written above or below in words; all others follow as they are, so that a
    # setting that a later version adds is not lost.
    described = {'format', 'metric', 'dataset', 'subset', 'corruptions', 'severities', 'seed'}
    described |= {'mode', 'bootstrap', 'models', 'versions'}
    rows += [(key, _as_text(value)) for key, value in protocol.items() if key not in described]
    rows += [('versions', _describe_versions(protocol.get('versions')))]
    hashes = protocol.get('models')
    for model in results.models.values():
        own = hashes.get(model.name) if isinstance(hashes, dict) else None
        checkpoint = own.get('checkpoint_sha256') if isinstance(own, dict) else None
        suffix = f' (sha256 {_as_text(checkpoint)})' if checkpoint else ''
        rows.append((f'model {model.name}', f'{model.config}, {model.checkpoint}{suffix}'))
    return rows


def _with_semicolon(difference: Estimate) -> str:
    """Format a difference for use in parentheses, where an interval has none of its own."""
    text = format_estimate(difference, signed=True)
    return text.replace(' (', '; ').rstrip(')') if difference.low is not None else text


def _single_model_sentence(results: Results) -> str:
    mpc = results.models[results.reference].metrics['mPC']
    text = 'There is one model, so that nothing is compared.'
    return text if mpc.low is None else f'{text} Its mPC is {format_estimate(mpc)}.'


def _describe_bootstrap(bootstrap: object) -> str:
    if not isinstance(bootstrap, dict) or not bootstrap.get('resamples'):
        return 'none'
    named = {'resamples': '{} resamples', 'seed': 'seed {}', 'interval': '{}'}
    parts = [
        words.format(_as_text(bootstrap[key]))
        for key, words in named.items()
        if bootstrap.get(key) is not None
    ]
    return f'bootstrap over images, {", ".join(parts)}'


def _describe_versions(versions: object) -> str:
    if not isinstance(versions, dict):
        return 'unknown'
    return ', '.join(f'{name} {_as_text(version)}' for name, version in versions.items())


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
