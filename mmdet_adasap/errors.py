# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""All exceptions of the package, an exception as one line of text, and words of messages."""

import difflib
import re
from collections.abc import Iterable, Sequence


class AdaSAPError(Exception):
    """Base class of every exception that this package defines."""


def one_line(error: BaseException) -> str:
    """Return the kind of an error and the first line of what it says."""
    lines = str(error).strip().splitlines()
    return f'{type(error).__name__}: {lines[0]}' if lines else type(error).__name__


def message_for_user(error: BaseException) -> str:
    """Return an error as a command prints it: all of its text on one line.

    Its kind stands in front where its text is not meant for users, as that of a TypeError.
    """
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    text = ' '.join(str(text).split())
    meant_for_users = isinstance(error, AdaSAPError | OSError | ValueError | RuntimeError)
    return text if meant_for_users and text else f'{type(error).__name__}: {text}'


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a question for the user who has mistyped a name.

    Args:
        word (str): What was written.
        known (Iterable[str]): The names that there are.

    Returns:
        str: ``; did you mean 'interval'?``, with all names that begin as the word does or are in
        it; '' if nothing is like it.
    """
    plain = {_letters(name): name for name in known}
    typed = _letters(word)
    # 'warm_up' and 'Target' are meant to the letter; 'prune_epochs' and 'rho' in part.
    near = [plain[typed]] if typed in plain else []
    if not near and len(typed) >= MIN_PART:
        near = [
            name
            for form, name in plain.items()
            if len(form) >= MIN_PART and (form.startswith(typed) or typed.startswith(form))
        ]
    near = near or [plain[form] for form in difflib.get_close_matches(typed, plain, n=1)]
    return f'; did you mean {" or ".join(map(repr, near))}?' if near else ''


def _letters(name: str) -> str:
    """Return a name in small letters, without what separates its words."""
    return re.sub(r'[^a-z0-9]', '', str(name).lower())


MIN_PART = 3
"""Letters that a name needs to be looked for inside another; an own choice. With fewer, the
argument ``p`` would be the answer to every word with that first letter."""


class SettingError(AdaSAPError, ValueError, TypeError):
    """Raised when a config names a setting that there is not, or leaves out one that is needed.

    It is a TypeError, too, which Python raises for such arguments.
    """


class UnreadableCheckpointError(AdaSAPError, ValueError):
    """Raised when a file is not a checkpoint, or not a whole one."""


def unreadable(message: str, kind: type[Exception]) -> UnreadableCheckpointError:
    """Return an UnreadableCheckpointError that is an error of another kind as well.

    Code around mmengine's loading catches what that raises, and goes on to catch it.

    Args:
        message (str): The message.
        kind (type[Exception]): The other kind.
    """
    if issubclass(UnreadableCheckpointError, kind):
        return UnreadableCheckpointError(message)
    # Some kinds want more than a message, as UnicodeDecodeError does, and make their text of it.
    members = {
        '__module__': __name__,
        '__init__': lambda self, text: Exception.__init__(self, text),
        '__str__': Exception.__str__,
        '__reduce__': lambda self: (unreadable, (str(self), kind)),
    }
    both = type(UnreadableCheckpointError.__name__, (UnreadableCheckpointError, kind), members)
    return both(message)


class ExportMismatchError(AdaSAPError, RuntimeError):
    """Raised when an exported model does not give what the pruned one gives."""


class OnnxMismatchError(AdaSAPError, RuntimeError):
    """Raised when an ONNX file does not give what the model gives."""


class MissingPackageError(AdaSAPError, ImportError):
    """Raised when a package that only some uses need is not installed; says how to install it."""


class OtherProcessError(AdaSAPError, RuntimeError):
    """Raised in the processes that were all right when another one was not."""


class ProcessMismatchError(AdaSAPError, RuntimeError):
    """Raised when processes would train models of different shapes."""


class EquivalenceError(AdaSAPError, RuntimeError):
    """Raised when a slim model does not give what the masked one gives.

    Attributes:
        module (str): Name of the first module that differs, '' for the model itself.
    """

    def __init__(self, message: str, module: str = '') -> None:
        super().__init__(message)
        self.module = module


class NoGradientsError(AdaSAPError, RuntimeError):
    """Raised when a criterion is asked for scores before it has observed gradients."""


class DivergedError(AdaSAPError, ArithmeticError):
    """Raised when weights are not finite, so that no channel can be told from another."""


class UnreachableTargetError(AdaSAPError, ValueError):
    """Raised when a budget is below what protected and rounded channels leave.

    Attributes:
        remaining (float | None): What they leave, in the unit of the budget, where it is known.
        resource (str): Name of what they leave too much of, '' where it has none.
    """

    def __init__(self, message: str, remaining: float | None = None, resource: str = '') -> None:
        super().__init__(message)
        self.remaining = remaining
        self.resource = resource


class LatencyTableError(AdaSAPError, ValueError):
    """Raised when a table of latencies cannot be used, or lacks a layer; says which."""


class LatencyTimingError(AdaSAPError, RuntimeError):
    """Raised when a backend cannot time a network that was cut."""


class NeedsValuesError(AdaSAPError, RuntimeError):
    """Raised where what a model does next depends on numbers that were not computed."""


class OptimizerStateError(AdaSAPError, RuntimeError):
    """Raised when an optimizer keeps a state that cannot be cut with its parameter."""


class StructureError(AdaSAPError, ValueError):
    """Raised when a structure is malformed or does not fit a model."""


class ModelFailedError(AdaSAPError, RuntimeError):
    """Raised when a model has raised an error on some images."""


class LoadingFailedError(AdaSAPError, RuntimeError):
    """Raised when images cannot be loaded for another reason than that a file is no image."""


class ProtocolMismatchError(AdaSAPError, ValueError):
    """Raised when a folder holds results of another protocol."""


class MalformedResultsError(AdaSAPError, ValueError):
    """Raised when a file of results cannot be used; says which file and which key."""


class UnreadableImagesError(AdaSAPError, ValueError):
    """Raised at the end of a run that had to leave images out.

    Attributes:
        results (dict): What results.json says.
    """

    def __init__(self, message: str, results: dict) -> None:
        super().__init__(message)
        self.results = results

    def __reduce__(self) -> tuple:
        return type(self), (*self.args, self.results)  # else copies are made of the message alone


def listed(names: Sequence[str], at_most: int = 10) -> str:
    """Return the first names of a list, and how many more there are."""
    more = len(names) - at_most
    return ', '.join(names[:at_most]) + (f' and {more} more' if more > 0 else '')
