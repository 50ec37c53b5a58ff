# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Tables in Markdown that also read well on a terminal."""

from collections.abc import Sequence


def markdown_table(lines: Sequence[Sequence[str]]) -> str:
    """Lay out cells, the first column to the left and the others to the right.

    Args:
        lines (Sequence[Sequence[str]]): The cells, line by line; the first line is the header.
    """
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = [
        '| '
        + ' | '.join(
            [
                line[0].ljust(widths[0]),
                *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True)),
            ]
        )
        + ' |'
        for line in lines
    ]
    rule = (
        '|' + '|'.join(['-' * (widths[0] + 2), *('-' * (w + 1) + ':' for w in widths[1:])]) + '|'
    )
    return '\n'.join([text[0], rule, *text[1:]])
