"""What becomes of a damaged input, by a few words that are counted; and a table of the counts."""

import contextlib
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

# From the best to the worst. "right" is what an undamaged input gives, or what the damage makes right.
OUTCOMES = ("right", "clear refusal", "unclear", "traceback", "hang", "wrong")
HARMLESS = ("right", "clear refusal")
_WAY_OUT = re.compile(
    r"\b(again|correct|check|choose|delete|enable|give|install|make|move|name|remove|repair|tell)\b", re.I
)


def cases(share: int) -> Iterator[int]:
    """The numbers of the cases to try: as many as ``share``, or what the environment asks for.

    HEADSR_FUZZ_CASES says how many, HEADSR_FUZZ_FIRST from which number on, HEADSR_FUZZ_MINUTES for how long at most.
    """
    first, count = int(os.environ.get("HEADSR_FUZZ_FIRST", "0")), int(os.environ.get("HEADSR_FUZZ_CASES", share))
    until = time.monotonic() + 60 * float(os.environ.get("HEADSR_FUZZ_MINUTES", "inf"))
    for number in range(first, first + count):
        if time.monotonic() > until:
            return
        yield number


class HangError(BaseException):
    """Nothing came within the time that a person would wait; no handler of errors catches it."""


@contextlib.contextmanager
def patience(seconds: float) -> Iterator[None]:
    """HangError in the block after so many seconds."""

    def over(*_: object) -> None:
        raise HangError

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def outcome_of(
    action: Callable[[], Any], *, is_right: Callable[[Any], bool], named: str, seconds: float = 60
) -> tuple[str, str]:
    """What an action comes to, and what was said: a refusal is clear that has the word ``named`` and a way out.

    A command prints a ValueError (headsr.cli); any other error would be a traceback.
    """
    try:
        with patience(seconds):
            answer = action()
    except HangError:
        return "hang", f"no end after {seconds:g} s"
    except ValueError as error:
        if type(error).__module__.startswith("headsr.") or type(error) is ValueError:
            said = str(error)
            clear = named in said and _WAY_OUT.search(said) and not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", said)
            return "clear refusal" if clear else "unclear", said
        return "traceback", repr(error)
    except Exception as error:
        return "traceback", repr(error)
    return ("right", "") if is_right(answer) else ("wrong", "accepted")


def worst(outcomes: list[tuple[str, str]]) -> tuple[str, str]:
    return max(outcomes, key=lambda one: OUTCOMES.index(one[0]))


def table(counts: dict[str, Counter[str]]) -> str:
    """Markdown: a row for each kind of damage, a column for each outcome, and the sums."""
    total = sum(counts.values(), Counter())
    rows = [(kind, counts[kind]) for kind in sorted(counts)] + [("all", total)]
    lines = [f"| Damage | Cases | {' | '.join(OUTCOMES)} |", "|---|" + "---|" * (1 + len(OUTCOMES))]
    for kind, row in rows:
        lines.append(f"| {kind} | {row.total()} | {' | '.join(str(row[outcome]) for outcome in OUTCOMES)} |")
    return "\n".join(lines)
