"""mover/backup/clusters.py, against models that are as simple as can be."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from mover.backup.clusters import Change, changes_of, content_of, cut, held, overlay
from mover.client.clusters import CLUSTER_BYTES, Content, Positions, Run, clusters_of

MOST_CLUSTERS = 12
EDGES = st.integers(1, MOST_CLUSTERS * 4).map(lambda quarter: quarter * CLUSTER_BYTES // 4)


@st.composite
def listings(draw: st.DrawFn) -> list[Change]:
    """Extents without gaps, with edges anywhere on quarters of clusters."""
    edges = sorted({0, *draw(st.lists(EDGES, min_size=1, max_size=12))})
    return [
        Change(start, end - start, draw(st.booleans()), draw(st.booleans())) for start, end in itertools.pairwise(edges)
    ]


def expand(runs: list[Run]) -> list[int]:
    return [cluster for run in runs for cluster in range(run.first, run.end)]


def bytes_of(changes: list[Change]) -> list[tuple[bool, bool]]:
    """(wanted, zero) of every quarter of a cluster."""
    quarter = CLUSTER_BYTES // 4
    return [(each.wanted, each.zero) for each in changes for _ in range(each.length // quarter)]


@given(listings())
def test_a_cluster_is_stored_if_any_of_it_is_wanted_and_as_zeros_only_if_all_of_it_is(changes: list[Change]) -> None:
    """Neither a changed byte nor a byte that is not zero gets lost between extents that share a cluster."""
    quarters = bytes_of(changes)
    content = content_of(changes)
    clusters = [quarters[at : at + 4] for at in range(0, len(quarters), 4)]
    wanted = [number for number, cluster in enumerate(clusters) if any(want for want, _ in cluster)]
    zero = [number for number in wanted if all(is_zero for _, is_zero in clusters[number])]
    assert expand(content.zero) == zero
    assert expand(content.data) == [number for number in wanted if number not in zero]


@given(listings())
def test_runs_that_touch_are_one(changes: list[Change]) -> None:
    """A file's tables and manifests stay as small as they can be."""
    for runs in (content_of(changes).data, content_of(changes).zero):
        assert all(first.end < second.first for first, second in itertools.pairwise(runs))


@given(listings(), EDGES)
def test_a_disk_of_another_size_than_its_parent_is_changed_where_no_bitmap_says_so(
    changes: list[Change], parent_bytes: int
) -> None:
    """Whatever is new, but zeros, and the cluster that the shorter disk ends in."""
    size = sum(change.length for change in changes)
    found = list(changes_of(changes, size, parent_bytes))
    assert [zero for _, zero in bytes_of(found)] == [zero for _, zero in bytes_of(changes)]
    shorter = min(size, parent_bytes)
    for number, (wanted, zero) in enumerate(bytes_of(changes)):
        at = number * CLUSTER_BYTES // 4
        expected = wanted
        if size != parent_bytes and at >= clusters_of(shorter) * CLUSTER_BYTES:
            expected = not zero
        elif size != parent_bytes and at >= shorter // CLUSTER_BYTES * CLUSTER_BYTES:
            expected = True
        assert bytes_of(found)[number] == (expected, zero)


@st.composite
def contents(draw: st.DrawFn) -> Content:
    """What a file may hold: each cluster data, zeros, or nothing."""
    kinds = draw(st.lists(st.sampled_from(["data", "zero", None]), min_size=1, max_size=MOST_CLUSTERS))
    cluster = CLUSTER_BYTES
    data = content_of([Change(at * cluster, cluster, kind == "data", False) for at, kind in enumerate(kinds)])
    zero = content_of([Change(at * cluster, cluster, kind == "zero", True) for at, kind in enumerate(kinds)])
    return Content(data.data, zero.zero)


def model(layers: list[tuple[Content, int]], size: int) -> list[tuple[int, int] | None]:
    """Of every cluster, the layer and the position that provide it; None for zeros."""
    found: list[tuple[int, int] | None] = []
    for number, (content, layer_bytes) in enumerate(layers):
        clusters = clusters_of(layer_bytes)
        found = found[:clusters] + [None] * (clusters - len(found))
        for position, cluster in enumerate(expand(content.data)):
            found[cluster] = (number, position)
        for cluster in expand(content.zero):
            found[cluster] = None
    return (found + [None] * clusters_of(size))[: clusters_of(size)]


@given(st.lists(contents(), min_size=1, max_size=5), st.data())
def test_each_cluster_is_that_of_the_newest_file_that_holds_it(found: list[Content], data: st.DataObject) -> None:
    """The chain as qemu reads it: also through disks that are smaller than those below them."""
    layers = []
    for content in found:
        end = max([0, *expand(content.data), *expand(content.zero)]) + 1
        layers.append((content, data.draw(st.integers(end, MOST_CLUSTERS)) * CLUSTER_BYTES))
    size = layers[-1][1] - data.draw(st.sampled_from([0, 1, CLUSTER_BYTES - 1]))
    segments = overlay(layers, size)
    seen: list[tuple[int, int] | None] = []
    for first, clusters, layer, position in segments:
        assert first == len(seen)
        seen += [None if layer is None else (layer, position + number) for number in range(clusters)]
    assert seen == model(layers, size)


@given(contents(), st.integers(1, 5))
def test_pieces_are_the_same_clusters(content: Content, most: int) -> None:
    """Cutting loses nothing, and every piece knows where its data stands."""
    size = MOST_CLUSTERS * CLUSTER_BYTES
    segments = overlay([(content, size)], size)
    pieces = list(cut(segments, most))
    assert all(piece.clusters <= most for piece in pieces)
    assert held(pieces) == held(segments) == Content(content.data, [])
    positions = Positions(content.data)
    for piece in pieces:
        if piece.layer is not None:
            assert positions.of(piece.first) == piece.position
