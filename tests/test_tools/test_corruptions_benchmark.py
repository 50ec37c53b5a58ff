# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""tools/benchmarks/corruptions.py on a small image."""

import json

import pytest

pytest.importorskip('imagecorruptions')


def test_measures_and_adds_up(run_tool, tmp_path):
    arguments = ('--corruptions', 'contrast', 'pixelate', 'speckle_noise', '--repeats', 1)
    figures = tmp_path / 'times.json'
    code, out, _ = run_tool(
        'benchmarks/corruptions.py', *arguments, '--size', 64, 48, '--out', figures
    )
    assert code is None
    times = json.loads(figures.read_text())
    assert {name: list(levels) for name, levels in times.items()} == {
        name: ['1', '2', '3', '4', '5'] for name in ('contrast', 'pixelate', 'speckle_noise')
    }
    # The extra is in the table, and not in the sum of the benchmark.
    last = out.strip().splitlines()[-1]
    total = sum(one['fast'] for name in ('contrast', 'pixelate') for one in times[name].values())
    assert last.startswith('| 10 conditions |')
    assert float(last.split('|')[4]) == pytest.approx(total, abs=0.06)
    assert '| speckle_noise |' in out


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('--corruptions', 'fgo'), "did you mean 'fog'"),
        (('--repeats', 0), '--repeats must be 1 or more'),
        (('--size', 20, 400), '--size must be 32 32 or more'),
    ],
)
def test_refuses(run_tool, arguments, message):
    code, _, err = run_tool('benchmarks/corruptions.py', *arguments)
    assert code == 2
    assert message in err
