"""Errors that are the user's to mend, and how others are told in a line."""

import sys
from shlex import quote


class UsageError(Exception):
    """Says in one line what is wrong with the input and how to mend it; the command line exits with status 2."""


class Damaged(UsageError):
    """A file does not hold what was written into it."""


def one_line(error: BaseException) -> str:
    """What `error` says, or its name where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def install(extra: str) -> str:
    """The command that brings one of the package's extras to this Python."""
    return f"{quote(sys.executable)} -m pip install 'asyncq[{extra}]'"
