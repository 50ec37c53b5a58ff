# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import copy
import json
import math

import numpy as np
import pytest

from _utils.latency_case import (
    REFERENCE_NS,
    bilinear_layer,
    depthwise_key,
    layer_key,
    table_json,
)
from mmdet_adasap.errors import LatencyTableError
from mmdet_adasap.latency import LatencyTable
from mmdet_adasap.latency.table import readable
from mmdet_adasap.pruning import LayerKey

TERMS = (0.5, 0.02, 0.01, 0.001)
DEPTHWISE = {'key': depthwise_key(), 'inputs': [8, 16, 32], 'ratios': [0.1, 0.2, 0.4]}


def layer(ratios, inputs=(16, 32), outputs=(16, 32)) -> dict:
    key = layer_key()
    return {'key': key, 'inputs': [*inputs], 'outputs': [*outputs], 'ratios': ratios}


def read(tmp_path, content) -> LatencyTable:
    (tmp_path / 'table.json').write_text(json.dumps(content))
    return LatencyTable.read(tmp_path / 'table.json')


class TestTime:
    def test_bilinear_data_are_met_exactly(self):
        rng = np.random.default_rng(0)
        table = LatencyTable(table_json(bilinear_layer(*TERMS)))
        inputs, outputs = rng.integers(16, 97, (7, 1)), rng.integers(8, 129, 9)
        a, b, c, d = TERMS
        expected = (a + b * inputs + c * outputs + d * inputs * outputs) * REFERENCE_NS
        found = table.time(layer_key(), inputs, outputs)
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, expected, rtol=1e-12)

    def test_key_of_the_tracer(self):
        table = LatencyTable(table_json(bilinear_layer(*TERMS)))
        key = LayerKey.from_dict(layer_key()).to_dict()
        assert table.time(key, 16, 8) == table.time(layer_key(), 16, 8)

    def test_rounds_up_to_the_step_but_not_beyond_the_grid(self):
        table = LatencyTable(table_json(bilinear_layer(*TERMS), step=20))
        times = table.time(layer_key(), [20, 21, 40, 81, 96], 128)
        assert times[1] == times[2] > times[0]
        assert times[3] == times[4] == pytest.approx(TERMS[0] * 1e6 + 1.92e6 + 1.28e6 + 12.288e6)

    def test_share_of_channels_that_is_not_quite_whole(self):
        table = LatencyTable(table_json(bilinear_layer(*TERMS), step=16))
        assert table.time(layer_key(), 32.000000001, 64) == table.time(layer_key(), 32, 64)

    def test_narrower_than_the_grid_is_a_plateau(self):
        table = LatencyTable(table_json(bilinear_layer(*TERMS)))
        assert (
            table.time(layer_key(), [0, 3, 16], 8).tolist() == [table.time(layer_key(), 16, 8)] * 3
        )

    def test_more_channels_never_take_less(self):
        rng = np.random.default_rng(1)
        ratios = rng.uniform(0.5, 1.5, (5, 6)).tolist()
        grids = [3, 16, 32, 48, 64], [16, 32, 48, 64, 80, 96]
        table = LatencyTable(table_json(layer(ratios, *grids)))
        times = table.time(layer_key(), np.arange(3, 65)[:, None], np.arange(16, 97))
        assert min(np.diff(times, axis=0).min(), np.diff(times, axis=1).min()) >= -1e-6
        assert times[0, 0] == pytest.approx(np.min(ratios) * REFERENCE_NS)
        assert times[-1, -1] == ratios[-1][-1] * REFERENCE_NS

    def test_groups(self):
        table = LatencyTable(table_json(DEPTHWISE))
        assert table.time(depthwise_key(), [8, 24, 32]) == pytest.approx([1e5, 3e5, 4e5])
        assert table.time(depthwise_key(), np.ones((3, 1)), np.ones(1)).shape == (3, 1)

    def test_one_width(self):
        table = LatencyTable(table_json(layer([[0.1, 0.3]], inputs=[3])))
        assert table.time(layer_key(), 3, 24) == pytest.approx(2e5)

    @pytest.mark.parametrize(
        ('widths', 'what'), [((97, 8), '97 inputs'), ((16, 129), '129 outputs')]
    )
    def test_nothing_beyond_the_grid(self, widths, what):
        table = LatencyTable(table_json(bilinear_layer(*TERMS)))
        with pytest.raises(LatencyTableError, match=f'conv 3x3 .*: {what} are more than the'):
            table.time(layer_key(), *widths)

    def test_layer_that_was_not_measured(self):
        table = LatencyTable(table_json(DEPTHWISE), 'a.json')
        with pytest.raises(LatencyTableError, match=r'a\.json: conv 3x3 .* is not in it'):
            table.time(layer_key(), 16, 16)


