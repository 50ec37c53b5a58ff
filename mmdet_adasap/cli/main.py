# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The command line ``adasap COMMAND``, also started as ``python -m mmdet_adasap COMMAND``."""

import sys
from importlib import import_module
from pathlib import Path

from ..fileio import quiet_on_closed_pipe

COMMANDS = {
    'robustness': ('robustness_command', 'test models clean and under corruptions: mPC, rPC, mCE'),
    'export': ('export_command', 'write a pruned model that needs nothing of this package'),
    'groups': ('groups_command', 'list the channels of a model that can be removed'),
    'layers': ('layers_command', 'list what a device has to time, to prune for a latency there'),
    'latency': ('latency_command', 'time the layers of a model on this machine, for the same'),
    'corrupt': ('corrupt_command', 'write corrupted copies of a VOC set to disk'),
    'env': ('..env', 'say which packages are installed, and what is wrong with them'),
}
"""Name of a command to the module with its ``main()``, and what it does. The module is imported
when its command is called, since some load torch and mmdet, which takes seconds."""


def program_name() -> str:
    """Return what the user typed in front of the command's name."""
    started_as_module = Path(sys.argv[0]).name == '__main__.py'
    return 'python -m mmdet_adasap' if started_as_module else 'adasap'


def help_text(program: str) -> str:
    """Return what ``adasap --help`` prints."""
    longest = max(map(len, COMMANDS))
    lines = [f'  {name.ljust(longest)}  {summary}' for name, (_, summary) in COMMANDS.items()]
    return '\n'.join(
        [
            f'usage: {program} COMMAND ...',
            '',
            'commands:',
            *lines,
            '',
            f'{program} COMMAND --help shows the options of one, and examples.',
        ]
    )


@quiet_on_closed_pipe
def main() -> int | None:
    """Run the command that the first argument names, with the arguments after it.

    Returns:
        int, optional: The exit status, if the command returns one.
    """
    program = program_name()
    name = sys.argv[1] if len(sys.argv) > 1 else '--help'
    if name in ('-h', '--help'):
        print(help_text(program))
        return 0 if len(sys.argv) > 1 else 2  # 2, as argparse exits without a required argument
    if name not in COMMANDS:
        sys.exit(f'{program}: {name!r} is not one of the commands {", ".join(COMMANDS)}')
    # argparse takes the program's name for usage and errors from sys.argv[0].
    sys.argv = [f'{program} {name}', *sys.argv[2:]]
    module = COMMANDS[name][0]
    return import_module(f'.{module}' if module[0] != '.' else module, __package__).main()
