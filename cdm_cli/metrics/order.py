"""A shuffle that depends on (seed, id) alone: which sample falls into which split or group.

Stores are written in class order, or interleaved, or merged from parts; a metric that
cuts contiguous pieces out of such a file measures the order of the file (an Inception
Score over ten splits drops to a third). Here every sample is ranked by a hash of its id.
"""

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def hash_ids(ids: NDArray[np.int64], seed: int) -> NDArray[np.uint64]:
    """Hash each id [N] with SplitMix64 (Steele, Lea & Flood 2014), seeded."""
    with np.errstate(over="ignore"):
        z = (np.uint64(seed) + np.uint64(1)) * _GOLDEN ^ ids.astype(np.uint64)
        for _ in range(2):  # twice, so that neighbouring seeds and ids share nothing
            z = z + _GOLDEN
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            z = z ^ (z >> np.uint64(31))
    return z


def shuffle(ids: NDArray[np.int64], seed: int = 0) -> NDArray[np.int64]:
    """Return the positions 0..N-1 of ids [N] in shuffled order.

    The order of the samples, not of the positions, is fixed by (seed, id): a file that
    holds the same samples in another order gives the same sequence of samples.
    """
    return np.lexsort((ids, hash_ids(ids, seed))).astype(np.int64)


def deal_splits(ids: NDArray[np.int64], num_splits: int, seed: int = 0) -> NDArray[np.int64]:
    """Assign each of ids [N] to a split 0..num_splits-1 of equal size (up to one)."""
    splits = np.empty(len(ids), dtype=np.int64)
    splits[shuffle(ids, seed)] = np.arange(len(ids)) * num_splits // max(len(ids), 1)
    return splits


def deal_groups(
    ids: NDArray[np.int64], labels: NDArray[np.int64], num_groups: int, seed: int = 0
) -> NDArray[np.int64]:
    """Deal N samples into groups 0..num_groups-1, each with the same share of every label.

    ids, labels: [N]. Sizes, and the numbers of any label, differ by one at most. Which group a
    sample is in depends on (seed, ids, labels), not on the order of the file.
    """
    names, which, counts = np.unique(labels, return_inverse=True, return_counts=True)
    rests = counts % num_groups  # of each label, after complete rounds
    sizes, chosen = np.zeros(num_groups, np.int64), np.zeros((len(names), num_groups), np.int64)
    for k in np.flatnonzero(rests):
        by_chance = hash_ids(num_groups * names[k] + np.arange(num_groups), seed)
        chosen[k] = np.lexsort((by_chance, sizes))
        sizes[chosen[k, : rests[k]]] += 1
    rank = rank_in_class(labels, shuffle(ids, seed))
    groups, last = rank % num_groups, rank >= (counts - rests)[which]
    groups[last] = chosen[which[last], groups[last]]
    return groups


def choose_balanced(
    ids: NDArray[np.int64], labels: NDArray[np.int64], num: int, seed: int = 0
) -> NDArray[np.int64]:
    """Choose num of N positions, as evenly over the labels [N] as they allow, ascending.

    Ranks the samples of each class by their hash and takes the lowest ranks of all
    classes: each class gives num / K, and a class that has fewer leaves its share to others.
    """
    order = shuffle(ids, seed)
    place = np.empty(len(ids), dtype=np.int64)
    place[order] = np.arange(len(ids))
    return np.sort(np.lexsort((place, rank_in_class(labels, order)))[:num]).astype(np.int64)


def choose_by_class(
    ids: NDArray[np.int64], labels: NDArray[np.int64], counts: NDArray[np.int64], seed: int = 0
) -> NDArray[np.int64]:
    """Choose counts [K] of each label, all where there are fewer, of N positions, ascending."""
    rank = rank_in_class(labels, shuffle(ids, seed))
    return np.flatnonzero(rank < counts[labels]).astype(np.int64)


def rank_in_class(
    labels: NDArray[np.int64], order: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """Return at which place of its own class each position [N] comes in an order of all.

    labels: [N]. order: of the positions, int64 [N]; None: as they are.
    """
    order = np.arange(len(labels)) if order is None else order
    by_class = order[np.argsort(labels[order], kind="stable")]
    sorted_labels = labels[by_class]
    first = np.searchsorted(sorted_labels, sorted_labels, side="left")
    rank = np.empty(len(order), dtype=np.int64)
    rank[by_class] = np.arange(len(order)) - first
    return rank
