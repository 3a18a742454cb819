"""What messages quote of others: no passwords, and nothing that a terminal would obey."""

import logging

import pytest

from headsr import cli
from headsr.words import PlainFormatter, is_plain, shown, without_password


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("a\u202eb\u200d\u2028\x9b", r"a\u202eb\u200d\u2028\x9b"),
        ("caf\udce9", r"caf\udce9"),
        ("größe 5 µm \\x", "größe 5 µm \\x"),
        ("a\nb", r"a\nb"),
    ],
)
def test_what_a_terminal_would_obey_is_written_as_an_escape(text: str, expected: str) -> None:
    assert shown(text) == expected
    assert is_plain(shown(text)) and is_plain(text) == (text == expected)
    assert shown("a\nb\x1b", keep="\n") == "a\nb\\x1b"


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("https://me:secret@host/x.git", "https://host/x.git"),
        ("http://secret@host:8080/x", "http://host:8080/x"),
        ("HTTPS://me:se@cret@host/x", "HTTPS://host/x"),
        ("https://host/x?token=secret&a=b", "https://host/x?..."),
        ("ssh://git:secret@host/x", "ssh://git@host/x"),
        ("ssh://git@host/x", "ssh://git@host/x"),
        ("git@host:x/y.git", "git@host:x/y.git"),
        ("/data/heads@home", "/data/heads@home"),
        ("https://host/a@b", "https://host/a@b"),
    ],
)
def test_an_address_is_public_without_its_password(address: str, public: str) -> None:
    assert without_password(f"'{address}' is away") == f"'{public}' is away"


def test_the_commands_print_no_escapes(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(options: object) -> None:
        raise ValueError("\x1b[31mred\nand a second line of http://me:secret@host")

    monkeypatch.setattr(cli, "_pin", fail)
    assert cli.main(["pin"]) == cli.USAGE
    assert capsys.readouterr().err == "headsr: \\x1b[31mred\nand a second line of http://host\n"
    assert cli.main(["check", "no\x1b[31mfile.nii.gz"]) == cli.REJECTED
    assert "\x1b" not in capsys.readouterr().out


def test_logs_hold_no_escapes() -> None:
    record = logging.LogRecord("x", logging.WARNING, "x", 1, "%s\nis\x1b", ("\x1b[31m",), None)
    assert PlainFormatter("%(message)s").format(record) == "\\x1b[31m\nis\\x1b"
