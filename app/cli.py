"""The command `retort`. Starts the other processes and the benchmarks as processes, and never imports them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import Annotated, NoReturn

try:
    import typer

    from app.config import SettingsError
    from app.embedded.errors import EmbeddedError
    from app.operate import ROOT, Problem
    from app.operate.output import Output
except ModuleNotFoundError as missing:
    sys.exit(f"retort: the environment is half built ({missing.name} is missing). Run `make up`, which completes it.")

app = typer.Typer(
    name="retort",
    help="A branded assistant that answers a website's visitors from its own content, with sources.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout; progress goes to stderr.")]


@app.command()
def up(
    port: Annotated[int | None, typer.Option(help="The first of five ports in a row (8460 to 8464 by default).")] = None,
) -> None:
    """Start everything on this machine, print where it is, and run until Ctrl-C."""
    from app.operate.up import up as run

    run(port, Output())


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check every part, and say what to do about what is wrong."""
    from app.operate.doctor import examine

    findings = []
    for finding in examine():
        findings.append(finding)
        if not as_json:
            mark = {True: "ok  ", False: "FAIL", None: "note"}[finding.good]
            typer.echo(f"{mark}  {finding.part:<14} {finding.text}")
    if as_json:
        typer.echo(json.dumps([{"part": f.part, "good": f.good, "text": f.text} for f in findings]))
    if any(finding.good is False for finding in findings):
        raise typer.Exit(1)


@app.command()
def migrate(revision: Annotated[str, typer.Option(help="Where to: head, base, or -1 for one step back.")] = "head") -> None:
    """Bring the database of RETORT_DATABASE_URL to this release's schema (`retort up` does it by itself)."""
    import psycopg
    from alembic.util.exc import CommandError

    from app.config import Settings
    from app.db.migrate import migrate as run

    settings = Settings.load()
    if not settings.admin_database_url:
        raise Problem("RETORT_ADMIN_DATABASE_URL is not set: migrating needs a superuser's URL (roles, extension, tables).")
    try:
        run(settings.admin_database_url, settings.database_url, revision)
    except (psycopg.Error, CommandError, ValueError) as error:
        raise Problem(f"The database cannot be migrated: {' '.join(str(error).split())}") from error
    typer.echo(f"The database is at {revision}.")


@app.command()
def add(
    url: Annotated[str, typer.Argument(help="The website's address, such as https://docs.example.org/")],
    assistant: Annotated[str, typer.Option(help="Slug of the assistant that shall answer from it; made if there is none.")],
    wait: Annotated[bool, typer.Option("--wait", help="Watch until it is read, page by page.")] = False,
    as_json: Json = False,
    title: Annotated[str | None, typer.Option(help="What the source is called in the dashboard.")] = None,
    allow_private: Annotated[
        bool, typer.Option("--allow-private", help="Let this machine's Retort read this host and port though it is private.")
    ] = False,
) -> None:
    """Add a website to an assistant, or have it read again."""
    from app.operate.add import add_source_making_assistant, follow_source, page_row
    from app.operate.client import connect

    output = Output(error=as_json)
    pages: list[dict] = []

    def on_page(page: dict) -> None:
        pages.append(page_row(page))
        what = f"{page['passages']} passages" if page["status"] in ("read", "unchanged") else (page["reason"] or "")
        output.line(f"{page['status']:<9} {page['url']}  {what}".rstrip())

    if allow_private:
        from app.operate.local import admit

        admit(url)
    with connect() as api:
        source = add_source_making_assistant(
            api, url, assistant, title, on_made=lambda name: output.line(f"Made the assistant “{name}” ({assistant}).")
        )
        if wait:
            source = follow_source(api, source["id"], on_page=on_page)
    counts = source["counts"]
    if as_json:
        names = ("id", "url", "title", "status", "reason", "counts", "started_at", "finished_at")
        typer.echo(json.dumps({**{name: source.get(name) for name in names}, "pages": pages}, ensure_ascii=False))
    elif wait:
        output.line(
            f"{source['status']}: {counts['read']} pages read, {counts['unchanged']} unchanged, {counts['skipped']} skipped, "
            f"{counts['failed']} failed, {counts['passages']} passages"
        )
    else:
        output.line(f"{source['url']} is being read; watch it with --wait or in the dashboard.")
    if source["status"] == "failed":
        raise Problem(source["reason"] or "The source could not be read.")


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="The question, in quotes.")],
    assistant: Annotated[str, typer.Option(help="Slug of the assistant.")] = "guide",
    conversation: Annotated[str | None, typer.Option(help="Go on with this conversation (its id).")] = None,
    as_json: Json = False,
) -> None:
    """Ask an assistant, and read its answer as it comes."""
    from app.operate.ask import ask as run
    from app.operate.client import connect

    def on_evidence(evidence: list[dict]) -> None:
        if not as_json:
            for quote in evidence:
                typer.echo(f"> {' '.join(quote['text'].split())}\n  {quote['title']} — {quote['url']}")

    def on_sentence(_index: int, text: str) -> None:
        if not as_json:
            typer.echo(text)

    with connect() as api:
        answer = run(
            api, question, assistant=assistant, conversation=conversation, on_evidence=on_evidence, on_sentence=on_sentence
        )
    if as_json:
        typer.echo(json.dumps(answer.as_json(), ensure_ascii=False))
        return
    if not answer.sentences and not answer.evidence:
        typer.echo(answer.message["wording"])
        for page in answer.message.get("nearest") or []:
            typer.echo(f"  {page['title']} — {page['url']}")
    typer.echo(f"(conversation {answer.conversation_id}, {answer.total_ms / 1000:.1f} s)")


