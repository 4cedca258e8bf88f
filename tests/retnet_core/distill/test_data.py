"""`data`: from packages and folders of every format to exactly the passages a reader would understand."""

import json
import lzma
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from retnet_core.distill.__main__ import main
from retnet_core.distill.blocks import Block, Page
from retnet_core.distill.data import CONFIGURATION, passages_in
from retnet_core.distill.manual import installed
from retnet_core.distill.markup import read_html
from retnet_core.distill.passages import MAX_TOKENS, MIN_TOKENS, passages_of
from retnet_core.distill.plain import read_text
from retnet_core.distill.source_list import DataConfig

WATER = (
    "The pump fills the tank in about ten minutes, and it stops by itself when the upper float rises. Do not open the lid before the "
    "green lamp is lit, because the water in the tank may still be under pressure and can splash out. If the lamp stays dark for "
    "longer than that, switch the pump off and look at the hose."
)
FILTER = (
    "Take the filter out once a week and rinse it under warm water until no more sand comes out of it. A filter that has turned brown "
    "can no longer be cleaned: order a new one from your dealer, and name the number that is printed on its rim. Without a filter "
    "the pump must not be used at all."
)
HOURS = (
    "The workshop is open from Monday to Friday, and on the first Saturday of each month. You can bring a machine without an appointment, "
    "but it takes at least two days until you may fetch it, and three if a part has to be ordered. Ring the bell at the back door "
    "when nobody is in the shop."
)

HTML = f"""<html><head><title>Care - Pump handbook</title></head><body>
<div class="navheader"><a href="a.html">Prev</a> <a href="b.html">Next</a></div>
<ul class="menu"><li><a href="1">Start</a></li><li><a href="2">Care</a></li><li><a href="3">Parts</a></li><li><a href="4">Index</a></li></ul>
<main><h1>Care</h1><h2>3.1 Filter<a class="headerlink" href="#f">¶</a></h2><p>{FILTER}</p>
<h2>Messages</h2><p>The panel shows one of these messages when something is wrong with the pump, and each of them has a cause and a cure:</p>
<table><tr><th>Message</th><th>Cause</th><th>What to do</th></tr>
<tr><td>E1</td><td>The tank is empty</td><td>Open the tap and press the green key</td></tr>
<tr><td>E2</td><td>The lid is open</td><td>Close it until it clicks</td></tr>
<tr><td>E3</td><td>The pump is too hot</td><td>Wait for half an hour before you start it again</td></tr></table>
<h2>Licence</h2><p>{HOURS}</p></main><div class="footer">Pump works</div></body></html>"""

DOCBOOK = f"""<?xml version="1.0"?><!DOCTYPE book PUBLIC "-//KDE//DTD DocBook XML V4.5-Based Variant V1.1//EN" "dtd/kdedbx45.dtd" [
<!ENTITY pumpview "<application>PumpView</application>"><!ENTITY care SYSTEM "care.docbook">]>
<book id="pumpview"><bookinfo><title>The &pumpview; Handbook</title><author><surname>Nobody</surname></author></bookinfo>
<chapter id="start"><title>First steps</title><para>{WATER} Choose <menuchoice><guimenu>File</guimenu><guimenuitem>Save</guimenuitem></menuchoice>
or press <keycombo><keycap>Ctrl</keycap><keycap>S</keycap></keycombo> in &pumpview; &mdash; see <xref linkend="care"/>.</para>
<indexterm><primary>water</primary></indexterm></chapter>&care;</book>"""
CARE = f"""<chapter id="care"><title>Care</title><sect1><title>Keys</title><variablelist>
<varlistentry><term>Green</term><listitem><para>{FILTER}</para></listitem></varlistentry></variablelist></sect1></chapter>"""

MALLARD = f"""<page xmlns="http://projectmallard.org/1.0/" type="topic" id="open"><info><link type="guide" xref="index"/></info>
<title>Opening hours</title><p>{HOURS} Press <guiseq><gui>View</gui><gui>Hours</gui></guiseq>.</p></page>"""

TEXT = f"""Pump
====

Water
-----

{WATER}

* {HOURS}

Example::

    pump --start
    pump --stop
"""

