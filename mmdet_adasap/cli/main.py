# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""``adasap COMMAND``, or ``python -m mmdet_adasap COMMAND``."""

import sys
from importlib import import_module

COMMANDS = {
    'robustness': ('robustness_command', 'test models clean and under corruptions: mPC, rPC, mCE'),
    'export': ('export_command', 'write a pruned model that needs nothing of this package'),
    'groups': ('groups_command', 'list the channels of a model that can be removed'),
    'corrupt': ('corrupt_command', 'write corrupted copies of a VOC set to disk'),
    'env': ('..env', 'say which packages are installed, and what is wrong with them'),
}
"""Name to the module whose ``main()`` it is, and what it does. One that is not asked for is not
imported, since it may load torch and mmdet."""


def help_text() -> str:
    """Return what ``adasap --help`` prints."""
    width = max(map(len, COMMANDS))
    lines = [f'  {name.ljust(width)}  {what}' for name, (_, what) in COMMANDS.items()]
    return '\n'.join(
        [
            'usage: adasap COMMAND ...',
            '',
            'commands:',
            *lines,
            '',
            'adasap COMMAND --help shows the options of one, and examples.',
        ]
    )


def main() -> int | None:
    """Run the command that the first argument names, with the arguments after it.

    Returns:
        int, optional: The exit status, if the command gives one.
    """
    name = sys.argv[1] if len(sys.argv) > 1 else '--help'
    if name in ('-h', '--help'):
        print(help_text())
        return 0 if len(sys.argv) > 1 else 2
    if name not in COMMANDS:
        sys.exit(f'adasap: {name!r} is not one of the commands {", ".join(COMMANDS)}')
    # argparse takes the name of the program from there.
    sys.argv = [f'adasap {name}', *sys.argv[2:]]
    module = COMMANDS[name][0]
    return import_module(f'.{module}' if module[0] != '.' else module, __package__).main()
