# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Find settings of our hooks that ``--cfg-options`` put where nobody reads them.

A config is a program whose variables stay in what is read of it. ``configs/_base_/adasap.py`` has
one that is called ``adasap``, and ``--cfg-options adasap.interval=8`` changes that, long after it
has been copied into ``default_hooks``. mmengine says nothing of it.
"""

from __future__ import annotations

import contextlib
import inspect
import io
from collections.abc import Iterator, Mapping
from dataclasses import fields

from mmengine.config import Config
from mmengine.runner import Runner

from ..integration import type_name
from .settings import AdaSAPSettings

SETTINGS = frozenset(field.name for field in fields(AdaSAPSettings) if field.init)
TELLING = frozenset(('prune', 'round_to', 'importance', 'perturbation', 'finetune'))
"""Those of them that no hook of mmengine or mmdet has: a dict with one of them is meant for ours.
``checkpoint.interval`` is not."""
READ = frozenset(inspect.signature(Runner.__init__).parameters)
"""Keys of a config that mmengine's Runner reads."""


def check_unread_options(
    config: Config, hook: str, word: str = 'adasap', settings: frozenset[str] = SETTINGS
) -> None:
    """Raise ValueError if a setting of a hook was given outside of the hook's own dict.

    It compares what the run was given with the config's file: where a variable of the file
    differs, an option has changed it. Without a file there were no options.

    Args:
        config (Config): That of the run.
        hook (str): Type of the hook whose settings they are.
        word (str): Keys with this word are meant for the hook. Defaults to 'adasap'.
        settings (frozenset[str]): Keys that are meant for it, too. Defaults to those of
            AdaSAPHook.

    Raises:
        ValueError: Naming the option, and the one that works.
    """
    suspects = {
        key: value for key, value in config.items() if _is_suspect(key, value, word, settings)
    }
    file = _read_again(config.filename) if suspects and config.filename else None
    if file is None:
        return
    hooks = config.get('default_hooks') or {}
    names = [name for name, value in hooks.items() if _is_hook(value, hook)]
    place = f'default_hooks.{names[0] if names else word}'
    for key, value in suspects.items():
        before = dict(_leaves(file[key], key)) if key in file else {}
        for path, leaf in _leaves(value, key):
            if path not in before or before[path] != leaf:
                raise ValueError(
                    f'{path}={leaf!r} of --cfg-options is read by nobody; for {hook} write '
                    f'--cfg-options {place}.{_setting_of(path, word, settings)}={leaf}'
                )


def _is_suspect(key: str, value: object, word: str, settings: frozenset[str]) -> bool:
    """Return whether a key that mmengine does not read looks like settings of the hook."""
    if key in READ:
        return False
    if key in settings:
        return True
    # A text or number of such a name is the user's own, and may be another each time, as a date.
    if not isinstance(value, Mapping):
        return False
    if word in key.lower():
        return True
    inner = {str(name) for name in value} - {'type'}
    # As `hooks.adasap.interval`, and `control` of configs/_base_.
    return any(word in name.lower() for name in inner) or (
        inner <= settings and bool(inner & TELLING)
    )


def _is_hook(value: object, hook: str) -> bool:
    return isinstance(value, Mapping) and type_name(value) == hook


def _leaves(value: object, path: str) -> Iterator[tuple[str, object]]:
    """Yield what is in nested dicts, with its path."""
    if not isinstance(value, Mapping):
        yield path, value
        return
    for key, inner in value.items():
        yield from _leaves(inner, f'{path}.{key}')


def _setting_of(path: str, word: str, settings: frozenset[str]) -> str:
    """Return the part of a path that begins with a setting of the hook."""
    parts = path.split('.')
    named = [i + 1 for i, part in enumerate(parts[:-1]) if word in part.lower()]
    known = [i for i, part in enumerate(parts) if part in settings]
    return '.'.join(parts[(named or known or [len(parts) - 1])[0] :])


def _read_again(filename: str) -> Config | None:
    """Read the config's file as it is without options; None if that cannot be done any more."""
    # What it imports and prints it has imported and printed before.
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            return Config.fromfile(filename, import_custom_modules=False)
        except Exception:  # it is a program, and may have been moved or changed since
            return None