MANUAL = f""".TH PUMP 1 2026-01-01
.SH NAME
pump \\- fill a tank
.SH OPTIONS
.TP
.B \\-f
{FILTER}
.SH AUTHORS
{HOURS}
"""

INFO = f"""This is pump.info, produced by makeinfo.

\x1f
File: pump.info,  Node: Water,  Next: Filter,  Prev: Top,  Up: Top

2 Water
*******

{WATER}

* Menu:

* Filter::      How to clean it.

\x1f
File: pump.info,  Node: Filter,  Prev: Water,  Up: Top

2.1 Cleaning
============

{FILTER}  *Note Water:: has more.
"""

POD = f"""=head1 NAME

Pump - fills a tank

=head1 USAGE

Call C<< $pump->fill >> once. {WATER}

=cut
"""


def deb(folder: Path, name: str, files: dict[str, str], licence: str = "GPL-2+") -> Path:
    """A package with these files."""
    root = folder / "trees" / name
    tree = {**files, f"usr/share/doc/{name}/copyright": f"Format: https://example.org/\n\nFiles: *\nLicense: {licence}\n"}
    for path, text in tree.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    (root / "DEBIAN").mkdir()
    (root / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: 1.2-3\nArchitecture: all\nMaintainer: Nobody <nobody@example.org>\nDescription: a test\n"
    )
    debs = folder / "debs"
    debs.mkdir(exist_ok=True)
    built = debs / f"{name}_1.2-3_all.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", root, built], check=True, capture_output=True)
    return built


def config(folder: Path, *packages: str, more: str = "") -> Path:
    path = folder / "data.toml"
    path.write_text(f"seed = 1\n[[group]]\nlimit = 100\npackages = {json.dumps(list(packages))}\n{more}")
    return path


def gather(folder: Path, written: Path, *more: str) -> int:
    out = folder / "passages.jsonl.xz"
    given = [
        "data",
        "--config",
        str(written),
        "--work",
        str(folder / "work"),
        "--debs",
        str(folder / "debs"),
        "--out",
        str(out),
        *more,
    ]
    return main(given if "--online" in more else [*given, "--offline"])


def made(folder: Path) -> list[dict]:
    return list(passages_in(folder / "passages.jsonl.xz"))


def summary(folder: Path) -> dict:
    return json.loads((folder / "passages.json").read_text())


def test_a_page_is_cut_at_its_headings_without_its_furniture(tmp_path):
    deb(tmp_path, "pump-doc", {"usr/share/doc/pump-doc/html/care.html": HTML})
    assert gather(tmp_path, config(tmp_path, "pump-doc")) == 0
    filters, messages = made(tmp_path)
    assert (filters["title"], filters["text"]) == ("Care - Filter", FILTER)
    assert messages["title"] == "Care - Messages"
    assert messages["text"].split("\n") == [
        "The panel shows one of these messages when something is wrong with the pump, and each of them has a cause and a cure:",
        "E1: Cause: The tank is empty; What to do: Open the tap and press the green key",
        "E2: Cause: The lid is open; What to do: Close it until it clicks",
        "E3: Cause: The pump is too hot; What to do: Wait for half an hour before you start it again",
    ]
    assert (filters["place"], messages["place"]) == (1, 2)
    assert filters.keys() == {"id", "package", "licence", "document", "place", "title", "text"}
    assert (filters["package"], filters["licence"]) == ("pump-doc", "GPL-2+")
    assert summary(tmp_path)["packages"]["pump-doc"]["dropped"]["licence, credits or index"] == 1


def test_lines_that_lead_to_other_pages_are_no_text(tmp_path):
    links = "".join(f'<li><a href="{n}.html">Page {n} of this handbook</a></li>' for n in range(3))
    (tmp_path / "site").mkdir()
    (tmp_path / "site/a.html").write_text(
        f"<title>Water (Pump)</title><div class='header'><p>Next: <a href='b.html'>Filter</a>, Up: <a href='i.html'>Top</a> "
        f"[<a href='i.html'>Contents</a>]</p></div><h2 class='chapter'>2 Water</h2><p>Next: <a href='b.html'>Filter</a></p>"
        f"<p>{WATER} <a class='viewcode-link' href='s.html'>[source]</a></p><p>Figure 2.1. The tank</p><ul>{links}</ul>"
    )
    more = '[[folder]]\nname = "site"\npath = "site"\nlicence = "CC0-1.0"\nlimit = 50\n'
    assert gather(tmp_path, config(tmp_path, more=more)) == 0
    assert [(one["title"], one["text"]) for one in made(tmp_path)] == [("Water (Pump) - 2 Water", WATER)]


