# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""HTML and SVG from Python: whatever is not markup already is escaped."""

import html
import unicodedata


class Markup(str):
    """Text that is HTML; made by :func:`element` and :func:`join` alone."""

    __slots__ = ()


EMPTY = ('br', 'hr', 'link', 'meta', 'wbr')


def plain(text: object) -> str:
    """Text as a reader may see it: without half characters, control characters and turned order.

    Names come from files; these could hide what they are, or not be written as UTF-8 at all.
    """
    shown = str(text)
    if shown.isprintable():
        return shown
    shown = shown.encode('utf-8', 'replace').decode()
    return ''.join(
        ' ' if c in '\t\r\n' else '\ufffd' if unicodedata.category(c) in ('Cc', 'Cf') else c
        for c in shown
    )


def escape(child: object) -> Markup:
    """HTML of a child: itself if it is markup, nothing for None, else escaped text."""
    if isinstance(child, Markup):
        return child
    return Markup('' if child is None else html.escape(plain(child), quote=True))


def join(*children: object, by: str = '') -> Markup:
    """Children one after the other."""
    return Markup(by.join(escape(child) for child in children if child is not None))


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """An element of HTML or SVG.

    Args:
        tag (str): Its name.
        *children: Markup, or what is escaped; None is left out.
        **attributes: Their values are escaped; None and False leave one out, True gives it no
            value. ``class_`` is class, and underscores are hyphens. Floats are written with up to
            two decimals.
    """
    parts = [tag]
    for name, value in attributes.items():
        name = name.rstrip('_').replace('_', '-')
        if value is True:
            parts.append(name)
        elif value is not None and value is not False:
            parts.append(f'{name}="{escape(_written(value))}"')
    opened = f'<{" ".join(parts)}>'
    return Markup(opened if tag in EMPTY else f'{opened}{join(*children)}</{tag}>')


def _written(value: object) -> object:
    if isinstance(value, float):
        return f'{value:.2f}'.rstrip('0').rstrip('.')
    return value