class TestBilinearFit:
    @pytest.mark.parametrize('terms', [TERMS, (0, 0, 0, 0.002), (0.3, 0, 0.1, 0), (1, 0, 0, 0)])
    def test_exact_on_bilinear_data(self, terms):
        table = LatencyTable(table_json(bilinear_layer(*terms)))
        found = table.bilinear_fit(layer_key())
        assert found == pytest.approx(np.array(terms) * REFERENCE_NS, rel=1e-6, abs=1e-3)

    def test_groups_have_no_outputs(self):
        found = LatencyTable(table_json(DEPTHWISE)).bilinear_fit(depthwise_key())
        assert found == pytest.approx((0, 0.0125e6, 0, 0), abs=1e-3)

    def test_none_is_negative_and_no_other_is_nearer(self):
        rng = np.random.default_rng(2)
        inputs, outputs = np.array([16, 32, 64, 128]), np.array([16, 48, 96])
        for _ in range(20):
            # Noise of a half: the plain least squares have terms below 0.
            ratios = (0.1 + np.outer(inputs, outputs) / 1e4) * rng.uniform(0.5, 1.5, (4, 3))
            entry = layer(ratios.tolist(), inputs.tolist(), outputs.tolist())
            table = LatencyTable(table_json(entry))
            times = table.time(layer_key(), inputs[:, None], outputs)
            fit = np.array(table.bilinear_fit(layer_key()))
            assert fit.min() >= 0

            def error(terms, times=times):
                a, b, c, d = terms
                said = a + b * inputs[:, None] + c * outputs + d * np.outer(inputs, outputs)
                return np.sum((said / times - 1) ** 2)

            for near in np.concatenate(
                [np.diag([1e4, 1e2, 1e2, 1]), -np.diag([1e4, 1e2, 1e2, 1])]
            ):
                assert error(fit) <= error(np.maximum(fit + near, 0)) + 1e-9


class TestDigest:
    def test_order_and_how_it_was_made_do_not_matter(self):
        content = table_json(bilinear_layer(*TERMS), DEPTHWISE)
        other = copy.deepcopy(content)
        other['layers'].reverse()
        other.update(spread=0.5, rounds=9)
        assert LatencyTable(content).digest == LatencyTable(other).digest
        assert len(LatencyTable(content).digest) == 16

    @pytest.mark.parametrize('name', ['backend_version', 'device_name', 'step', 'reference_ns'])
    def test_head_matters(self, name):
        content = table_json(DEPTHWISE)
        other = {**content, name: 2 if name in ('step', 'reference_ns') else 'another'}
        assert LatencyTable(content).digest != LatencyTable(other).digest

    def test_times_matter(self):
        content = table_json(DEPTHWISE)
        other = copy.deepcopy(content)
        other['layers'][0]['ratios'][0] *= 1.01
        assert LatencyTable(content).digest != LatencyTable(other).digest


def test_networks_missing_and_describe():
    times = {'input': [1, 3, 8, 8], 'dense': 12.5, 'half': 6, 'early': 9}
    table = LatencyTable(table_json(DEPTHWISE, networks={'0123456789abcdef': times}))
    assert table.network('0123456789abcdef') == tuple(n * REFERENCE_NS for n in (12.5, 6, 9))
    assert table.network('f' * 16) is None
    linear = layer_key('linear', batch=1000)
    assert table.missing([depthwise_key(), linear, linear]) == ['linear, 1000 rows']
    assert table.describe() == 'onnxruntime 1.2 on Some CPU, 1 thread, float32'


def test_networks_of_an_older_version_are_left_out():
    """Its layers are of use, and the same --out can go on."""
    old = {'input': [1, 3, 8, 8], 'dense': 12.5, 'half': 6}
    table = LatencyTable(table_json(DEPTHWISE, networks={'0123456789abcdef': old}))
    assert table.network('0123456789abcdef') is None
    assert table.input_shape == (1, 3, 8, 8)


@pytest.mark.parametrize(
    ('key', 'text'),
    [
        (layer_key(), 'conv 3x3 stride 1 on 8x8, batch 1'),
        (
            layer_key(stride=[2, 1], padding=[0, 0]),
            'conv 3x3 stride 2x1 on 8x8, batch 1, padding 0',
        ),
        (
            layer_key(dilation=[2, 2], padding=[2, 2]),
            'conv 3x3 stride 1 on 8x8, batch 1, dilation 2',
        ),
        (
            layer_key(groups=4, dtype='float16'),
            'conv 3x3 stride 1 on 8x8, batch 1, 4 groups, float16',
        ),
        (layer_key('conv_transpose'), 'conv transpose 3x3 stride 1 on 8x8, batch 1'),
        (depthwise_key(), 'depthwise conv 3x3 stride 1 on 8x8, batch 1'),
        (
            layer_key(groups=0, group_width=[4, 8]),
            '4-to-8 grouped conv 3x3 stride 1 on 8x8, batch 1',
        ),
    ],
)
def test_readable(key, text):
    assert readable(key) == text


def broken(**changes) -> dict:
    return {**table_json(layer([[1, 2], [3, 4]])), **changes}