Email = Annotated[str, typer.Argument(help="The member's e-mail address.")]


@app.command()
def owner(
    email: Email,
    assistant: Annotated[str | None, typer.Option(help="What the workspace's first assistant is called.")] = None,
    slug: Annotated[str | None, typer.Option(help="Its short name in addresses; made from its name by default.")] = None,
) -> None:
    """Print a one-time sign-in for a member; an unknown address becomes the owner of a new workspace with an assistant."""
    import asyncio

    from app.operate.local import settings_here
    from app.operate.people import sign_in

    address, created, made = asyncio.run(sign_in(settings_here(), email, assistant, slug))
    if made:
        typer.echo(f"The workspace has an assistant now; its slug is {made}.")
    typer.echo(f"{'A workspace was made for' if created else 'Sign-in for'} {email}, good once, for 24 hours:")
    typer.echo(address)


key = typer.Typer(help="Make, list and revoke the API keys of a member's workspace.", no_args_is_help=True)
app.add_typer(key, name="key")


@key.command("create")
def create_key(
    email: Email,
    name: Annotated[str, typer.Option(help="What the key is for.")] = "made by retort key",
    scope: Annotated[
        list[str] | None, typer.Option(help="read, ask or write; several by repeating. All three by default.")
    ] = None,
) -> None:
    """Print a new key that acts for this member. It is shown this once: put it into RETORT_API_KEY."""
    import asyncio

    from app.operate import people
    from app.operate.local import settings_here

    typer.echo(asyncio.run(people.create_key(settings_here(), email, name, scope or ["read", "ask", "write"])))


@key.command("list")
def list_keys(email: Email, as_json: Json = False) -> None:
    """Print the keys in use, without their secrets."""
    import asyncio

    from app.operate import people
    from app.operate.local import settings_here

    keys = asyncio.run(people.list_keys(settings_here(), email))
    if as_json:
        typer.echo(json.dumps(keys, ensure_ascii=False))
        return
    for one in keys:
        used = str(one["last_used_at"] or "never")[:16]
        typer.echo(f"{one['prefix']}…  {one['member']}  {','.join(one['scopes'])}  last used {used}  {one['name']}")


@key.command("revoke")
def revoke_key(email: Email, which: Annotated[str, typer.Argument(help="The key's prefix (rk_…) or id.")]) -> None:
    """End a key at once, and for good."""
    import asyncio

    from app.operate import people
    from app.operate.local import settings_here

    name = asyncio.run(people.revoke_key(settings_here(), email, which.rstrip("…")))
    typer.echo(f"Revoked: {name}")


@app.command(hidden=True)
def alive(kind: Annotated[str, typer.Argument(help="web, generator, worker-io, worker-models or beat.")]) -> None:
    """Exit with 0 while a process of this kind on this host gives signs of life (for health checks)."""
    from app.operate.local import is_alive, settings_here

    if not is_alive(settings_here(), kind):
        raise Problem(f"No {kind} on this host has given a sign of life for 15 s.")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def bench(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Which benchmark, such as answer.")],
    as_json: Json = False,
    quick: Annotated[bool, typer.Option("--quick", help="The same comparison, smaller, within 50 s.")] = False,
) -> None:
    """Run a benchmark, and print its table."""
    known = sorted(p.stem for p in (ROOT / "benchmarks").glob("*.py") if not p.stem.startswith("_"))
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name not in known:
        raise Problem(f"There is no benchmark {name!r}; there are: {', '.join(known) or 'none'}.")
    flags = [flag for flag, given in (("--json", as_json), ("--quick", quick)) if given]
    done = subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *flags, *context.args], cwd=ROOT, env=os.environ)
    raise typer.Exit(done.returncode)


@app.command(name="eval", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def evaluate(
    context: typer.Context,
    labelled: Annotated[str, typer.Option("--set", metavar="FILE", help="The questions with what is right: docs/evaluate.md.")],
    assistant: Annotated[str | None, typer.Option(help="Slug or id of the assistant that is asked; guide by default.")] = None,
    content: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Instead: a website or a folder of pages, read for this run alone.")
    ] = None,
    details: Annotated[str | None, typer.Option(metavar="FILE", help="Write every question with its answer there.")] = None,
    as_json: Json = False,
    quick: Annotated[bool, typer.Option("--quick", help="15 questions of the set, evenly taken.")] = False,
) -> None:
    """Put a labelled set of questions to the whole product, and print what its answers are worth."""
    given = {"--set": labelled, "--assistant": assistant, "--content": content, "--details": details}
    options = [part for name, value in given.items() if value is not None for part in (name, value)]
    flags = [flag for flag, wanted in (("--quick", quick), ("--json", as_json)) if wanted]
    command = [sys.executable, "-m", "benchmarks.report_card", "eval", *options, *flags, *context.args]
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths})
    raise typer.Exit(done.returncode)


def fail(message: str) -> NoReturn:
    """One line on stderr, and exit code 1."""
    print(f"retort: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(1)


def _check_arguments() -> None:
    """The system hands over bytes; those that are no UTF-8 arrive as half characters, which nothing behind here can take."""
    for argument in sys.argv[1:]:
        try:
            argument.encode()
        except UnicodeEncodeError:
            fail(f"{os.fsencode(argument)!r} is not text in UTF-8; write it again in a terminal that uses UTF-8.")


def main() -> None:
    """The command line: whatever a person can mend is one line on stderr and exit code 1."""
    _check_arguments()
    try:
        app()
    except (Problem, EmbeddedError, SettingsError) as problem:
        fail(str(problem))
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