def test_a_handbook_includes_its_chapters_and_reads_tables_by_their_headings(tmp_path):
    folder = "usr/share/help/C/pump/"
    book = """<book xmlns="http://docbook.org/ns/docbook" xmlns:xi="http://www.w3.org/2001/XInclude"><title>Pump</title>
    <xi:include href="keys.xml"/></book>"""
    rows = "".join(
        f"<row><entry>{key}</entry><entry>{does}</entry><entry>{when}</entry></row>"
        for key, does, when in (
            ("Green", "Starts the pump", "The lid is closed"),
            ("Red", "Stops it", "At any time"),
            ("Blue", "Rinses it", "Full"),
        )
    )
    keys = f"""<chapter xmlns="http://docbook.org/ns/docbook"><title>Keys</title><para>{WATER}</para><informaltable><tgroup cols="3"><thead>
    <row><entry>Key</entry><entry>Does</entry><entry>When</entry></row></thead><tbody>{rows}</tbody></tgroup></informaltable></chapter>"""
    deb(tmp_path, "pump", {folder + "index.docbook": book, folder + "keys.xml": keys})
    assert gather(tmp_path, config(tmp_path, "pump")) == 0
    assert [(one["title"], one["text"].split("\n")) for one in made(tmp_path)] == [
        (
            "Pump - Keys",
            [
                WATER,
                "Green: Does: Starts the pump; When: The lid is closed",
                "Red: Does: Stops it; When: At any time",
                "Blue: Does: Rinses it; When: Full",
            ],
        )
    ]


def test_a_handbook_keeps_its_names_menus_and_references(tmp_path):
    folder = "usr/share/doc/HTML/en/pumpview/"
    deb(
        tmp_path,
        "pumpview",
        {
            folder + "index.docbook": DOCBOOK,
            folder + "care.docbook": CARE,
            "usr/share/doc/HTML/de/pumpview/index.docbook": DOCBOOK,
        },
    )
    assert gather(tmp_path, config(tmp_path, "pumpview")) == 0
    start, care = sorted(made(tmp_path), key=lambda one: one["title"], reverse=True)
    assert start["title"] == "The PumpView Handbook - First steps"
    assert start["text"] == f"{WATER} Choose File → Save or press Ctrl+S in PumpView — see Care."
    assert (care["title"], care["text"]) == ("Care - Keys", f"Green: {FILTER}")


@pytest.mark.parametrize(
    "path, text, expected",
    [
        ("usr/share/help/C/pump/open.page", MALLARD, [("Opening hours", f"{HOURS} Press View → Hours.")]),
        ("usr/share/doc/pump/pump.txt", TEXT, [("Pump - Water", f"{WATER}\n{HOURS}\nExample:\npump --start\npump --stop")]),
        ("usr/share/doc/pump/pump.md", f"# Pump\n\n## Water\n\n{WATER}\n\n- {HOURS}\n", [("Pump - Water", f"{WATER}\n{HOURS}")]),
        ("usr/share/info/pump.info", INFO, [("Water", WATER), ("Water - Cleaning", f"{FILTER} Water has more.")]),
        ("usr/share/perl/Pump.pod", POD, [("Pump - Usage", f"Call $pump->fill once. {WATER}")]),
        pytest.param(
            "usr/share/man/man1/pump.1", MANUAL, [("pump(1) - Options", f"-f: {FILTER}")],
            marks=pytest.mark.skipif(not installed(), reason="groff sets manual pages"),
        ),
    ],
)  # fmt: skip
def test_every_format_gives_the_same_words(tmp_path, path, text, expected):
    deb(tmp_path, "pump", {path: text})
    assert gather(tmp_path, config(tmp_path, "pump")) == 0
    assert [(one["title"], one["text"]) for one in made(tmp_path)] == expected


