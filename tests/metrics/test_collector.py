"""Mirrors cdm_cli/metrics/collector.py."""

import itertools

import numpy as np
import pytest
import torch

from cdm_cli.metrics.collector import Collector
from cdm_cli.metrics.frechet import FeatureGaussian, Moments
from tests.cuda.rig import needs
from tests.metrics.whole import frechet_distance, inception_score


def collected(x, p=None, labels=None, ids=None, chunks=(0, 7, 50, 1000), keep=20):
    N = len(x)
    labels = np.zeros(N, dtype=np.int64) if labels is None else labels
    ids = np.arange(N) if ids is None else ids
    collector = Collector.empty(ids, labels, x.shape[1], keep=keep)
    for start, end in itertools.pairwise(chunks):
        places = np.arange(start, min(end, N))
        if len(places):
            collector.add(places, x[places], None if p is None else p[places])
    return collector


def test_one_pass_gives_every_statistic(generator):
    x = torch.randn(200, 6, generator=generator)
    p = torch.softmax(torch.randn(200, 4, generator=generator) * 3, 1)
    labels = p.argmax(1).numpy().copy()
    labels[:50] = (labels[:50] + 1) % 4
    collector = collected(x, p, labels)
    np.testing.assert_allclose(collector.whole.sigma, np.cov(x.double().numpy(), rowvar=False))
    assert collector.scores.score() == pytest.approx(inception_score(p), rel=1e-12)
    assert collector.accuracy() == pytest.approx((0.75, (0.75 * 0.25 / 200) ** 0.5))
    assert torch.equal(collector.kept, x[collector.kept_places])
    reference = FeatureGaussian.of(np.zeros(6), np.eye(6))
    estimate = collector.frechet(reference)
    expected = frechet_distance(
        x.double().mean(0), np.cov(x.double(), rowvar=False), np.zeros(6), np.eye(6)
    )
    assert estimate.value == pytest.approx(expected, rel=1e-9)


def test_jackknife_error_is_the_spread_over_fresh_samples(generator):
    """The standard error claimed from one set against the deviation over 100 sets."""
    reference = FeatureGaussian.of(np.full(4, 0.5), np.diag([1.0, 2.0, 0.5, 1.0]))
    sets = torch.randn(100, 300, 4, generator=generator)
    estimates = [collected(x).frechet(reference) for x in sets]
    spread = np.std([estimate.value for estimate in estimates])
    claimed = np.mean([estimate.error for estimate in estimates])
    assert claimed == pytest.approx(spread, rel=0.2)


def test_order_and_processes_change_nothing(generator):
    x = torch.randn(60, 3, generator=generator)
    p = torch.softmax(torch.randn(60, 5, generator=generator), 1)
    ids, labels = np.arange(60), np.arange(60) % 5
    whole = collected(x, p, labels, ids)
    other = np.random.default_rng(0).permutation(60)
    again = collected(x[other], p[other], labels[other], ids[other])
    assert set(whole.ids[whole.kept_places]) == set(again.ids[again.kept_places])
    first, second = (Collector.empty(ids, labels, 3, keep=20) for _ in range(2))
    for start in range(0, 60, 10):
        places = np.arange(start, start + 10)
        (first if start % 20 else second).add(places, x[places], p[places])
    for mine, theirs in zip(first.tensors(), second.tensors(), strict=True):
        mine += theirs
    reference = FeatureGaussian.of(np.zeros(3), np.eye(3))
    for collector in (again, first):
        assert collector.frechet(reference).value == pytest.approx(
            whole.frechet(reference).value, rel=1e-10
        )
        assert collector.scores.score() == pytest.approx(whole.scores.score(), rel=1e-12)
    assert torch.equal(first.kept, whole.kept)


def test_errors_are_of_samples_whose_classes_are_as_many_each_time(generator):
    """Two far classes, 100 of each in every set: shuffled splits would claim twice the spread."""
    labels = np.arange(200) % 2
    sets = torch.randn(100, 200, 4, generator=generator) + 2.0 * torch.from_numpy(labels)[:, None]
    reference = FeatureGaussian.of(np.zeros(4), 2 * np.eye(4))
    estimates = [collected(x, labels=labels).frechet(reference) for x in sets]
    spread = np.std([estimate.value for estimate in estimates])
    claimed = np.mean([estimate.error for estimate in estimates])
    assert claimed == pytest.approx(spread, rel=0.2)


