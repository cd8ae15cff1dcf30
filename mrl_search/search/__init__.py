"""A question to its answers: plans, requests, the walk, exact search, filters, votes and tuning."""

from mrl_search.search.classify import Ballot, Vote, Weighting, vote
from mrl_search.search.corpus import Corpus
from mrl_search.search.explain import Explanation, explain
from mrl_search.search.filters import mask_of, read_ids
from mrl_search.search.others import leave_out, search_others
from mrl_search.search.plan import Plan, Stage
from mrl_search.search.request import SearchRequest
from mrl_search.search.results import BatchHits, Hit, Hits, Queries
from mrl_search.search.run import default_plan, search

__all__ = [
    "Ballot", "BatchHits", "Corpus", "Explanation", "Hit", "Hits", "Plan", "Queries",
    "SearchRequest", "Stage", "Vote", "Weighting", "default_plan", "explain", "leave_out",
    "mask_of", "read_ids", "search", "search_others", "vote",
]  # fmt: skip