def test_a_long_section_becomes_passages_of_like_size_that_lose_nothing():
    said = [
        f"{n + 1} times: {one.removesuffix('.')}."
        for n in range(6)
        for text in (WATER, FILTER, HOURS)
        for one in text.split(". ")
    ]
    (page,) = read_html(f"<title>Lamps</title><h1>Lamps</h1><p>{' '.join(said)}</p>", "lamps.html")
    dropped: Counter[str] = Counter()
    found = list(passages_of(page, "lamps", "html", dropped))
    assert not dropped
    assert " ".join(one.text for one in found) == " ".join(said)
    assert [one.place for one in found] == list(range(1, len(found) + 1))
    assert all(MIN_TOKENS <= one.tokens <= MAX_TOKENS for one in found)
    assert max(one.tokens for one in found) < 1.5 * min(one.tokens for one in found)


def test_short_lines_prompts_and_ruled_columns_of_a_text_stay_lines():
    states, prompt, table = "LidOpen\nLidClosed\nLidLocked", "$ pump --start\nfilling", "Key    Does\n~~~~   ~~~~\nGreen  Start"
    text = "\n\n".join(("Pump\n====", "_Mind_ the lid of the tank while it is open.", states, prompt, table, WATER))
    (page,) = read_text(text, "pump.txt")
    assert [(block.kind, block.text) for block in page.blocks] == [
        ("paragraph", "Mind the lid of the tank while it is open."),
        ("item", "LidOpen"),
        ("item", "LidClosed"),
        ("item", "LidLocked"),
        ("code", prompt),
        ("code", table),
        ("paragraph", WATER),
    ]


