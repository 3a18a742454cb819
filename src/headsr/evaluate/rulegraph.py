"""The rule graph as a picture, without graphviz: rules in layers, edges bent around the boxes.

The layering follows Sugiyama, Tagawa and Toda (1981): longest path, one waypoint per layer that an edge passes, and
sweeps that put every node at the mean place of its neighbours.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise

import networkx
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from headsr.evaluate.curves import NOTICE
from headsr.files import whole

_NODE = re.compile(r'^\s*(\d+)\s*\[\s*label\s*=\s*"([^"]*)"', re.MULTILINE)
_EDGE = re.compile(r"^\s*(\d+)\s*->\s*(\d+)", re.MULTILINE)
_SWEEPS = 24
_BOX = (1.5, 0.42)  # inches
_STEP = (1.62, 0.78)

Layers = list[list[str]]


def rulegraph_of(configfiles: Sequence[str]) -> str:
    """The rule graph of the workflow in this folder as DOT text, as Snakemake itself draws it."""
    command = [sys.executable, "-P", "-m", "snakemake", "--rulegraph", "dot", "--forceall", "--quiet", "all"]
    if configfiles:
        command += ["--configfile", *configfiles]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if run.returncode:
        raise RuntimeError(f"snakemake --rulegraph failed: {run.stderr.strip()[-2000:]}")
    return run.stdout


def read_rulegraph(dot: str) -> networkx.DiGraph:
    """The graph that ``snakemake --rulegraph`` prints: an edge from each rule to those that use its output.

    Edges that a longer path implies are left out, and edges back to an earlier rule: a model whose training needs
    another model is made by the same rules. Lines before the graph (what a Snakefile prints) do no harm.
    Raises ValueError for text without a graph.
    """
    _, found, body = dot.partition("digraph")
    names = {number: label.split("\\n")[0] for number, label in _NODE.findall(body)}
    if not found or not names:
        raise ValueError("this is not the output of snakemake --rulegraph")
    graph = networkx.DiGraph()
    graph.add_nodes_from(sorted(names.values()))
    graph.add_edges_from(sorted((names[a], names[b]) for a, b in _EDGE.findall(body) if names[a] != names[b]))
    while (back := _edge_back(graph)) is not None:
        graph.remove_edge(*back)
    return networkx.transitive_reduction(graph)


def _edge_back(graph: networkx.DiGraph) -> tuple[str, str] | None:
    """The edge that closes a circle on the way from rules that need no other; None where there is no circle."""
    first = [name for name in graph if graph.in_degree(name) == 0]
    try:
        return networkx.find_cycle(graph, [*first, *graph])[-1]
    except networkx.NetworkXNoCycle:
        return None


def draw_rulegraph(dot: str, output: str | os.PathLike[str]) -> None:
    """Draw the graph that ``snakemake --rulegraph`` printed (``dot``) as a PNG."""
    graph = read_rulegraph(dot)
    places, paths = lay_out(graph)
    x, y = np.array([*places.values(), *(point for path in paths for point in path)]).T
    left, right = x.min() - _BOX[0] / 2 - 0.15, x.max() + _BOX[0] / 2 + 0.15
    bottom, top = -y.max() - _BOX[1] / 2 - 0.45, _BOX[1] / 2 + 0.15
    figure = Figure(figsize=(right - left, top - bottom), dpi=90)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(left, right), ylim=(bottom, top))
    axes.set_axis_off()
    for path in paths:
        _draw_edge(axes, path)
    for name in graph:
        _draw_rule(axes, name, *places[name])
    axes.text(left + 0.15, bottom + 0.15, NOTICE, fontsize=7, color="0.4")
    with whole(output) as partial:
        canvas.print_png(partial, metadata={"Software": None})


def _draw_edge(axes: Axes, path: Sequence[tuple[float, float]]) -> None:
    axes.plot(*_bend(path), color="0.6", linewidth=1.2, zorder=1)
    x, y = path[-1][0], _BOX[1] / 2 - path[-1][1]
    arrow = {"arrowstyle": "-|>", "color": "0.6", "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", xy=(x, y), xytext=(x, y + 0.06), arrowprops=arrow)


def _draw_rule(axes: Axes, name: str, x: float, y: float) -> None:
    corner = (x - _BOX[0] / 2, -y - _BOX[1] / 2)
    rounded = "round,pad=0,rounding_size=0.08"
    axes.add_patch(FancyBboxPatch(corner, *_BOX, boxstyle=rounded, facecolor="#eaf2fb", edgecolor="#3a6ea5"))
    axes.text(x, -y, name, ha="center", va="center", fontsize=7.5)


def lay_out(graph: networkx.DiGraph) -> tuple[dict[str, tuple[float, float]], list[list[tuple[float, float]]]]:
    """The place of every node, in inches with y downwards, and the waypoints of every edge, its two ends included."""
    layers, chains, neighbours = _layers(graph)
    x = _straighten(layers, neighbours)
    depth = {node: number for number, layer in enumerate(layers) for node in layer}
    places = {node: (x[node] * _STEP[0], depth[node] * _STEP[1]) for node in depth}
    return {node: places[node] for node in graph}, [[places[node] for node in chain] for chain in chains]


def _layers(graph: networkx.DiGraph) -> tuple[Layers, list[list[str]], dict[str, list[str]]]:
    """Nodes by the longest path to them, a waypoint wherever an edge passes a layer, and who is joined to whom."""
    depth: dict[str, int] = {}
    for node in networkx.lexicographical_topological_sort(graph):
        depth[node] = max((depth[before] + 1 for before in graph.predecessors(node)), default=0)
    for node in reversed(list(networkx.lexicographical_topological_sort(graph))):
        # A source moves down to the layer above its first user: short edges are easier to follow.
        if graph.in_degree(node) == 0 and graph.out_degree(node):
            depth[node] = min(depth[after] for after in graph.successors(node)) - 1
    layers: Layers = [[] for _ in range(max(depth.values()) + 1)]
    for node in graph:
        layers[depth[node]].append(node)
    chains, neighbours = [], {node: [] for node in graph}
    for a, b in sorted(graph.edges):
        inner = [f"{a}>{b}>{level}" for level in range(depth[a] + 1, depth[b])]
        for level, point in enumerate(inner, start=depth[a] + 1):
            layers[level].append(point)
        chain = [a, *inner, b]
        chains.append(chain)
        for one, other in pairwise(chain):
            neighbours.setdefault(one, []).append(other)
            neighbours.setdefault(other, []).append(one)
    return layers, chains, neighbours


def _straighten(layers: Layers, neighbours: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Places along each layer, at least one step apart (waypoints need less), after sweeps down and up."""
    x = {node: float(i) for layer in layers for i, node in enumerate(layer)}
    for sweep in range(_SWEEPS):
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            wanted = {node: float(np.mean([x[other] for other in neighbours[node]] or [x[node]])) for node in layer}
            layer.sort(key=lambda node: (wanted[node], node))
            x.update(_apart(layer, wanted))
    return x


