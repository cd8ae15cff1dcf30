"""The page over an index that lives in Milvus: its views show what they show over FAISS."""

from pathlib import Path

import pytest
import shown
import test_in_browser_results as results
import test_in_browser_views as views
from browsing import needs_browser
from fakes import FakeJointEncoder

from mrl_search.index import Index
from mrl_search.mirror import copy_to

pytest.importorskip("milvus_lite")
pytestmark = needs_browser

browser, address, page = shown.browser, shown.address, shown.page
pictures = shown.folder


@pytest.fixture(scope="module")
def folder(pictures: Path) -> Path:
    """The same index in a file of Milvus Lite."""
    copy_to(pictures, f"milvus:{pictures.parent / 'lite.db'}#page")
    assert Index.open(pictures, FakeJointEncoder()).corpus.prefix_index(8).remote
    return pictures


test_search = results.test_click_more_less_and_back
test_words_filters_plan_and_cutoff = results.test_words_filters_plan_and_cutoff
test_the_slider = results.test_the_slider_searches_at_every_tick
test_the_ladder = views.test_the_ladder_joins_the_same_picture
test_the_map = views.test_the_map_is_drawn_zoomed_and_clicked
test_duplicates = views.test_duplicates_are_shown_and_decided
test_the_report = views.test_the_report_is_the_bench_of_this_index
