"""Searching an index: running a plan, the exact baseline, and voting for a label."""

from mrl_search.search.others import leave_out, search_others
from mrl_search.search.run import exact, search
from mrl_search.search.vote import Vote, Weighting, vote

__all__ = ["Vote", "Weighting", "exact", "leave_out", "search", "search_others", "vote"]
