"""The rule graph: what is read, where the boxes lie, and that a picture comes out."""

import itertools

import pytest
from PIL import Image

from headsr.evaluate.rulegraph import draw_rulegraph, lay_out, read_rulegraph

DOT = """Building DAG of jobs...
digraph snakemake_dag {
    graph[bgcolor=white, margin=0];
    node[shape=box, style=rounded, fontname=sans,                 fontsize=10, penwidth=2];
\t0[label = "all", color = "0.00 0.6 0.85", style="rounded"];
\t1[label = "mask_head", color = "0.57 0.6 0.85", style="rounded"];
\t2[label = "correct_bias", color = "0.38 0.6 0.85", style="rounded"];
\t3[label = "fetch_scan\\nscan: sub-01", color = "0.10 0.6 0.85", style="rounded"];
\t4[label = "make_template", color = "0.10 0.6 0.85", style="rounded"];
\t1 -> 0
\t2 -> 0
\t2 -> 1
\t3 -> 2
\t4 -> 1
}
"""


def test_read():
    graph = read_rulegraph(DOT)
    assert sorted(graph) == ["all", "correct_bias", "fetch_scan", "make_template", "mask_head"]
    # correct_bias -> all follows from correct_bias -> mask_head -> all.
    assert sorted(graph.edges) == [
        ("correct_bias", "mask_head"),
        ("fetch_scan", "correct_bias"),
        ("make_template", "mask_head"),
        ("mask_head", "all"),
    ]


def test_downwards_and_apart():
    places, paths = lay_out(read_rulegraph(DOT))
    assert [len(path) for path in paths] == [2] * 4
    for path in paths:
        assert all(below[1] > above[1] for above, below in itertools.pairwise(path))
    for (_, (x, y)), (_, (other_x, other_y)) in itertools.combinations(places.items(), 2):
        assert y != other_y or abs(x - other_x) >= 1.5
    assert places["make_template"][1] == places["correct_bias"][1]


def test_long_edges_pass_between_the_boxes():
    wide = DOT.replace("\t2 -> 0\n", "").replace("\t4 -> 1", "\t4 -> 0\n\t4 -> 2")
    dot = wide.replace("}\n", '\t5[label = "report"];\n\t3 -> 5\n\t5 -> 0\n}\n')
    places, paths = lay_out(read_rulegraph(dot))
    between = [point for path in paths for point in path[1:-1]]
    assert between
    for x, y in between:
        assert all(y != other_y or abs(x - other_x) > 0.75 for other_x, other_y in places.values())


@pytest.mark.parametrize("dot", ["", "no rules here", "digraph { }"])
def test_something_else_is_refused(dot):
    with pytest.raises(ValueError, match="rulegraph"):
        read_rulegraph(dot)


def test_a_rule_that_comes_again_is_drawn_where_it_comes_first():
    again = DOT.replace("\t4 -> 1", "\t4 -> 1\n\t1 -> 2\n\t2 -> 2")
    assert read_rulegraph(again).edges == read_rulegraph(DOT).edges
    circle = 'digraph snakemake_dag {\n0[label = "a"];\n1[label = "b"];\n0 -> 1\n1 -> 0\n}'
    assert sorted(read_rulegraph(circle).edges) == [("a", "b")]


def test_a_picture(tmp_path):
    draw_rulegraph(DOT, tmp_path / "rules.png")
    first = (tmp_path / "rules.png").read_bytes()
    assert Image.open(tmp_path / "rules.png").width > 200
    draw_rulegraph(DOT, tmp_path / "rules.png")
    assert (tmp_path / "rules.png").read_bytes() == first


def test_a_single_rule(tmp_path):
    draw_rulegraph('digraph snakemake_dag {\n0[label = "all"];\n}', tmp_path / "one.png")
    assert Image.open(tmp_path / "one.png").height > 20
