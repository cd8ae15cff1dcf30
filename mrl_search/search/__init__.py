"""Searching an index: plans, exact search, proofs, early stops, explanations, filters, and voting for a label."""

from mrl_search.search.adaptive import search_adaptive
from mrl_search.search.certify import certify
from mrl_search.search.confident import Ballot, Learned, classify_adaptive, learn_thresholds
from mrl_search.search.exact.pruned import exact_pruned
from mrl_search.search.explain import Explanation, explain
from mrl_search.search.filters import allowed_rows, read_ids
from mrl_search.search.others import copies_of, leave_out, search_others, widened, without_copies
from mrl_search.search.run import search
from mrl_search.search.scoring import exact
from mrl_search.search.vote import Vote, Weighting, vote

__all__ = [
    "Ballot", "Explanation", "Learned", "Vote", "Weighting", "allowed_rows", "certify", "classify_adaptive", "copies_of", "exact",
    "exact_pruned", "explain", "learn_thresholds", "leave_out", "read_ids", "search", "search_adaptive", "search_others", "vote", "widened",
    "without_copies",
]  # fmt: skip