def broken_layer(**changes) -> dict:
    return broken(layers=[{**layer([[1, 2], [3, 4]]), **changes}])


CONV = r'conv 3x3 stride 1 on 8x8, batch 1'


@pytest.mark.parametrize(
    ('content', 'what'),
    [
        ([], 'format: not "mmdet_adasap latency table 1"; measure it again'),
        (broken(format='mmdet_adasap latency table 2'), 'format: not'),
        (broken(threads='2'), "threads: '2' is no whole number above 0"),
        (broken(threads=True), 'threads: True is no whole number'),
        (broken(step=0), 'step: 0 is no whole number above 0'),
        (broken(reference_ns=math.nan), 'reference_ns: nan is no number'),
        (broken(layers={}), 'layers: {} is no list'),
        (
            broken(networks={'ab': {'input': [1, 3, 8, 8], 'dense': 1, 'half': 0, 'early': 1}}),
            'networks: ab: one of dense, half, early is no',
        ),
        (broken(networks={'ab': 1}), 'networks: ab: input is no shape'),
        (broken(networks={'ab': {'input': [1, 3, 7]}}), 'networks: ab: input is no shape of four'),
        (
            broken(
                networks={
                    'ab': {'input': [1, 3, 8, 8], 'dense': None, 'half': None, 'early': None}
                }
            ),
            'the network as a whole: not measured yet; go on with adasap latency',
        ),
        (broken(step=10**9), 'step: 1000000000 channels are no step of a device'),
        (
            broken(layers=[{**DEPTHWISE, 'key': {**depthwise_key(), 'group_width': [1]}}]),
            'layer 0',
        ),
        (broken(layers=[3]), 'layer 0: malformed'),
        (broken(layers=[layer([[1, 2], [3, 4]])] * 2), f'{CONV}: occurs twice; leave one'),
        (broken_layer(key={'op': 'conv'}), "layer 0: malformed \\(KeyError: 'dtype'\\)"),
        (
            broken_layer(ratios=[[1, 2], [3, 0]]),
            f'{CONV}, 32 to 32 channels: 0 is no ratio above 0',
        ),
        (
            broken_layer(ratios=[[1, math.nan], [3, 4]]),
            f'{CONV}, 16 to 32 channels: nan is no ratio',
        ),
        (
            broken_layer(ratios=[[1, math.inf], [3, 4]]),
            f'{CONV}, 16 to 32 channels: inf is no ratio',
        ),
        (broken_layer(ratios=[[1, 10**400], [3, 4]]), f'{CONV}, 16 to 32 channels: 1000'),
        (
            broken_layer(ratios=[[1, None], [3, 4]]),
            f'{CONV}, 16 to 32 channels: not measured yet; go on with',
        ),
        (broken_layer(ratios=[[1, 2], [3]]), f'{CONV}: ratios are not 2 lists of 2'),
        (broken_layer(ratios=[[1, 2]]), f'{CONV}: ratios are not 2 lists of 2'),
        (broken_layer(ratios=None), f'{CONV}: ratios are not 2 lists of 2'),
        (broken_layer(inputs=[32, 16]), f'{CONV}: inputs are no ascending numbers of channels'),
        (broken_layer(inputs=[16, 16]), f'{CONV}: inputs are no ascending'),
        (broken_layer(outputs=[0, 16]), f'{CONV}: outputs are no ascending'),
        (broken_layer(outputs=[]), f'{CONV}: outputs are no ascending'),
        (broken_layer(outputs=None), f'{CONV}: outputs are no ascending'),
        (
            broken(layers=[{**DEPTHWISE, 'ratios': [1, 2]}]),
            'depthwise .*: ratios are not 3 lists of 1',
        ),
        (
            broken(layers=[{**DEPTHWISE, 'ratios': [1, 2, -1]}]),
            'depthwise .*, 32 channels: -1 is no',
        ),
    ],
)
def test_malformed_table(tmp_path, content, what):
    with pytest.raises(LatencyTableError, match=f'table.json: {what}') as caught:
        read(tmp_path, content)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('name', [name for name in table_json() if name != 'format'])
def test_field_of_the_head_is_missing(tmp_path, name):
    content = table_json(DEPTHWISE)
    del content[name]
    with pytest.raises(LatencyTableError, match=f'table.json: {name}: is missing; measure'):
        read(tmp_path, content)


def test_file_that_is_no_table(tmp_path):
    with pytest.raises(LatencyTableError, match=r'no\.json: cannot be read \(No such file'):
        LatencyTable.read(tmp_path / 'no.json')
    with pytest.raises(LatencyTableError, match=r'cannot be read \(Is a directory'):
        LatencyTable.read(tmp_path)
    for data in (b'{"format"', b'\xff\xfe', b'[' * 100_000):
        (tmp_path / 'table.json').write_bytes(data)
        with pytest.raises(LatencyTableError, match=r'table\.json: is no JSON .*; copy it again'):
            LatencyTable.read(tmp_path / 'table.json')
