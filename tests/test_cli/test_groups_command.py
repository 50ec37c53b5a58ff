# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import functools
import io
import json
import re
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from _utils.latency_formula import REFERENCE_NS, formula_table, table_content
from mmdet_adasap.apis import build_dense, build_forward
from mmdet_adasap.cli.groups_command import prediction
from mmdet_adasap.pruning import LatencyCost, find_channels, timed_networks

pytest.importorskip('mmdet')
ROOT = Path(__file__).parents[2]
DEMO = 'configs/demo/dense_yolox_tiny-voc.py'


@pytest.fixture
def list_groups(run_tool):
    return functools.partial(run_tool, 'list_groups.py')


def test_groups_and_the_slim_model(list_groups, tmp_path):
    code, out, err = list_groups(
        DEMO, '--target', 'params=0.5', '--json', str(tmp_path / 'groups.json')
    )
    assert not code, err
    found = json.loads((tmp_path / 'groups.json').read_text())
    assert found['params'] == 2_243_405
    assert 0.49 < found['slim']['params'] / found['params'] <= 0.5
    assert len(found['slim']['channels']) == len(found['groups']) > 40
    for group, slim in zip(found['groups'], found['slim']['channels'], strict=True):
        assert group['made_by']
        assert group['params_per_channel'] > 0
        assert 0 < slim <= group['channels']
        assert slim % 8 == 0 or slim == group['channels']
    protected = {name for names in found['left_whole'].values() for name in names}
    assert 'bbox_head.multi_level_conv_cls.0.weight' in protected
    lines = out.splitlines()
    assert '2,243,405 parameters' in out
    assert any(line.startswith('slim: ') and ' parameters (0.' in line for line in lines)
    # What the target does not limit is told of these weights alone.
    (flops,) = [line for line in lines if line.startswith('slim: ') and 'GFLOPs' in line]
    assert flops.endswith('of the dense model; for magnitude, random weights and one step alone)')
    assert lines[-2] == (
        'a training removes in steps from weights that change: its params come out as here, its '
        'FLOPs and the channels of a group do not'
    )


@pytest.mark.long
def test_fractions_refer_to_the_dense_model(list_groups, tmp_path):
    from mmdet_adasap.apis import build_dense, prune_model

    model = build_dense(DEMO)
    structure = prune_model(model, target=dict(params=0.6))
    slim = {'meta': {'mmdet_adasap': structure}, 'state_dict': model.state_dict()}
    torch.save(slim, tmp_path / 'slim.pth')
    code, out, err = list_groups(
        DEMO, '--target', 'params=0.5', '--checkpoint', str(tmp_path / 'slim.pth')
    )
    assert not code, err
    left = float(re.search(r'parameters \((0\.\d+) of the dense model\)', out).group(1))
    assert 0.49 < left <= 0.5
    has = re.search(r'the checkpoint has \S+ of 2,243,405 parameters \((0\.\d+)\)', out).group(1)
    assert 0.58 < float(has) <= 0.6


