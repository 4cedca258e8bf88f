"""Which sentences are quoted: few, verbatim, understandable, in reading order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.answer.code import is_code, lines_that_matter, size
from workers.answer.select import PassageCandidate, select
from workers.answer.sentences import split_sentences

SIZE = 384
QUESTION = np.eye(SIZE, dtype=np.float32)[0]


def vector(cosine: float, axis: int) -> np.ndarray:
    """A normalised vector with the given cosine to QUESTION, its rest along `axis`."""
    made = np.zeros(SIZE, dtype=np.float32)
    made[0], made[axis] = cosine, np.sqrt(1 - cosine**2)
    return made


def passage(name: str, text: str, cosines: list[float], score: float = 1.0, title: str = "Page") -> PassageCandidate:
    spans = split_sentences(text)
    assert len(spans) == len(cosines)
    axis = sum(map(ord, name)) % 97 + 1
    vectors = np.stack([vector(cosine, axis + 3 * index) for index, cosine in enumerate(cosines)])
    return PassageCandidate(name, title, [], text, spans, vectors.astype(np.float16), score, max(cosines))


def texts(*candidates: PassageCandidate, question: str = "", **limits: int) -> list[str]:
    return [sentence.text for sentence in select(QUESTION, candidates, question=question, **limits).sentences]


def test_the_nearest_sentence_is_chosen_and_far_ones_are_not():
    found = texts(passage("a", "Bread is baked at six. The oven was built in 1920. We sell stamps.", [0.8, 0.1, 0.1]))
    assert found == ["Bread is baked at six."]


def test_a_sentence_that_refers_back_brings_the_one_before():
    found = texts(
        passage("a", "The tower clock is wound daily. It stops after two days. Tea is served.", [0.3, 0.8, 0.0]),
        limit_sentences=2,
    )
    assert found == ["The tower clock is wound daily.", "It stops after two days."]


def test_a_sentence_that_announces_brings_the_one_after():
    found = texts(passage("a", "Bring the following:\nA towel and soap.\nDogs stay outside.", [0.8, 0.2, 0.2]), limit_sentences=2)
    assert found == ["Bring the following:", "A towel and soap."]


def test_a_sentence_is_quoted_once_though_two_pages_have_it():
    one = passage("a", "The pool opens at seven every day.", [0.8])
    assert texts(one, passage("b", "The pool opens at seven every day.", [0.79])) == ["The pool opens at seven every day."]


def test_the_word_budget_holds_but_the_best_sentence_stays_whole():
    long = "The key " + "very " * 40 + "old one is here."
    assert texts(passage("a", f"{long} The lock is new today.", [0.8, 0.79]), word_budget=20) == [long]
    short = passage("a", "The key is old. The lock is new. The door is red.", [0.8, 0.79, 0.78])
    assert len(texts(short, word_budget=8)) == 2


def test_words_of_the_question_decide_between_equals():
    candidate = passage("a", "Trams run hourly on weekends. Ferries run hourly on weekends.", [0.5, 0.5])
    assert texts(candidate, question="ferries at night", limit_sentences=1) == ["Ferries run hourly on weekends."]


def test_nothing_comes_of_nothing():
    selection = select(QUESTION, [], question="anything")
    assert selection.sentences == []
    assert set(selection.features.values()) <= {0.0, 0.1}  # the question's own length aside
    assert selection.features["best_cosine"] == 0.0


WORDS = ("It", "This", "bread", "oven", "key:", "opens", "closes", "daily.", "now?", "the", "and")
words = st.lists(st.sampled_from(WORDS), min_size=1, max_size=25)


@given(st.lists(st.tuples(words, st.floats(0.1, 1)), max_size=5), st.integers(1, 4), st.integers(5, 90), st.randoms())
def test_sentences_are_verbatim_few_and_in_reading_order(pages, limit, budget, random):
    candidates = []
    for number, (said, score) in enumerate(pages):
        text = " ".join(said)
        cosines = [random.uniform(-0.5, 0.95) for _ in split_sentences(text)]
        candidates.append(passage(f"p{number}", text, cosines, score))
    chosen = select(QUESTION, candidates, question="when does the oven open", limit_sentences=limit, word_budget=budget)
    by_name = {candidate.passage_id: candidate for candidate in candidates}
    assert bool(chosen.sentences) == bool(candidates)
    assert len(chosen.sentences) <= limit
    assert len({(each.passage_id, each.index) for each in chosen.sentences}) == len(chosen.sentences)
    if len(chosen.sentences) > 1:
        assert sum(len(each.text.split()) for each in chosen.sentences) <= budget
    places = [(each.passage_id, each.index) for each in chosen.sentences]
    for name in {name for name, _ in places}:
        mine = [index for other, index in places if other == name]
        assert mine == sorted(mine)
    for each in chosen.sentences:
        assert by_name[each.passage_id].text[each.start : each.end] == each.text
    assert all(np.isfinite(value) for value in chosen.features.values())


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_vectors_may_be_stored_small(kind):
    candidate = passage("a", "Bread is baked at six.", [0.8])
    smaller = PassageCandidate(
        "a", "Page", [], candidate.text, candidate.spans, candidate.vectors.astype(kind), candidate.score, candidate.cosine
    )
    assert select(QUESTION, [smaller], question="").features["best_cosine"] == pytest.approx(0.8, abs=0.002)


def test_where_the_first_says_all_that_was_asked_others_far_below_are_not_quoted():
    question = "when is bread baked"
    first = passage(
        "a", "Bread is baked at six in the morning. The mill was sold. It rains. Rolls sell well.", [0.8, 0.3, 0.2, 0.66]
    )
    second = passage("b", "The oven in the hall is heated with wood.", [0.7])
    found = texts(first, second, question=question)
    assert found[0] == "Bread is baked at six in the morning."
    assert "The oven in the hall is heated with wood." not in found
    # Where the question's words are not found, what stands fourth may hold the answer.
    assert "The oven in the hall is heated with wood." in texts(first, second, question="tell me about loaves")


CODE = "\n".join(
    [
        "server {",
        "    listen 443 ssl http2 default_server;",
        "    ssl_certificate /etc/letsencrypt/live/shop.example.org/fullchain.pem;",
        "    ssl_certificate_key /etc/letsencrypt/live/shop.example.org/privkey.pem;",
        "    location /widget/ { proxy_pass http://127.0.0.1:8420; proxy_buffering off; proxy_read_timeout 3600s; }",
        "    location /static/ { root /srv/www/shop/htdocs; expires 30d; add_header Cache-Control public; }",
        "    location / { try_files $uri $uri/ =404; error_page 404 /errors/404.html; access_log off; }",
        "}",
    ]
)  # fmt: skip


def code_passage(*spans: tuple[int, int], cosines: list[float], text: str = CODE) -> PassageCandidate:
    vectors = np.stack([vector(cosine, 5 + 3 * index) for index, cosine in enumerate(cosines)])
    return PassageCandidate("c", "nginx", [], text, spans, vectors.astype(np.float16), 1.0, max(cosines))


def test_of_a_long_block_of_code_the_lines_that_matter_are_quoted_whole():
    block = code_passage((0, len(CODE)), cosines=[0.8])
    [quoted] = select(QUESTION, [block], question="proxy_pass with proxy_buffering for the widget").sentences
    assert quoted.text == CODE[quoted.start : quoted.end] != CODE
    lines = [line.strip() for line in CODE.split("\n")]
    assert [line.strip() for line in quoted.text.split("\n")] in [
        lines[start:end] for start in range(len(lines)) for end in range(start + 1, len(lines) + 1)
    ]
    assert "proxy_pass http://127.0.0.1:8420;" in quoted.text


def test_a_block_of_code_leaves_room_for_the_sentence_that_explains_it():
    text = f"{CODE}\nThe widget needs a proxy that does not buffer and waits an hour for the next event."
    both = code_passage((0, len(CODE)), (len(CODE) + 1, len(text)), cosines=[0.8, 0.7], text=text)
    found = [sentence.text for sentence in select(QUESTION, [both], question="widget behind a proxy", word_budget=60).sentences]
    assert text[len(CODE) + 1 :] in found and len(found) == 2


def test_code_in_one_line_longer_than_the_budget_is_passed_over():
    blob = "export TOKEN=" + "/".join(f"a{number}=b{number};" for number in range(200))
    prose = passage("a", "The token is set in the environment.", [0.5])
    assert texts(code_passage((0, len(blob)), cosines=[0.9], text=blob), prose) == ["The token is set in the environment."]


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        (True, "$ apt update\n$ apt install nginx"),
        (True, "for (i = 0; i < 10; i++) {\n    total += list[i];\n}"),
        (True, "name: web\nports:\n  - 80:80\n  - 443:443"),
        (True, "curl -X POST https://api.example.org/v1/answers -H 'Authorization: Bearer $KEY'"),
        (False, "The file lies in /etc/retort/config.toml and is read once."),
        (False, "A first line of prose that ends here.\nA second one, which ends as well."),
        (False, "Bring a towel, soap and a lock"),
    ],
)
def test_code_is_told_from_prose(expected, text):
    assert is_code(text) is expected


lines_of = st.lists(st.sampled_from([*CODE.split("\n"), "", "   ", "x = 1", "é = {'a': [1, 2]}"]), min_size=1, max_size=12)


@given(lines_of, st.integers(1, 60), st.randoms())
def test_the_lines_that_matter_are_whole_and_fit(lines, room, random):
    text = "\n".join(lines)
    span = lines_that_matter(text, lambda _: random.random(), room)
    if span is None:
        return
    piece = text[span[0] : span[1]]
    assert size(piece) <= room and piece == piece.strip()
    assert {line.strip() for line in piece.split("\n") if line.strip()} <= {line.strip() for line in lines}


def read(candidate: PassageCandidate, passage: float, *sentences: float) -> PassageCandidate:
    """The same, as a reader has scored it, in log-odds."""
    return replace(candidate, reads=passage, sentence_reads=np.array(sentences, dtype=np.float32))


def test_what_the_reader_says_decides_between_equals():
    one, other = (passage(name, f"The {name} is open daily. The {name} is red.", [0.5, 0.5]) for name in ("mill", "pier"))
    assert texts(one, other, limit_sentences=1) == ["The mill is open daily."]
    read_pier = [read(one, -3, -3, -3), read(other, 3, -2, 4)]
    assert texts(*read_pier, limit_sentences=1) == ["The pier is red."]


def test_a_passage_that_was_not_read_counts_like_the_least_of_those_that_were_and_never_as_likely():
    one, other = passage("mill", "The mill is open daily.", [0.5]), passage("pier", "The pier is open daily.", [0.52])
    assert texts(read(one, 4, 4), other, limit_sentences=1) == ["The mill is open daily."]
    assert texts(read(one, -4, -4), other, limit_sentences=1) == ["The pier is open daily."]


def test_a_sentence_that_the_reader_had_no_room_for_is_no_better_and_no_worse_than_most():
    text = "The mill is old. The pier is red. The door is new."
    cut = read(passage("a", text, [0.5, 0.5, 0.5]), 2, -2, 3, float("nan"))
    assert texts(cut, limit_sentences=1) == ["The pier is red."]
    scores = {one.text: one.score for one in select(QUESTION, [cut], question="").sentences}
    assert (
        "The mill is old." not in scores or scores["The mill is old."] < scores["The door is new."] < scores["The pier is red."]
    )
    nothing = read(passage("a", text, [0.5, 0.6, 0.5]), 2, *[float("nan")] * 3)
    assert texts(nothing, limit_sentences=1) == ["The pier is red."]


def test_the_gate_hears_what_the_reader_says_only_where_one_has_read():
    plain = passage("mill", "The mill is open daily. The mill is red.", [0.5, 0.4])
    assert "reads" not in select(QUESTION, [plain], question="").features
    other = passage("pier", "The pier is open daily.", [0.5])
    features = select(QUESTION, [read(plain, 2.5, -1, 3), read(other, -4, -5), other], question="").features
    assert features["reads"] == 2.5 and features["sentence_reads"] == 3.0
    assert "reads" not in select(QUESTION, [], question="").features
