# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""How the figures came about, as pairs of a name and a value."""

import json

from .reading import Results


def settings(results: Results) -> list[tuple[str, str]]:
    """The protocol in the words of a reader, then the models and where they come from."""
    protocol = results.protocol
    dataset = protocol['dataset']
    subset = protocol.get('subset')
    pairs = [
        ('metric', str(protocol['metric'])),
        (
            'images',
            f'{dataset["images"]} of {dataset.get("of", "an unknown number")} of '
            f'{dataset.get("type", "a dataset")}'
            + (f' (--subset {subset}, always the same ones)' if subset else ''),
        ),
        ('dataset, sha256 of ids, sizes and annotations', str(dataset['sha256'])),
        ('corruptions', ', '.join(results.corruptions)),
        ('severities', ', '.join(map(str, results.severities))),
        ('seed and mode of corruptions', f'{results.seed}, {protocol["mode"]}'),
        ('intervals', _intervals(protocol.get('bootstrap'))),
        ('reference', results.reference),
        ('mCE refers to', results.errors),
    ]
    known = {'format', 'metric', 'dataset', 'subset', 'corruptions', 'severities', 'seed', 'mode'}
    known |= {'bootstrap', 'models', 'versions'}
    pairs += [(key, _shown(value)) for key, value in protocol.items() if key not in known]
    pairs += [('versions', _versions(protocol.get('versions')))]
    hashes = protocol.get('models')
    for model in results.models.values():
        own = hashes.get(model.name) if isinstance(hashes, dict) else None
        checkpoint = own.get('checkpoint_sha256') if isinstance(own, dict) else None
        suffix = f' (sha256 {_shown(checkpoint)})' if checkpoint else ''
        pairs.append((f'model {model.name}', f'{model.config}, {model.checkpoint}{suffix}'))
    return pairs


def _intervals(bootstrap: object) -> str:
    if not isinstance(bootstrap, dict) or not bootstrap.get('resamples'):
        return 'none'
    return (
        f'bootstrap over images, {_shown(bootstrap["resamples"])} resamples, seed '
        f'{_shown(bootstrap.get("seed"))}, {_shown(bootstrap.get("interval"))}'
    )


def _versions(versions: object) -> str:
    if not isinstance(versions, dict):
        return 'unknown'
    return ', '.join(f'{name} {_shown(version)}' for name, version in versions.items())


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