@pytest.mark.parametrize(
    ('arguments', 'last'),
    [
        (['no_such.py'], 'list_groups: no_such.py: '),
        (
            [DEMO, '--target', 'params=x'],
            "--target: 'params=x': write params=0.4, flops=0.5 or latency=12ms",
        ),
        ([DEMO, '--target', 'size=0.5'], 'must be a dict with one or more of the keys'),
        ([DEMO, '--target', 'params=0.0001'], 'cannot be reached'),
        (
            [DEMO, '--target', 'params=0.5', '--importance', 'age'],
            "importance='age' is unknown; use one of ['magnitude']",
        ),
        ([DEMO, '--checkpoint', 'no_such.pth'], 'no_such.pth'),
        ([DEMO, '--checkpoint', 'README.md'], 'README.md is damaged or holds more than data'),
        ([DEMO, '--round-to', '0'], "argument --round-to: '0' must be an integer of at least 1"),
        ([DEMO, '--image-size', 'x'], "argument --image-size: 'x' must be an integer"),
        ([DEMO, '--json', 'no/such/folder.json'], 'there is no folder no/such'),
        ([DEMO, '--plot', 'no/such/plot.svg'], 'there is no folder no/such'),
        (
            [DEMO, '--target', 'params=0.5', '--plot', 'plot.gif'],
            '--plot plot.gif: no picture ends so; write one of .svg, .png, .pdf',
        ),
        (
            [DEMO, '--plot', 'plot.svg'],
            '--plot plot.svg: is of a target; add --target latency=0.6',
        ),
        ([DEMO, '--target', 'latency=0.6'], '--target: latency needs --table FILE, the times of'),
        ([DEMO, '--table', 'a.json'], '--table a.json: is for a target of latency; add latency=1'),
        ([DEMO, '--target', 'params=0.5', '--table', 'a.json'], 'add latency=1 to --target'),
        (
            [DEMO, '--target', 'latency=0.6', '--table', 'no_such.json'],
            'target.table: no_such.json: cannot be read',
        ),
        (
            [DEMO, '--target', 'latency=0.6', '--table', 'README.md'],
            'target.table: README.md: is no JSON',
        ),
        (['mmpretrain::nope.py'], 'is not a config that can be read: give a file, or PACKAGE::'),
        (['README.md'], 'is not a config that can be read: give a file, or PACKAGE::'),
    ],
)
def test_errors_are_one_line(list_groups, arguments, last):
    code, _, err = list_groups(*arguments)
    message = code if isinstance(code, str) else err.splitlines()[-1]
    assert last in message
    assert '\n' not in message


def test_flops_are_for_the_image_of_the_test_pipeline(list_groups, tmp_path):
    """As the export counts them: an oblong image, padded as the model's preprocessor does."""
    config = tmp_path / 'oblong.py'
    config.write_text(
        f'_base_ = {str(ROOT / DEMO)!r}\n'
        'test_dataloader = dict(dataset=dict(pipeline=[\n'
        "    dict(type='LoadImageFromFile'),\n"
        "    dict(type='Resize', scale=(150, 96), keep_ratio=True),\n"
        "    dict(type='PackDetInputs', meta_keys=('img_id', 'img_shape', 'scale_factor'))]))\n"
    )
    code, out, err = list_groups(config, '--json', tmp_path / 'groups.json')
    assert not code, err
    assert 'GFLOPs (MACs) for 96x160 pixels (height x width, as the test pipeline makes' in out
    found = json.loads((tmp_path / 'groups.json').read_text())
    assert found['image_size'] == [96, 160]
    # The dense demo has 137,593,856 for 128 x 128, by mmengine's count, too.
    assert found['flops'] == 137_593_856 * (96 * 160) // (128 * 128)
    code, out, _ = list_groups(config, '--image-size', '128')
    assert '0.138 GFLOPs (MACs) for 128x128 pixels (--image-size)' in out


class ClosedPipe(io.StringIO):
    """Stands for stdout behind which ``head`` has ended."""

    def write(self, text: str) -> int:
        raise BrokenPipeError

    def fileno(self) -> int:
        return self.descriptor


def test_reader_that_has_gone_costs_no_work(list_groups, tmp_path, monkeypatch):
    with (tmp_path / 'stream').open('w') as file:
        for name in ('stdout', 'stderr'):
            stream = ClosedPipe()
            stream.descriptor = file.fileno()
            monkeypatch.setattr(sys, name, stream)
        code, *_ = list_groups(DEMO, '--json', tmp_path / 'groups.json')
    assert code == 141
    assert json.loads((tmp_path / 'groups.json').read_text())['params'] == 2_243_405


