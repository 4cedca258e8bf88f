"""What is promised as Markdown shows the page's own characters, whatever they are."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from app.conversations.markdown import escape
from app.conversations.views import render_text

CASES = json.loads((Path(__file__).parent / "markdown_cases.json").read_text())
# A reader that draws everything: HTML as HTML, tables and what is struck through.
READER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


class Drawn(HTMLParser):
    """The tags of a page and the characters between them."""

    def __init__(self, markdown: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(READER.render(markdown))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def words(text: str) -> list[str]:
    return text.split()


@pytest.mark.parametrize("case", CASES, ids=[case["why"] for case in CASES])
def test_it_is_escaped_as_the_widget_escapes_it(case: dict[str, Any]) -> None:
    assert escape(case["text"], case["sources"]) == case["markdown"]


marks = st.sampled_from(
    [*list("\\`*_[]()<>&~|!#-+=:.1 \n\t"), "a", "Ü", "amp;", "&#60;", "```", "~~~", "    ", "https://x.y", "](", "<b>"]
)
hostile = st.lists(marks, max_size=24).map("".join)


@given(hostile)
def test_whatever_the_page_says_is_drawn_as_its_own_characters(text: str) -> None:
    drawn = Drawn(escape(text))
    assert words(drawn.text) == words(text)
    assert set(drawn.tags) <= {"p"}


@given(hostile, hostile)
def test_a_writer_can_add_emphasis_code_and_lists_and_nothing_else(text: str, sources: str) -> None:
    assert set(Drawn(escape(text, sources)).tags) <= {"p", "em", "strong", "code", "ul", "ol", "li"}


@given(st.lists(hostile, max_size=2), st.lists(hostile, min_size=1, max_size=3))
def test_an_answer_is_its_wording_and_its_quotations(sentences: list[str], quoted: list[str]) -> None:
    evidence = [{"text": text, "title": "Page", "heading_path": ["Book"], "passage_id": str(n)} for n, text in enumerate(quoted)]
    drawn = Drawn(render_text([], evidence))
    assert words(drawn.text) == words("\n".join(quoted))
    assert set(drawn.tags) <= {"p", "blockquote"}
    assert set(Drawn(render_text(sentences, evidence)).tags) <= {"p", "em", "strong", "code", "ul", "ol", "li", "blockquote"}


def test_a_name_of_the_page_is_the_same_name_in_wording_and_quotation() -> None:
    evidence = [{"text": "The server calls __init_plugin__ once.", "title": "Plugins", "heading_path": [], "passage_id": "1"}]
    text = render_text(["It calls `once` the hook __init_plugin__."], evidence)
    drawn = Drawn(text)
    assert drawn.text.count("__init_plugin__") == 2 and drawn.tags == ["p", "code", "blockquote", "p"]


def test_a_page_and_a_visitor_can_run_nothing() -> None:
    attack = '<img src=x onerror="alert(1)"> [click](javascript:alert(1))'
    evidence = [{"text": attack, "title": "Page", "heading_path": [], "passage_id": "1"}]
    for text in (render_text([], evidence), render_text([attack], evidence), render_text([f"You wrote: “{attack}”"], None)):
        drawn = Drawn(text)
        assert set(drawn.tags) <= {"p", "blockquote"}
        assert attack in drawn.text
