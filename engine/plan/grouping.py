"""Groups of nodes that run in one go: connected, as large as can be, never waiting for each other in a circle."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Sequence

import onnx_ir as ir

from voxelrt.plan.islands import producer, reads


class Grouping:
    """Islands among the nodes of a graph.

    Parameters
    ----------
    nodes : in an order that can run.
    islanders : those that are to be in islands; every other node stands alone.
    """

    def __init__(self, nodes: Sequence[ir.Node], islanders: Collection[ir.Node]) -> None:
        self._nodes = list(nodes)
        self._index = {node: i for i, node in enumerate(self._nodes)}
        chosen = set(islanders)
        self._island = [node in chosen for node in self._nodes]
        self._parent = list(range(len(self._nodes)))
        self._after: list[set[int]] = [set() for _ in self._nodes]  # of each group's root: roots or former roots
        self._edges: list[tuple[int, int]] = []
        for target, node in enumerate(self._nodes):
            sources = {self._index[p] for v in reads(node) for p in producer(v) if p in self._index}
            for source in sorted(sources):
                self._after[source].add(target)
                self._edges.append((source, target))
        self._merge_levels()
        self._merge_rest()

    def force(self, source: ir.Node, target: ir.Node) -> None:
        """Put two islanders into one island, and with them whatever lies between."""
        if source in self._index and target in self._index:
            first, last = self._root(self._index[source]), self._root(self._index[target])
            if first != last:
                for between in self._between(first, last):
                    self._join(first, between)
                self._join(first, last)

    def segments(self) -> list[tuple[list[ir.Node], bool]]:
        """(nodes, whether an island), each after all it needs. Neighbours that are no islands are put together."""
        members: dict[int, list[int]] = {}
        for i in range(len(self._nodes)):
            members.setdefault(self._root(i), []).append(i)
        waits = dict.fromkeys(members, 0)
        for root in members:
            for after in self._next(root):
                waits[after] += 1
        ready = [(self._is_island(root), members[root][0], root) for root in members if not waits[root]]
        heapq.heapify(ready)
        found: list[tuple[list[ir.Node], bool]] = []
        while ready:
            island, _, root = heapq.heappop(ready)
            group = [self._nodes[i] for i in members[root]]
            if found and not island and not found[-1][1]:
                found[-1][0].extend(group)
            else:
                found.append((group, island))
            for after in self._next(root):
                waits[after] -= 1
                if not waits[after]:
                    heapq.heappush(ready, (self._is_island(after), members[after][0], after))
        return found

    def _is_island(self, root: int) -> bool:
        return self._island[root]

    def _merge_levels(self) -> None:
        """Join islanders with as many changes between native and island before them: cheap, and never a circle."""
        level = [int(island) for island in self._island]
        for source, target in self._edges:
            same = self._island[source] == self._island[target]
            level[target] = max(level[target], level[source] + (0 if same else 1))
        for source, target in self._edges:
            if self._island[source] and self._island[target] and level[source] == level[target]:
                self._join(self._root(source), self._root(target))

    def _merge_rest(self) -> None:
        """Join islands along the remaining edges wherever nothing lies between them."""
        for source, target in self._edges:
            if self._island[source] and self._island[target]:
                first, last = self._root(source), self._root(target)
                if first != last and not self._between(first, last):
                    self._join(first, last)

    def _root(self, i: int) -> int:
        while self._parent[i] != i:
            self._parent[i] = self._parent[self._parent[i]]
            i = self._parent[i]
        return i

    def _join(self, a: int, b: int) -> None:
        a, b = self._root(a), self._root(b)
        if a != b:
            self._parent[b] = a
            self._after[a] |= self._after[b]
            self._island[a] = True

    def _next(self, root: int) -> set[int]:
        after = {self._root(i) for i in self._after[root]} - {root}
        self._after[root] = after
        return after

    def _between(self, first: int, last: int) -> set[int]:
        """The groups on paths from one to the other, the two left out."""
        reached: set[int] = set()
        waiting = [group for group in self._next(first) if group != last]
        while waiting:
            group = waiting.pop()
            if group not in reached:
                reached.add(group)
                waiting += [after for after in self._next(group) if after != last]
        between: set[int] = set()
        leads = {group for group in reached if last in self._next(group)}
        while leads:
            between |= leads
            leads = {group for group in reached - between if self._next(group) & between}
        return between