@pytest.mark.long
def test_norms_in_groups_hold_channels_together(list_groups, tmp_path):
    """The 256 channels of the heads of FCOS go by 8, with GroupNorm(32, 256)."""
    code, out, err = list_groups(
        'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
        *('--target', 'params=0.4', '--round-to', '64', '--image-size', '256'),
        *('--json', str(tmp_path / 'groups.json')),
    )
    assert not code, err
    found = json.loads((tmp_path / 'groups.json').read_text())
    heads = [
        (group['channels'], group['go_by'], slim)
        for group, slim in zip(found['groups'], found['slim']['channels'], strict=True)
        if group['name'].startswith('bbox_head.cls_convs')
    ]
    assert heads
    for channels, by, slim in heads:
        assert (channels, by) == (256, 8)
        assert slim % 64 == 0
    assert any(slim < 256 for *_, slim in heads)
    assert '256 by 8' in out


@pytest.mark.long
def test_a_detector_that_takes_no_small_image(list_groups, monkeypatch):
    """And one that leaves memory as it is, in which there may be anything."""
    from mmdet.models.necks.ssd_neck import L2Norm

    monkeypatch.setattr(L2Norm, '__init__', _with_any_memory(L2Norm.__init__))
    code, out, err = list_groups('configs/ssd300/ssd300_voc0712.py', '--target', 'params=0.4')
    assert not code, err
    assert 'GFLOPs (MACs) for 300x300 pixels (height x width, as the test pipeline' in out


def _with_any_memory(init):
    def patched(module, *args, **kwargs) -> None:
        init(module, *args, **kwargs)
        # The last two are finite, and their sum is not.
        module.weight.data[:3] = torch.tensor([float('nan'), 3e38, 3e38])

    return patched


def test_settings_of_the_hook_are_used_or_named(list_groups, tmp_path):
    """Of the demo's config: channels in fours, of which all may go but four, and a criterion.

    With the default of max_pruning_ratio 0.016 of the parameters would have to stay.
    """
    code, out, err = list_groups(
        'configs/demo/adasap_yolox_tiny-voc.py',
        *('--target', 'params=0.01', '--json', str(tmp_path / 'groups.json')),
    )
    assert not code, err
    assert 'the hook of the config chooses by TaylorImportance, and this is magnitude' in out
    found = json.loads((tmp_path / 'groups.json').read_text())
    sizes = found['slim']['channels']
    assert any(size % 8 for size in sizes)
    assert all(
        size % 4 == 0 or size == group['channels']
        for size, group in zip(sizes, found['groups'], strict=True)
    )


def test_hook_that_names_no_criterion_has_the_default():
    slim = {'params': 1, 'flops': 1, 'importance': 'magnitude', 'checkpoint': None}
    found = {'slim': slim, 'dense': {'params': 2, 'flops': 2}}
    lines = prediction(found, {'params': 0.5}, {'type': 'AdaSAPHook'})
    assert any('the hook of the config chooses by TaylorImportance' in line for line in lines)
    assert not any('the hook' in line for line in prediction(found, {'params': 0.5}, {}))


