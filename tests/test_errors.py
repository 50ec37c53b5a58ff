# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import pickle

import pytest

from mmdet_adasap import errors

ALL = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, errors.AdaSAPError)
]
MORE = {errors.UnreadableImagesError: ({'models': {}},), errors.EquivalenceError: ('backbone',)}
"""Arguments behind the message."""


@pytest.mark.parametrize('kind', ALL)
def test_errors_reach_another_process_whole(kind):
    error = kind('what went wrong', *MORE.get(kind, ()))
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (kind, 'what went wrong', vars(error))


def test_names_end_in_error():
    assert all(kind.__name__.endswith('Error') for kind in ALL)


def test_one_line():
    assert errors.one_line(ValueError('first\nsecond')) == 'ValueError: first'
    assert errors.one_line(KeyError()) == 'KeyError'


@pytest.mark.parametrize(
    ('error', 'text'),
    [
        (errors.StructureError('a\n  b'), 'a b'),
        (OSError('no room'), 'no room'),
        (KeyError('x'), 'KeyError: x'),
        (TypeError('x'), 'TypeError: x'),
        (ValueError(), 'ValueError: '),
    ],
)
def test_message_for_user(error, text):
    assert errors.message_for_user(error) == text
