"""Whom to keep of people who are related, so that no two of those kept are: as many as can be, and always the same.

Relatives are the edges of a graph. In each connected part of it the most people without an edge between them are kept:
a maximum independent set, found exactly by branching in parts of up to EXACT people, as families are. In larger
parts the person with the most relatives goes first, until what is left falls apart into parts that are small enough.

Of sets of equal size the one with more genotypes observed is taken, and of equal ones that whose first person comes
first by the SHA-256 of the identifiers. So neither the order of a file nor of the alphabet decides about anybody.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence

EXACT = 32
"""Most people of a part that is solved exactly, which takes a fraction of a second at the worst."""

Graph = Mapping[int, frozenset[int]]


def unrelated(people: Sequence[str], observed: Sequence[int], pairs: Iterable[tuple[int, int]]) -> tuple[int, ...]:
    """Whom to leave out, so that no pair is left and nobody could be put back.

    Args:
        people: N identifiers.
        observed: N numbers of genotypes observed.
        pairs: pairs of positions of people who are related.

    >>> unrelated(["mother", "child", "father", "cousin"], [9, 9, 9, 8], [(0, 1), (1, 2), (1, 3)])
    (1,)
    """
    related = _graph(pairs)
    hashed = {i: (hashlib.sha256(people[i].encode()).digest(), people[i]) for i in related}
    place = {i: k for k, i in enumerate(sorted(related, key=hashed.__getitem__))}
    kept: set[int] = set()
    left = list(_parts(related, related))
    while left:
        part = left.pop()
        if len(part) <= EXACT:
            kept |= _most(related, sorted(part, key=place.__getitem__), observed)
        else:
            left += _parts(related, _peeled(related, part, place, observed))
    for i in sorted(related, key=lambda i: (-observed[i], place[i])):
        if not related[i] & kept:  # somebody who went early may have lost all relatives since
            kept.add(i)
    return tuple(sorted(related.keys() - kept))


def families(pairs: Iterable[tuple[int, int]]) -> list[int]:
    """Sizes of the connected parts, largest first.

    >>> families([(0, 1), (1, 2), (7, 8)])
    [3, 2]
    """
    related = _graph(pairs)
    return sorted(map(len, _parts(related, related)), reverse=True)


def _graph(pairs: Iterable[tuple[int, int]]) -> Graph:
    edges: dict[int, set[int]] = {}
    for i, j in pairs:
        edges.setdefault(i, set()).add(j)
        edges.setdefault(j, set()).add(i)
    return {i: frozenset(others) for i, others in edges.items()}


def _parts(related: Graph, people: Iterable[int]) -> Iterator[set[int]]:
    """The connected parts of some of the people."""
    left = set(people)
    while left:
        part, reached = set[int](), {left.pop()}
        while reached:
            part |= reached
            reached = {j for i in reached for j in related[i]} & left
            left -= reached
        yield part


def _peeled(related: Graph, part: set[int], place: Mapping[int, int], observed: Sequence[int]) -> set[int]:
    """A large part without a sixteenth of its people: who has most relatives left goes, one after the other."""
    left = set(part)
    degree = {i: len(related[i] & left) for i in part}
    queue = [(-degree[i], observed[i], -place[i], i) for i in part]
    heapq.heapify(queue)
    while len(left) > len(part) - len(part) // 16:
        count, _, _, goes = heapq.heappop(queue)
        if goes not in left or degree[goes] != -count:
            continue
        left.remove(goes)
        for i in related[goes] & left:
            degree[i] -= 1
            heapq.heappush(queue, (-degree[i], observed[i], -place[i], i))
    return left


def _most(related: Graph, part: Sequence[int], observed: Sequence[int]) -> set[int]:
    """The maximum independent set that weighs most, of people in the order that breaks ties.

    A person weighs one, then their genotypes, then their place in the order: three numbers in one integer, in which no
    sum of a lesser reaches one of a greater. No two sets weigh the same, so there is one answer, however it is found.
    """
    size = len(part)
    at = {i: k for k, i in enumerate(part)}
    edges = [sum(1 << at[j] for j in related[i] if j in at) for i in part]
    one = sum(observed[i] for i in part) + 1
    weights = [(one + observed[i] << size) + (1 << size - 1 - k) for k, i in enumerate(part)]
    found: dict[int, tuple[int, int]] = {0: (0, 0)}

    def heaviest(people: int) -> tuple[int, int]:
        """Weight and members of the heaviest set among the people, who are bits of a number."""
        if people not in found:
            busiest = max(_bits(people), key=lambda k: (edges[k] & people).bit_count())
            others = people & ~(1 << busiest)
            weight, members = heaviest(others & ~edges[busiest])
            taken = weight + weights[busiest], members | 1 << busiest
            found[people] = max(taken, heaviest(others)) if edges[busiest] & people else taken
        return found[people]

    return {part[k] for k in _bits(heaviest((1 << size) - 1)[1])}


def _bits(number: int) -> list[int]:
    return [k for k in range(number.bit_length()) if number >> k & 1]
