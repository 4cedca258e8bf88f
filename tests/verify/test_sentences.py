"""How a passage falls into sentences: nothing lost, nothing cut where a reader would not cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.answer.sentences import split_sentences


def sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in split_sentences(text)]


WHOLE = [
    "Use a mirror, e.g. one near you, i.e. in your country.",
    "Dr. Okafor sees patients in room 4, approx. ten minutes after you arrive.",
    "Version 1.2 needs 3.5 GB of memory and Python 3.11.",
    "Edit sources.list and run apt-get update.",
    "The meeting room (see plan. It is on the second floor.) holds twelve people.",
    "Order No. 12 was sent on Jan. 5 to J. R. Hartley.",
    "He wrote “Stop. Wait.” on the door.",
    "We open at 9 a.m. on weekdays.",
    "Type `make clean. make` to begin.",
    "Wait for it... then press the button.",
    "Bread, rolls, etc. are sold at the front.",
    "The site Yahoo! was a portal.",
    "1. Open the lid.",
    "$ curl -O https://example.org/a.tar.gz. Next",
    "A long first line of prose that was wrapped by its editor\nand goes on in lower case on the next one.",
]

SPLIT = [
    ("It is free. It always was.", ["It is free.", "It always was."]),
    ("Is it free? Yes! Really.", ["Is it free?", "Yes!", "Really."]),
    ('He said "Stop." Then he left.', ['He said "Stop."', "Then he left."]),
    ("(It is old.) Nobody minds.", ["(It is old.)", "Nobody minds."]),
    ("We sell rolls, bread, etc. The shop is open.", ["We sell rolls, bread, etc.", "The shop is open."]),
    ("Opening hours\nWe open at nine.", ["Opening hours", "We open at nine."]),
    ("- one cup of flour\n- two eggs\n- salt", ["- one cup of flour", "- two eggs", "- salt"]),
    ("Install the package. apt-get fetches it.", ["Install the package.", "apt-get fetches it."]),
    ("Run this:\n$ apt update\nThen wait.", ["Run this:", "$ apt update", "Then wait."]),
    ("Q: Where is it? A: On the left.", ["Q: Where is it?", "A: On the left."]),
    ("Q: Parking A: Behind the house", ["Q: Parking", "A: Behind the house"]),
    ("営業時間は九時です。日曜は休みです！どうぞ。", ["営業時間は九時です。", "日曜は休みです！", "どうぞ。"]),
    ("The end… A new start.", ["The end…", "A new start."]),
    ("The filter is active. note that it resets at night.", ["The filter is active.", "note that it resets at night."]),
    ("Title\n=====\nText here.", ["Title\n=====", "Text here."]),
    ("Wählen Sie Nr. 5. Danach warten Sie.", ["Wählen Sie Nr. 5.", "Danach warten Sie."]),
    ("Released in 2019. Version 2 followed.", ["Released in 2019.", "Version 2 followed."]),
    ("Do you accept cards? No. Only cash.", ["Do you accept cards?", "No.", "Only cash."]),
    ("It is rich in vitamin C. The body needs it.", ["It is rich in vitamin C.", "The body needs it."]),
    ("Includes: • a towel • a key", ["Includes:", "• a towel", "• a key"]),
    ("```\nx = 1. y\n```\nDone.", ["```\nx = 1. y\n```", "Done."]),
]


@pytest.mark.parametrize("text", WHOLE)
def test_stays_whole(text):
    assert sentences(text) == [text]


@pytest.mark.parametrize(("text", "expected"), SPLIT)
def test_splits(text, expected):
    assert sentences(text) == expected


prose = st.lists(
    st.sampled_from(
        [
            *" \n\t.!?…。()\"'“”[]-•:;,",
            "word",
            "Word",
            "e.g.",
            "1.2",
            "No.",
            "apt-get",
            "```",
            "Q: ",
            "A: ",
            "é",
            "\u2028",
            "\r\n",
        ]
    )
).map("".join)


@given(st.one_of(st.text(), prose))
def test_spans_are_ordered_disjoint_trimmed_and_cover_everything(text):
    spans = split_sentences(text)
    position = 0
    for start, end in spans:
        assert start >= position
        assert not text[position:start].strip()
        assert end > start
        assert text[start:end] == text[start:end].strip()
        position = end
    assert not text[position:].strip()
