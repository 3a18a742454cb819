"""What became of one input, in the terms that a person would use who gave it."""

from __future__ import annotations

import enum
import re
import resource
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

SECONDS = 20.0  # of a machine that does something else beside: undamaged inputs take milliseconds
MEMORY_BYTES = 2 * 2**30  # beyond what the process has already: a small input has no right to more

# What Python says of a mistake in a program. Told to a person it means nothing, with the file's name or without.
_OF_A_PROGRAM = re.compile(
    r"NoneType|object is not|object has no attribute|unexpected keyword|required positional|not subscriptable|"
    r"not iterable|unhashable|invalid literal for|could not convert|unsupported operand|indices must be|"
    r"index out of range|<class '|not supported between|can only concatenate|to unpack|must be str, not|"
    r"argument must be|KeyError|TypeError"
)


class Outcome(enum.StrEnum):
    RIGHT = "right"  # accepted, and it is what it was or may be
    CLEAR = "clear refusal"  # words that name the file
    UNCLEAR = "unclear"  # words that do not, or those of a program
    TRACEBACK = "traceback"
    HANG = "hang"
    WRONG = "wrong"  # accepted, though a checksum or another reader says otherwise


@dataclass(frozen=True)
class Input:
    """One damaged input: what reads it, the names of which a refusal must say one, and whether what is read is right.

    ``read`` gets what the product's own commands would read by. ``is_right`` is asked where it accepts.
    """

    read: Callable[[], Any]
    names: Sequence[str]
    is_right: Callable[[Any], bool] = lambda read: True


def outcome_of(given: Input) -> tuple[Outcome, str]:
    """The outcome, and what was said."""
    try:
        with _limits():
            read = given.read()
            right = given.is_right(read)
    except _TooLong:
        return Outcome.HANG, traceback.format_exc()
    except ValueError as error:  # the class that commands and the Snakefile print as words (headsr.cli.main)
        said = str(error)
        named = any(name in said for name in given.names)
        clear = named and not _OF_A_PROGRAM.search(said)
        return (Outcome.CLEAR if clear else Outcome.UNCLEAR), f"{type(error).__name__}: {said}"
    except Exception:
        return Outcome.TRACEBACK, traceback.format_exc()
    return (Outcome.RIGHT, "") if right else (Outcome.WRONG, repr(read)[:300])


class _TooLong(BaseException):
    """Not an Exception: nothing that is read may catch it."""


def _stop(number: int, frame: Any) -> None:
    raise _TooLong


@contextmanager
def _limits() -> Iterator[None]:
    """SECONDS to read in, and MEMORY_BYTES more than now: beyond them Python raises MemoryError."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as stream:
        held = int(stream.read().split()[0]) * resource.getpagesize()
    handler = signal.signal(signal.SIGALRM, _stop)
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY_BYTES, before[1]))
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.signal(signal.SIGALRM, handler)