class TestClassifier:
    CONFIG = 'configs/demo/dense_resnet18_tiny-imagenet.py'

    @pytest.fixture(autouse=True)
    def mmpretrain(self):
        pytest.importorskip('mmpretrain')

    @pytest.fixture
    def table(self, tmp_path, monkeypatch) -> Path:
        """For the demo's classifier; what lies between its layers takes two milliseconds."""
        monkeypatch.chdir(ROOT)
        model = build_dense(self.CONFIG)
        channels = find_channels(model, build_forward(model, image_size=32))
        layers = formula_table(channels, step=16)
        cost = LatencyCost(channels, layers)
        networks = [cost(n) / REFERENCE_NS + 2 for n in timed_networks(channels).values()]
        content = table_content(channels, step=16, shape=(1, 3, 32, 32), networks=networks)
        (tmp_path / 'table.json').write_text(json.dumps(content))
        return tmp_path / 'table.json'

    @pytest.mark.parametrize('suffix', ['.svg', '.png'])
    def test_milliseconds_and_a_plot(self, list_groups, tmp_path, table, suffix):
        plot, file = tmp_path / f'plot{suffix}', tmp_path / 'groups.json'
        code, out, err = list_groups(
            *(self.CONFIG, '--target', 'latency=0.7', '--table', table),
            *('--plot', plot, '--json', file),
        )
        assert not code, err
        latency = json.loads(file.read_text())['slim']['latency']
        assert 0 < latency['floor_ms'] < latency['slim_ms'] <= 0.7 * latency['dense_ms']
        assert len(latency['layers_ms']) == 22
        before, after = (sum(pair) for pair in zip(*latency['layers_ms'].values(), strict=True))
        assert latency['dense_ms'] - before == pytest.approx(2, abs=1e-3)
        assert latency['slim_ms'] - after == pytest.approx(2, abs=1e-3)
        assert json.loads(file.read_text())['slim']['importance'] == 'UniformWidth'
        assert f'slim: {latency["slim_ms"]:.3g} ms of {latency["dense_ms"]:.3g} (0.' in out
        (rest,) = [line for line in out.splitlines() if line.startswith('the rest ')]
        assert rest.split()[-2:] == ['2.000', '2.000']
        assert 'its latency comes out as here, its parameters, FLOPs and the channels' in out
        if suffix == '.svg':
            assert '<svg' in plot.read_text()
        else:
            with Image.open(plot) as picture:
                assert len(picture.convert('RGB').getcolors(1 << 20)) > 10

    def test_a_table_of_layers_alone(self, list_groups, table):
        content = json.loads(table.read_text())
        table.write_text(json.dumps(content | {'networks': {}}))
        code, out, _ = list_groups(self.CONFIG, '--target', 'latency=0.7', '--table', table)
        assert not code
        assert 'the table has not timed this network as a whole' in out
        assert 'the rest ' not in out

    def test_a_latency_below_the_floor(self, list_groups, table):
        code, *_ = list_groups(self.CONFIG, '--target', 'latency=0.01', '--table', table)
        assert 'target=dict(latency=0.01, table=...) cannot be reached' in code
        assert 'cutting channels cannot go below' in code
        assert '\n' not in code

    def test_a_table_of_another_size(self, list_groups, table):
        code, *_ = list_groups(
            *(self.CONFIG, '--target', 'latency=0.7', '--table', table, '--image-size', '64')
        )
        assert 'the table has not timed conv 3x3 stride 1 on 64x64, batch 1' in code
        assert '\n' not in code

    def test_layers_that_are_alike_share_a_line(self, list_groups, tmp_path):
        """FLOPs are those of the crop of the test pipeline; in JSON each layer is named."""
        config = tmp_path / 'config.py'
        config.write_text(
            "default_scope = 'mmpretrain'\n"
            'arch = dict(embed_dims=32, num_layers=3, num_heads=2, feedforward_channels=64)\n'
            'model = dict(type="ImageClassifier",\n'
            '    backbone=dict(type="VisionTransformer", arch=arch, img_size=48, patch_size=16),\n'
            '    head=dict(type="VisionTransformerClsHead", num_classes=5, in_channels=32))\n'
            'crop = [dict(type="Resize", scale=64), dict(type="CenterCrop", crop_size=48)]\n'
            'test_dataloader = dict(dataset=dict(pipeline=crop))\n'
        )
        code, out, err = list_groups(config, '--json', tmp_path / 'groups.json')
        assert not code, err
        assert 'for 48x48 pixels' in out
        (line,) = [line for line in out.splitlines() if '.ln1 ' in line]
        assert line.endswith(': a LayerNorm in backbone.layers.*.ln1 (3 of them)')
        left_whole = json.loads((tmp_path / 'groups.json').read_text())['left_whole']
        assert {f'a LayerNorm in backbone.layers.{i}.ln1' for i in range(3)} <= left_whole.keys()