def test_what_numbers_are_without_some_samples_is_what_the_others_give(generator):
    x = torch.randn(120, 3, generator=generator)
    p = torch.softmax(torch.randn(120, 5, generator=generator), 1)
    labels = np.arange(120) % 5
    collector = collected(x, p, labels)
    reference = FeatureGaussian.of(np.full(3, 0.5), np.eye(3))
    found = [
        collector.frechet(reference), collector.estimate_score(), collector.estimate_accuracy()
    ]  # fmt: skip
    pairs = [(g, (g + 1) % 10) for g in range(10)]
    for place, out in enumerate([(g,) for g in range(10)] + pairs):
        left = np.flatnonzero(~np.isin(collector.groups, out))
        fid = frechet_distance(
            x[left].double().mean(0), np.cov(x[left].double(), rowvar=False), np.full(3, 0.5),
            np.eye(3),
        )  # fmt: skip
        hits = (p[left].argmax(1).numpy() == labels[left]).mean()
        expected = [fid, score_by_hand(p[left], collector.splits[left]), hits]
        for one, number in zip(found, expected, strict=True):
            assert (one.without + one.without_two)[place] == pytest.approx(number, rel=1e-9)


def score_by_hand(p, splits):
    """The mean over the splits of exp KL(p(y|x), p(y))."""
    parts = [p[splits == split].double().numpy() for split in range(10)]
    return np.mean([np.exp((q * np.log(q / q.mean(0))).sum(1).mean()) for q in parts])


def test_conventional_numbers_owe_nothing_to_the_groups(generator):
    """To the bit: whoever goes on with numbers of an earlier version compares with them."""
    x = torch.randn(90, 6, generator=generator)
    p = torch.softmax(torch.randn(90, 4, generator=generator), 1)
    ids, labels = np.arange(90), np.arange(90) % 3
    reference = FeatureGaussian.of(np.zeros(6), np.eye(6))
    numbers = set()
    for G in (1, 7, 10):
        collector = Collector.empty(ids, labels, 6, num_groups=G)
        collector.add(ids, x, p)
        numbers.add((
            collector.frechet(reference).value, *collector.scores.score(), collector.accuracy()
        ))  # fmt: skip
    assert len(numbers) == 1
    one = Collector.empty(ids, labels, 6, num_groups=1)
    one.add(ids, x, p)
    assert (one.frechet(reference).without, one.estimate_score().without) == ((), ())


def test_the_mark_names_the_groups_not_the_order_of_the_file():
    ids, labels = np.arange(60), np.arange(60) % 3
    other = np.random.default_rng(0).permutation(60)
    mark = Collector.empty(ids, labels, 2).mark
    assert Collector.empty(ids[other], labels[other], 2).mark == mark
    assert len({mark, Collector.empty(ids + 1, labels, 2).mark,
                Collector.empty(ids, labels, 2, seed=1).mark}) == 3  # fmt: skip


def test_too_few_for_an_error():
    x = torch.tensor([[0.0], [1.0]])
    estimate = collected(x).frechet(FeatureGaussian.of(np.zeros(1), np.eye(1)))
    assert estimate.error is None
    assert collected(x).accuracy() is None


def test_several_references_take_what_the_samples_are_once(generator, monkeypatch):
    collector = collected(torch.randn(80, 4, generator=generator))
    references = [FeatureGaussian.of(np.full(4, shift), np.eye(4)) for shift in (0.0, 0.5, 1.0)]
    apart = [collector.frechet(reference) for reference in references]
    taken, gaussian = [], Moments.gaussian

    def counted(self):
        taken.append(self.num)
        return gaussian(self)

    monkeypatch.setattr(Moments, "gaussian", counted)
    assert collector.frechets(references) == apart
    assert len(taken) == 1 + 2 * 10


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs(1))])
def test_sums_on_the_host_give_the_numbers_they_gave_on_the_device(generator, device):
    x = torch.randn(80, 4, generator=generator).to(device)
    p = torch.softmax(torch.randn(80, 5, generator=generator), 1).to(device)
    collector = Collector.empty(np.arange(80), np.arange(80) % 5, 4, device=device)
    collector.add(np.arange(80), x, p)
    reference = FeatureGaussian.of(np.zeros(4), np.eye(4))
    before = collector.frechet(reference), collector.estimate_score(), collector.accuracy()
    collector.to_host()
    assert {sums.outer.device.type for sums in [*collector.moments, *collector.parts]} == {"cpu"}
    after = collector.frechet(reference), collector.estimate_score(), collector.accuracy()
    assert after[0] == before[0]
    assert after[1].value == pytest.approx(before[1].value, rel=1e-12)
    assert after[2] == before[2]
