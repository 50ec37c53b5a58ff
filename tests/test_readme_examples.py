# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What the README and the pages of configs/ name, link to and write, as a reader would use it."""

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import nn

from mmdet_adasap.apis import prune_model
from mmdet_adasap.cli.main import COMMANDS
from mmdet_adasap.distributions import package_folder
from mmdet_adasap.env import find_tool
from mmdet_adasap.pruning import trace_channels
from mmdet_adasap.pruning.rules import RULES
from mmdet_adasap.registry import IMPORTANCES

ROOT = Path(__file__).parents[1]
README = (ROOT / 'README.md').read_text()
SECTION = README.split('### New operations and criteria')[1].split('\n## ')[0]
RULE, CHANNELS, CRITERION = re.findall(r'```python\n(.*?)```', SECTION, flags=re.DOTALL)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.ops.mylib.swish2(self.norm(self.first(x))))


# The operators of a library go with it, so what the example made is held.
HELD: dict = {}


@pytest.fixture
def model(monkeypatch) -> nn.Module:
    if not HELD:
        exec(RULE, HELD)
    torch.manual_seed(0)
    return Net().eval()


IMAGE = torch.randn(1, 3, 4, 4)


def test_rule(model, monkeypatch):
    assert [g.size for g in trace_channels(model, lambda m: m(IMAGE)).groups] == [8]
    monkeypatch.delitem(RULES, 'mylib::swish2')
    channels = trace_channels(model, lambda m: m(IMAGE))
    assert not channels.groups
    assert 'mylib::swish2, which has no rule, in the model' in channels.frozen


def test_what_came_of_it(model, capsys):
    exec(CHANNELS, {'model': model, 'image': IMAGE})
    assert capsys.readouterr().out.startswith("[('first', 8)] {")


def test_criterion(model):
    scope: dict = {}
    exec(CRITERION, scope)
    try:
        with torch.no_grad():
            model.norm.weight.copy_(torch.tensor([9.0, 1, 8, 2, 7, 3, 6, 4]))
        structure = prune_model(
            model, inputs=IMAGE, target=dict(params=0.6), importance='normscale', round_to=4
        )
        assert structure['keep']['norm.weight'][0] == [0, 2, 4, 6]
        assert model.norm.weight.tolist() == [9, 8, 7, 6]
    finally:
        IMPORTANCES.module_dict.pop('NormScaleImportance')


PAGES = [ROOT / 'README.md', *sorted((ROOT / 'configs').rglob('*.md'))]
every_page = pytest.mark.parametrize('page', PAGES, ids=[str(p.relative_to(ROOT)) for p in PAGES])
TESTS = [p for p in (ROOT / 'tests').rglob('test_*.py') if p != Path(__file__)]
# Those of mmdet and mmpretrain, which the README also calls by these names.
NOT_OURS = {'tools/train.py', 'tools/test.py'}


def code_of(page: Path) -> list[str]:
    """The blocks and the spans of code, continued lines joined."""
    text = page.read_text()
    blocks = re.findall(r'^```\w*\n(.*?)^```', text, flags=re.DOTALL | re.MULTILINE)
    rest = re.sub(r'^```\w*\n.*?^```', '', text, flags=re.DOTALL | re.MULTILINE)
    spans = [re.sub(r'\s+', ' ', span) for span in re.findall(r'`([^`]+)`', rest)]
    return [block.replace('\\\n', ' ') for block in blocks] + spans