def test_a_folder_of_an_owner_is_read_beside_the_packages(tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site/hours.html").write_text(f"<title>Hours</title><h1>Hours</h1><p>{HOURS}</p>")
    (tmp_path / "site/water.md").write_text(f"# Water\n\n{WATER}\n")
    more = '[[folder]]\nname = "our-site"\npath = "site"\nlicence = "CC0-1.0"\nlimit = 50\n'
    assert gather(tmp_path, config(tmp_path, more=more)) == 0
    assert [(one["package"], one["licence"], one["document"]) for one in made(tmp_path)] == [
        ("our-site", "CC0-1.0", "hours.html"),
        ("our-site", "CC0-1.0", "water.md"),
    ]


@pytest.mark.parametrize(
    "flaw, blocks",
    [
        ("code", [("paragraph", "Call it like this:"), ("code", "x = pump.fill(tank, 10, 20)\n" * 12)]),
        ("links", [("linked", f"The page that says how part {n} is changed.") for n in range(10)]),
        ("licence, credits or index", [("paragraph", f"{WATER} Copyright 2026 Pump works.")]),
        (
            "no sentences",
            [("paragraph", "Lamp hose valve spring filter lid tank motor switch cable. " * 4 + "Red green blue. " * 8)],
        ),
        ("signs or another language", [("paragraph", "Größe für Übungen: öffnen Sie die Tür, schließen Sie das Fenster. " * 6)]),
        ("unresolved markup", [("paragraph", f"{WATER} Press &foo; and \\fBgo\\fR.")]),
        ("begins inside a sentence", [("paragraph", f"and then it stops. {WATER}")]),
        ("short", [("paragraph", "Open the tap.")]),
        ("furniture", [("paragraph", f"Next: Filter, Up: Top. Mail us@pumps.com. {WATER}")]),
    ],
)
def test_what_a_reader_could_not_use_is_dropped_and_counted(flaw, blocks):
    made_of = [Block("paragraph" if kind == "linked" else kind, text, (), kind == "linked") for kind, text in blocks]
    dropped: Counter[str] = Counter()
    assert list(passages_of(Page("a.html", "Pump", made_of), "pump", "html", dropped)) == []
    assert dropped == {flaw: 1}


def test_what_another_package_says_too_is_kept_once_and_never_trained_on_when_it_is_measured_on(tmp_path):
    page = "<title>{}</title><h1>{}</h1><p>{}</p>"
    deb(
        tmp_path,
        "pump-doc",
        {
            "usr/share/doc/pump-doc/a.html": page.format("A", "A", WATER),
            "usr/share/doc/pump-doc/b.html": page.format("B", "B", HOURS),
        },
    )
    nearly = HOURS.replace("first Saturday", "second Saturday")
    deb(tmp_path, "kmail", {"usr/share/doc/kmail/c.html": page.format("C", "C", WATER + " Then it rests.")})
    deb(tmp_path, "other", {"usr/share/doc/other/d.html": page.format("D", "D", nearly)})
    assert gather(tmp_path, config(tmp_path, "pump-doc", "other", "kmail")) == 0
    assert [(one["package"], one.get("split")) for one in made(tmp_path)] == [("kmail", "dev"), ("pump-doc", None)]
    counts = summary(tmp_path)
    assert (counts["train"], counts["dev"]) == (1, 1)
    assert counts["packages"]["other"]["dropped"] == {"like another": 1, "over the limit": 0}
    assert counts["packages"]["pump-doc"]["version"] == "1.2-3"


@pytest.mark.parametrize("name", ["debian-faq", "gnome-user-docs", "doc-debian", "debian-refcard", "debian-faq-de"])
def test_a_package_that_is_held_out_is_refused(tmp_path, capsys, name):
    assert gather(tmp_path, config(tmp_path, name)) == 1
    assert "held out for the final report" in capsys.readouterr().err


def test_pages_that_are_held_out_are_not_read_from_other_packages(tmp_path):
    page = f"<title>Q</title><h1>Q</h1><p>{WATER}</p>"
    held_out = [
        "usr/share/perl/5.36/pod/perlfaq3.pod",
        "usr/share/doc/python3.11/html/faq/general.html",
        "usr/share/doc/debian-faq/ch1.html",
    ]
    held_out += ["usr/share/help/C/gnome-help/a.page", "usr/share/doc/release-notes/amd64/b.html"]
    texts = {path: POD if path.endswith(".pod") else MALLARD if path.endswith(".page") else page for path in held_out}
    deb(tmp_path, "pump", {**texts, "usr/share/doc/pump/hours.html": f"<title>H</title><h1>H</h1><p>{HOURS}</p>"})
    assert gather(tmp_path, config(tmp_path, "pump")) == 0
    assert [one["text"] for one in made(tmp_path)] == [HOURS]


def test_the_shipped_configuration_measures_on_what_it_does_not_train_on():
    shipped = DataConfig.read(CONFIGURATION)
    assert {source.name for source in shipped.sources if source.split == "dev"} == {
        "debian-handbook",
        "postgresql-doc-15",
        "kmail",
    }
    assert len(shipped.sources) > 500


def test_a_killed_call_goes_on_where_it_was(tmp_path):
    names = [f"pump{n}" for n in range(12)]
    for n, name in enumerate(names):
        deb(
            tmp_path,
            name,
            {
                f"usr/share/doc/{name}/a.html": f"<title>{name}</title><h1>{name}</h1><p>Machine {n}. {n} {WATER}{' ' + HOURS * n}</p>"
            },
        )
    written = config(tmp_path, *names)
    command = [
        sys.executable,
        "-m",
        "retnet_core.distill",
        "data",
        "--offline",
        "--processes",
        "2",
        "--config",
        written,
        "--work",
        tmp_path / "work",
    ]
    command += ["--debs", tmp_path / "debs", "--out", tmp_path / "passages.jsonl.xz"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert running.stdout is not None
    for line in running.stdout:
        if line.startswith("[3/12]"):
            break
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    running.stdout.close()
    assert not (tmp_path / "passages.jsonl.xz").exists()
    finished = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "work/read").glob("*.jsonl.xz")}
    assert 3 <= len(finished) < 12
    deadline = time.monotonic() + 20  # its workers leave as well
    while time.monotonic() < deadline and subprocess.run(["pgrep", "-g", str(running.pid)], capture_output=True).returncode == 0:
        time.sleep(0.1)
    assert subprocess.run(["pgrep", "-g", str(running.pid)], capture_output=True).returncode == 1
    finished = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "work/read").glob("*.jsonl.xz")}
    assert gather(tmp_path, written) == 0
    assert {name: (tmp_path / "work/read" / name).stat().st_mtime_ns for name in finished} == finished
    whole = made(tmp_path)
    assert gather(tmp_path, written) == 0
    assert made(tmp_path) == whole
    assert {one["package"] for one in whole} <= set(names) and len(whole) > 0