def _apart(layer: Sequence[str], wanted: Mapping[str, float]) -> dict[str, float]:
    """Places near the wanted ones, in this order, that keep their distance: the mean of packing from both ends."""
    right, left = {}, {}
    for i, node in enumerate(layer):
        right[node] = max(wanted[node], right[layer[i - 1]] + _distance(layer[i - 1], node)) if i else wanted[node]
    for i, node in reversed(list(enumerate(layer))):
        last = i == len(layer) - 1
        left[node] = wanted[node] if last else min(wanted[node], left[layer[i + 1]] - _distance(node, layer[i + 1]))
    return {node: (right[node] + left[node]) / 2 for node in layer}


def _distance(a: str, b: str) -> float:
    """A waypoint is as thin as a line."""
    return {0: 1.0, 1: 0.6, 2: 0.25}[(">" in a) + (">" in b)]


def _bend(path: Sequence[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    """A smooth line that leaves and enters the boxes vertically."""
    t = np.linspace(0, 1, 24)
    smooth = t * t * (3 - 2 * t)
    xs, ys = [], []
    for (x0, y0), (x1, y1) in pairwise(path):
        xs.append(x0 + (x1 - x0) * smooth)
        ys.append(-(y0 + (y1 - y0) * t))
    return np.concatenate(xs), np.concatenate(ys)
