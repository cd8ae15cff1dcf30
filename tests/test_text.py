"""Characters that steer terminals or disguise names are shown escaped."""

import json

import pytest

from mrl_search.report.page import Heading, Page, Table, render_markdown, render_page
from mrl_search.text import plain, plain_json


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ü 日 é  \u3000x", "plain ü 日 é  \u3000x"),
        ("\x1b[31m", r"\x1b[31m"),
        ("a\nb\tc\x7f\x9b", r"a\nb\tc\x7f\x9b"),
        ("photo\u202egnp.exe", r"photo\u202egnp.exe"),
        ("\u2066x\u2069\u200b\ufeff\xad", r"\u2066x\u2069\u200b\ufeff\xad"),
        ("\u2028\ue000\udce9", r"\u2028\ue000\udce9"),
        ("👩\u200d👧 می\u200cخواهم", "👩\u200d👧 می\u200cخواهم"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_only_harmless_characters_are_shown(text: str, shown: str) -> None:
    assert plain(text) == shown
    as_json = plain_json(json.dumps({"name": text}, ensure_ascii=False))
    assert json.loads(as_json) == {"name": text} and plain(as_json) == as_json


def test_names_have_no_meaning_in_a_report() -> None:
    name = "<script>`x`|[a](b)\u202e"
    table = Table("t", ("name",), ((name,),), name)
    blocks = [Heading(name, (name,)), table]
    page = Page(name, [name], blocks, [(f"mrl-search report '{name}'", name)], {name: name})
    markdown = render_markdown(page)
    assert r"\<script\>\`x\`\|\[a\](b)\\u202e" in markdown
    assert r"`` mrl-search report '<script>`x`|[a](b)\u202e' ``: \<script" in markdown
    html = render_page(page)
    assert "<script>`" not in html and "\u202e" not in html + markdown
    assert r"&lt;script&gt;`x`|[a](b)\u202e" in html
