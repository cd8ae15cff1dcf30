"""Whether the labels of a corpus are classes: folder names may be dates, or one name a picture."""

from collections import Counter

import numpy as np

from mrl_search.metrics import wilson_interval
from mrl_search.search.classify import Ballot, vote
from mrl_search.search.corpus import Corpus
from mrl_search.search.results import BatchHits
from mrl_search.vectors import l2_normalize, sample

__all__ = ["label_doubt"]

FEWEST = 20  # labelled items from which labels are judged
VOTERS = 20
SAMPLED = (100, 1000)  # labelled items that are compared with one another: at least, at most
LABELS = -2  # in place of a prefix length: what is kept with the corpus
CHANCE = 0.1  # Cohen's kappa that the accuracy of classes may reach


def label_doubt(corpus: Corpus) -> str:
    """Return why the labels of `corpus` are plainly no classes, as a sentence; "" otherwise.

    That is: most labels stand on one item alone, or a leave-one-out vote of the 20 nearest among
    a sample is not significantly better than chance, and at most a little better (Cohen's kappa,
    1960).
    """
    if LABELS not in corpus.backgrounds:
        corpus.backgrounds[LABELS] = _label_doubt(corpus)
    return str(corpus.backgrounds[LABELS])


def _label_doubt(corpus: Corpus) -> str:
    collection = corpus.collection
    rows = np.flatnonzero(collection.labelled)
    if len(rows) < FEWEST:
        return ""
    counts = Counter(collection.labels[rows])
    single = sum(count == 1 for count in counts.values())
    if 2 * single > len(rows):
        return f"The labels are no classes: {single:,} of {len(rows):,} stand on one item alone."
    if len(rows) < SAMPLED[0]:
        return ""
    rows = rows[sample(len(rows), SAMPLED[1])]
    labels, hashes = collection.labels[rows], collection.hashes[rows]
    unit = l2_normalize(corpus.vectors.rows(rows))
    cosines = unit @ unit.T
    cosines[hashes[:, None] == hashes] = -np.inf
    ids = (-cosines).argsort(axis=1, kind="stable")[:, :VOTERS]
    scores = np.take_along_axis(cosines, ids, axis=1)
    ids[np.isneginf(scores)] = -1
    votes = [v.label for v in vote(BatchHits(ids, scores), labels, Ballot(VOTERS))]
    n = len(rows)
    right = sum(a == b for a, b in zip(votes, labels, strict=True))
    voted, true = Counter(votes), Counter(labels)
    chance = sum(voted[label] * count for label, count in true.items()) / n**2
    low, high = wilson_interval(right, n)
    if low > chance or high - chance > CHANCE * (1 - chance):
        return ""
    share = f"a vote of the nearest is right for {right / n:.1%} of {n:,}, by chance {chance:.1%}"
    return f"The labels are no classes to this model: {share}."