def commands_of(page: Path, program: str) -> list[list[str]]:
    """The arguments of each call of a program, up to the end of the command."""
    found = []
    for code in code_of(page):
        for line in code.splitlines():
            for call in re.findall(rf'(?:^|\s){program} ([^;&|)#]+)', line):
                found.append(shlex.split(call))
    return found


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives the headings."""
    headings = re.findall(r'^#+ (.+)$', page.read_text(), flags=re.MULTILINE)
    return {re.sub(r'[^\w -]', '', heading.lower()).replace(' ', '-') for heading in headings}


@every_page
def test_page_is_whole(page):
    """No placeholder is left, and every file and heading that it links to is there."""
    text = page.read_text()
    assert '<!--' not in text
    links = [link for link in re.findall(r'\]\(([^)]+)\)', text) if '://' not in link]
    assert links
    for link in links:
        file, _, anchor = link.partition('#')
        target = page.parent.joinpath(file) if file else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@every_page
def test_named_files_exist(page):
    text = page.read_text()
    named = set(re.findall(r'(?<![\w/.-])(?:tools|requirements|tests)/[\w/.-]+\w', text))
    # A comment on the first line of a block names the file that the reader is to write.
    kept = re.sub(r'^# configs/.*$', '', text, flags=re.MULTILINE)
    named |= set(re.findall(r'(?<![\w/.-])configs/[\w/.-]+\.py', kept))
    missing = [name for name in named - NOT_OURS if not (ROOT / name).exists()]
    assert not missing


@every_page
def test_named_configs_of_mmdet_and_mmpretrain_exist(page):
    for package, name in re.findall(r'(mmdet|mmpretrain)::([\w/.-]+\.py)', page.read_text()):
        pytest.importorskip(package)
        assert (package_folder(package) / '.mim/configs' / name).exists(), name


@every_page
def test_named_modules_exist(page):
    """As ``mmdet_adasap.apis.evaluate_robustness``: modules, and what is in them."""
    for name in set(re.findall(r'\bmmdet_adasap(?:\.[A-Za-z_]\w*)+', page.read_text())):
        resolve(name)


def resolve(name: str) -> object:
    module, _, attribute = name.rpartition('.')
    try:
        return import_module(name)
    except ModuleNotFoundError:
        return getattr(import_module(module), attribute)


@every_page
def test_imports_in_the_code_work(page):
    for code in re.findall(r'```python\n(.*?)```', page.read_text(), flags=re.DOTALL):
        # mmengine's own way to write a value of the base config is no Python.
        for node in ast.walk(ast.parse(re.sub(r'\{\{.*?\}\}', 'None', code))):
            if isinstance(node, ast.ImportFrom) and node.module.startswith('mmdet_adasap'):
                for alias in node.names:
                    resolve(f'{node.module}.{alias.name}')


@every_page
def test_make_targets_exist(page):
    targets = re.findall(r'^([a-z-]+):', (ROOT / 'Makefile').read_text(), flags=re.MULTILINE)
    for target, *arguments in commands_of(page, 'make'):
        assert target in targets
        for argument in arguments:
            name, _, value = argument.partition('=')
            assert re.search(rf'^{name} \?=', (ROOT / 'Makefile').read_text(), re.MULTILINE)
            if '-k ' in value:
                word = value.rpartition('-k ')[2]
                assert any(word in test.read_text() for test in TESTS)


@cache
def help_of(tool: str) -> str:
    """What ``--help`` prints; a program that cannot start has none."""
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    done = subprocess.run(
        [sys.executable, tool, '--help'], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@every_page
def test_programs_have_the_options(page):
    for tool, *arguments in commands_of(page, 'python'):
        if tool.startswith('tools/'):
            text = help_of(tool)
            for option in (a.partition('=')[0] for a in arguments if a.startswith('--')):
                # dist_cpu.py hands over what follows the number of processes.
                assert tool == 'tools/dist_cpu.py' or option in text, (tool, option)


@every_page
def test_commands_of_the_package_exist(page):
    for name, *_ in commands_of(page, 'adasap'):
        assert name in COMMANDS


@every_page
def test_tools_of_mmdet_and_mmpretrain_are_found(page):
    for name in set(re.findall(r'mmdet_adasap\.env --tool ([\w:]+)', page.read_text())):
        pytest.importorskip(name.partition('::')[0] if '::' in name else 'mmdet')
        assert Path(find_tool(name)).is_file()


def test_custom_imports_alone_load_what_the_config_needs(tmp_path):
    """The config of the README, in a process that imports nothing else of the package."""
    pytest.importorskip('mmdet')
    (code,) = re.findall(r"```python\n(_base_ = 'mmdet::.*?)```", README, flags=re.DOTALL)
    (tmp_path / 'config.py').write_text(code)
    program = (
        'import json, sys\n'
        'from mmengine.config import Config\n'
        'cfg = Config.fromfile(sys.argv[1])\n'
        'from mmengine.registry import HOOKS, OPTIM_WRAPPERS\n'
        'hooks = [HOOKS.build(cfg.default_hooks[key]) for key in ("checkpoint", "adasap")]\n'
        'print(json.dumps([cfg.custom_imports, *(type(hook).__name__ for hook in hooks),\n'
        '    OPTIM_WRAPPERS.get(cfg.optim_wrapper.type).__name__]))\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', program, tmp_path / 'config.py'],
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [
        dict(imports=['mmdet_adasap']),
        'AtomicCheckpointHook',
        'AdaSAPHook',
        'AdaSAPOptimWrapper',
    ]
