"""What the sidecars of a dataset say of the thickness of a scan's slices, by BIDS' inheritance."""

import json

import pytest

from headsr.annex import TreeFile
from headsr.sidecars import Sidecars, is_sidecar, thickness_of

THICKNESS = [
    ({"T1w.json": {"SliceThickness": 1.2000000476837158}}, "1.2"),
    ({"T1w.json": {"SliceThickness": 1}, "sub-1/sub-1_T1w.json": {"SliceThickness": 2}}, "2"),
    ({"T2w.json": {"SliceThickness": 1}}, ""),
    ({"acq-x_T1w.json": {"SliceThickness": 1}}, ""),  # about other scans
    ({"run-1_T1w.json": {"SliceThickness": 1}, "T1w.json": {"SliceThickness": 2}}, "1"),
    ({"ses-a_T1w.json": {"SliceThickness": 1}}, "1"),
    ({"run-1_T1w.json": {"SliceThickness": 1}, "sub-1/T1w.json": {"SliceThickness": 2}}, "2"),  # the nearer one
    ({"run-1_T1w.json": {"EchoTime": 1}, "T1w.json": {"SliceThickness": 2}}, "2"),
    ({"sub-1/ses-a/sub-1_ses-a_T1w.json": {"SliceThickness": 3}, "T1w.json": {"SliceThickness": 1}}, "3"),
    ({"sub-1/ses-b/sub-1_ses-b_T1w.json": {"SliceThickness": 3}, "T1w.json": {"SliceThickness": 1}}, "1"),
    ({"sub-1/sub-1_run-2_T1w.json": {"SliceThickness": 3}, "T1w.json": {"SliceThickness": 1}}, "1"),
    (
        {
            "sub-1/ses-a/anat/sub-1_ses-a_T1w.json": {"SliceThickness": 3},
            "sub-1/ses-a/anat/sub-1_ses-a_run-1_T1w.json": {"SliceThickness": 4},
        },
        "4",
    ),
    ({"T1w.json": {"SliceThickness": -1}}, ""),
    ({"T1w.json": {"SliceThickness": "5.0"}}, "5"),  # some converters write every number as text
    ({"T1w.json": {"SliceThickness": " 2.50\n"}}, "2.5"),
    ({"T1w.json": {"SliceThickness": "5.0 mm"}}, ""),
    ({"T1w.json": {"SliceThickness": "5,5"}}, ""),
    ({"T1w.json": {"SliceThickness": "1_0"}}, ""),  # which Python takes for 10
    ({"T1w.json": {"SliceThickness": "nan"}}, ""),
    ({"T1w.json": {"SliceThickness": "1e999"}}, ""),
    ({"T1w.json": {"SliceThickness": "-1"}}, ""),
    ({"T1w.json": {"SliceThickness": ""}}, ""),
    ({"T1w.json": {"SliceThickness": True}}, ""),
    ({"T1w.json": {"SliceThickness": float("nan")}}, ""),
    ({"T1w.json": [1]}, ""),
    ({"T1w.json": {}}, ""),
    ({}, ""),
]


def thickness(contents: dict[str, bytes | None], texts: dict[str, bytes] | None = None) -> str:
    """Of sub-1_ses-a_run-1_T1w; a sidecar without a content is annexed."""
    sidecars = Sidecars(TreeFile(path, f"key of {path}", 1, content) for path, content in contents.items())
    return thickness_of(sidecars.about("sub-1_ses-a_run-1_T1w", "sub-1/ses-a/anat"), texts or {})


@pytest.mark.parametrize(("sidecars", "expected"), THICKNESS)
def test_thickness_is_inherited_as_bids_says(sidecars: dict[str, object], expected: str) -> None:
    assert thickness({path: json.dumps(content).encode() for path, content in sidecars.items()}) == expected


@pytest.mark.parametrize(
    "content", [b"{", b"\xff\xfe", b"", b"[" * 100_000, b'{"SliceThickness": ' + b"9" * 400 + b"}"]
)
def test_a_sidecar_that_is_no_json_counts_as_unknown(content: bytes) -> None:
    assert thickness({"T1w.json": content}) == ""
    assert thickness({"T1w.json": b'{"SliceThickness": 2}', "sub-1/T1w.json": content}) == ""  # it may overrule


def test_a_mark_of_the_byte_order_and_names_of_another_encoding_cost_no_number() -> None:
    assert thickness({"T1w.json": b'\xef\xbb\xbf{"SliceThickness": 2, "Name": "M\xfcller"}'}) == "2"


def test_an_annexed_sidecar_counts_where_its_content_was_got() -> None:
    sidecars = {"T1w.json": b'{"SliceThickness": 2}', "sub-1/T1w.json": None}
    assert thickness(sidecars) == ""  # it may overrule
    assert thickness(sidecars, {"key of sub-1/T1w.json": b'{"SliceThickness": 3}'}) == "3"
    assert thickness(sidecars, {"key of sub-1/T1w.json": b"{}"}) == "2"


@pytest.mark.parametrize("path", ["T1w.json", "acq-x_PDw.json", "sub-1/anat/sub-1_ses-a_FLAIR.json"])
def test_what_is_a_sidecar(path: str) -> None:
    assert is_sidecar(path) and not is_sidecar(path.replace("w.json", "w.nii").replace("FLAIR", "bold"))
