"""A share of what fuzzes files: no traceback, no hang, nothing accepted that a checksum speaks against."""

import pytest
from fuzz.kinds import FILES
from fuzz.run import fuzz

SHARE = 400


@pytest.mark.long
@pytest.mark.parametrize("kind", FILES)
def test_damaged_files_are_right_or_refused_in_words(tmp_path, kind):
    _, fallen = fuzz(kind, FILES[kind](tmp_path), range(SHARE))
    assert fallen == []