def test_a_damaged_package_is_named_and_the_others_are_read(tmp_path, capsys):
    whole = deb(tmp_path, "pump", {"usr/share/doc/pump/hours.html": f"<title>H</title><h1>H</h1><p>{HOURS}</p>"})
    (tmp_path / "debs/broken_1_all.deb").write_bytes(whole.read_bytes()[:300])
    assert gather(tmp_path, config(tmp_path, "broken", "pump")) == 0
    assert "broken_1_all.deb is damaged" in capsys.readouterr().out
    assert summary(tmp_path)["failed"].keys() == {"broken"}
    assert len(made(tmp_path)) == 1


def test_a_damaged_file_within_a_package_is_counted_and_left_out(tmp_path):
    files = {"usr/share/doc/pump/hours.html": f"<title>H</title><h1>H</h1><p>{HOURS}</p>"}
    deb(tmp_path, "pump", {**files, "usr/share/doc/pump/a.docbook": "<book><para>", "usr/share/doc/pump/b.txt.gz": "no gzip"})
    assert gather(tmp_path, config(tmp_path, "pump")) == 0
    assert summary(tmp_path)["packages"]["pump"]["unread_files"] == 2


@pytest.mark.parametrize(
    "written, said",
    [
        ("seed = 1\n", "names no packages"),
        ("groups = 1\n", "unknown: groups"),
        ('[[group]]\nlimit = 1\npackages = ["a", "a"]\n', "names a twice"),
        ('[[group]]\npackages = ["a"]\n', "a group needs limit"),
        ("seed = \n", "can't be read"),
    ],
)
def test_a_wrong_configuration_is_one_line(tmp_path, capsys, written, said):
    (tmp_path / "data.toml").write_text(written)
    (tmp_path / "debs").mkdir()
    assert gather(tmp_path, tmp_path / "data.toml") == 1
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_without_apt_or_packages_the_call_says_what_to_do(tmp_path, capsys, monkeypatch):
    (tmp_path / "debs").mkdir()
    assert gather(tmp_path, config(tmp_path, "pump")) == 1
    assert "has no .deb files" in capsys.readouterr().err
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    out = tmp_path / "passages.jsonl"
    given = [
        "data",
        "--config",
        str(config(tmp_path, "pump")),
        "--work",
        str(tmp_path / "work"),
        "--debs",
        str(tmp_path / "debs"),
    ]
    assert main([*given, "--out", str(out)]) == 1
    assert "there is no apt-get here" in capsys.readouterr().out


def test_an_empty_folder_is_an_error_that_names_it(tmp_path, capsys):
    (tmp_path / "site").mkdir()
    more = '[[folder]]\nname = "site"\npath = "site"\nlicence = "CC0-1.0"\nlimit = 50\n'
    assert gather(tmp_path, config(tmp_path, more=more)) == 1
    assert "site holds no documentation" in capsys.readouterr().err


def test_a_limit_keeps_runs_of_neighbours(tmp_path):
    subjects = ["lamp", "valve", "hose", "cover", "spring", "handle", "filter", "lid", "tank", "motor", "switch", "cable"]

    def about(one: str, part: int) -> str:
        """No run of six words that another part has too."""
        marks = (f"{one}{chr(97 + part)}{chr(97 + n % 26)}" for n in range(100))
        return " ".join(f"{word} {next(marks)}" if n % 4 == 0 else word for n, word in enumerate(HOURS.split()))

    files = {
        f"usr/share/doc/pump/{one}.html": f"<title>{one}</title><h1>{one}</h1>"
        + "".join(f"<h2>Part {part} of the {one}</h2><p>{about(one, part)}</p>" for part in range(4))
        for one in subjects
    }
    deb(tmp_path, "pump", files)
    path = config(tmp_path, "pump")
    path.write_text(path.read_text().replace("limit = 100", "limit = 8"))
    assert gather(tmp_path, path) == 0
    found = made(tmp_path)
    assert len(found) == 8
    places: dict[str, list[int]] = {}
    for one in found:
        places.setdefault(one["document"], []).append(one["place"])
    assert all(at == list(range(at[0], at[0] + len(at))) for at in places.values())
    with lzma.open(tmp_path / "passages.jsonl.xz") as file:
        first = file.read()
    assert gather(tmp_path, path) == 0
    with lzma.open(tmp_path / "passages.jsonl.xz") as file:
        assert file.read() == first
