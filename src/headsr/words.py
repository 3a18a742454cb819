"""The words of others (datasets, servers, tools) as messages may quote them. Standard library only."""

from __future__ import annotations

import logging
import re
import unicodedata

_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # what moves a cursor, turns text around or is no character at all
_USER = re.compile(r"(\bhttps?://)[^/\s?#]*@", re.IGNORECASE)  # a user may be a token, so both go
_PASSWORD = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^/\s?#:@]*):[^/\s?#]*@", re.IGNORECASE)  # of ssh://user:password@host
_TOKEN = re.compile(r"(\bhttps?://[^\s?#]*\?)[^\s#'\"|]+", re.IGNORECASE)


def shown(text: str, *, keep: str = "") -> str:
    """The text without passwords, with what a terminal would obey written as an escape (``\\x1b``).

    ``keep`` are the characters that stay as they are, such as ``"\\n"`` where the text has lines of its own.
    """
    escaped = (one if one in keep or unicodedata.category(one) not in _HIDDEN else _escape(one) for one in text)
    return without_password("".join(escaped))


def is_plain(text: str) -> bool:
    """Whether a terminal shows the text as it is."""
    return all(unicodedata.category(one) not in _HIDDEN for one in text)


class PlainFormatter(logging.Formatter):
    """Log lines as ``shown`` has them, whatever they quote."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text; its own lines stay lines."""
        return shown(super().format(record), keep="\n\t")


def without_password(text: str) -> str:
    """The text with its addresses as they may be published: no user, password or token of http, no password of ssh."""
    return _TOKEN.sub(r"\1...", _PASSWORD.sub(r"\1@", _USER.sub(r"\1", text)))


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode()
