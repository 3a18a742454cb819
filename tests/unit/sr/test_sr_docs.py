"""What docs/sr.md says of quality is what the results say."""

from quality_table import PAGE, RESULTS, page_with, table_of


def test_the_table_of_quality_follows_from_the_results():
    expected = page_with(table_of(RESULTS.read_text(encoding="utf-8")))
    assert PAGE.read_text(encoding="utf-8") == expected, "run: python tests/unit/sr/quality_table.py"


def test_the_table_averages_gains_over_heads():
    rows = [
        "| scans | head | spline | least squares | TV | 2-D | network | projection |",
        "|---|---|---:|---:|---:|---:|---:|---|",
        "| thick_x4_box_noise1 | sub-a_T1w | 20.00 | 21.00 |  |  | 22.00 | agreed |",
        "| thick_x4_box_noise1 | sub-b_ce-x_T1w | 20.00 | 21.50 |  |  | 23.00 | met |",
        "| thick_x4_box_noise3 | sub-b_T2w | 20.00 | 21.50 |  |  | 99.00 | met |",
    ]
    assert table_of("\n".join(rows) + "\n").splitlines()[-1] == (
        "| one scan, slices 4 times as thick as wide | +2.5 / +1.2 (2) |  |"
    )
