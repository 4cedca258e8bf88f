"""Events reach a reader once each, in order, whatever happens to the line."""

from __future__ import annotations

import asyncio
import time
from uuid import UUID

from app import redis as keys
from app.conversations import events
from app.conversations.models import Message
from tests.api.conftest import finish, problem, read_events, until


def path(asker) -> str:
    return f"/widget/v1/conversations/{asker.conversation}/events"


async def collect(asker, last: str | None = None, **options) -> list[dict]:
    headers = {**asker.auth, **({"last-event-id": last} if last else {})}
    async with asyncio.timeout(8), asker.client.stream("GET", path(asker), headers=headers, **options) as response:
        assert response.status_code == 200 and response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"].startswith("no-cache") and response.headers["x-accel-buffering"] == "no"
        return [event async for event in read_events(response)]


async def publish_sentences(bus, asker, answer_id: str, count: int) -> list[str]:
    return [
        await events.publish(
            bus, UUID(asker.conversation), "sentence", {"message_id": answer_id, "index": n, "text": f"Sentence {n}."}
        )
        for n in range(count)
    ]


async def test_a_reader_without_id_gets_a_snapshot_then_what_follows_then_the_end(asker, bus, db, tenant):
    answer = (await asker.ask("Follow me")).json()["answer"]
    reading = asyncio.create_task(collect(asker))
    await asyncio.sleep(0.3)
    ids = await publish_sentences(bus, asker, answer["id"], 3)
    done = await finish(db, bus, tenant.workspace_id, answer["id"])
    seen = await reading
    assert [e["event"] for e in seen] == ["snapshot", "sentence", "sentence", "sentence", "done"]
    assert [e["id"] for e in seen[1:4]] == ids
    assert [m["id"] for m in seen[0]["data"]["messages"]][1] == answer["id"]
    assert seen[-1]["data"]["message"] == done


async def test_an_event_arrives_within_a_moment(asker, bus, db, tenant):
    answer = (await asker.ask("Quick")).json()["answer"]
    async with asyncio.timeout(5), asker.client.stream("GET", path(asker), headers=asker.auth) as response:
        stream = read_events(response)
        assert (await anext(stream))["event"] == "snapshot"
        await asyncio.sleep(0.2)
        published = time.perf_counter()
        await publish_sentences(bus, asker, answer["id"], 1)
        assert (await anext(stream))["event"] == "sentence"
        assert time.perf_counter() - published < 0.25


async def test_resuming_has_no_gap_and_no_duplicate(asker, bus, db, tenant):
    answer = (await asker.ask("Resume me")).json()["answer"]
    ids = await publish_sentences(bus, asker, answer["id"], 6)
    for cut in (0, 2, 5):
        reading = asyncio.create_task(collect(asker, ids[cut]))
        await asyncio.sleep(0.2)
        more = await publish_sentences(bus, asker, answer["id"], 1)
        ids += more
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    await finish(db, bus, tenant.workspace_id, answer["id"])
    for cut in range(len(ids)):
        seen = await collect(asker, ids[cut])
        assert [e["id"] for e in seen[:-1]] == ids[cut + 1 :]
        assert seen[-1]["event"] == "done"


async def test_every_cut_of_a_live_stream_can_be_resumed(asker, bus, db, tenant):
    """Readers that are cut after each event, while events are being published, see each exactly once."""
    answer = (await asker.ask("Cut me")).json()["answer"]
    start = (await bus.xrevrange(keys.conversation_stream(UUID(asker.conversation)), count=1))[0][0].decode()

    async def write() -> None:
        for n in range(25):
            await events.publish(
                bus, UUID(asker.conversation), "sentence", {"message_id": answer["id"], "index": n, "text": f"{n}"}
            )
            await asyncio.sleep(0.01)
        await finish(db, bus, tenant.workspace_id, answer["id"])

    writing, last, seen = asyncio.create_task(write()), start, []
    async with asyncio.timeout(20):
        while not seen or seen[-1]["event"] != "done":
            headers = {**asker.auth, "last-event-id": last}
            async with asker.client.stream("GET", path(asker), headers=headers) as response:
                async for event in read_events(response):
                    seen.append(event)
                    last = event["id"]
                    break
    await writing
    assert [e["data"]["index"] for e in seen[:-1]] == list(range(25))


async def test_a_finished_conversation_ends_at_once(asker, bus, db, tenant):
    answer = (await asker.ask("Finish")).json()["answer"]
    await finish(db, bus, tenant.workspace_id, answer["id"])
    started = time.perf_counter()
    seen = await collect(asker)
    assert [e["event"] for e in seen] == ["snapshot"]
    assert await collect(asker, seen[-1]["id"]) == []
    assert time.perf_counter() - started < 1.5


async def test_a_trimmed_or_unknown_id_gets_a_snapshot(asker, bus, db, tenant):
    answer = (await asker.ask("Trim")).json()["answer"]
    ids = await publish_sentences(bus, asker, answer["id"], 5)
    await bus.xtrim(keys.conversation_stream(UUID(asker.conversation)), maxlen=1, approximate=False)
    await finish(db, bus, tenant.workspace_id, answer["id"])
    assert (await collect(asker, ids[1]))[0]["event"] == "snapshot"
    await bus.delete(keys.conversation_stream(UUID(asker.conversation)))
    for last in (ids[4], "0-0", "garbage", "99999999999999-0"):
        seen = await collect(asker, last)
        assert [e["event"] for e in seen] == ["snapshot"]
        assert seen[0]["data"]["messages"][1]["status"] == "done"


async def test_the_id_may_come_in_the_query(asker, bus, db, tenant):
    answer = (await asker.ask("Query")).json()["answer"]
    ids = await publish_sentences(bus, asker, answer["id"], 2)
    await finish(db, bus, tenant.workspace_id, answer["id"])
    seen = await collect(asker, None, params={"last_event_id": ids[0]})
    assert [e["event"] for e in seen] == ["sentence", "done"]


async def test_a_lost_event_is_made_up_for_by_a_snapshot(asker, bus, db, tenant):
    """The answer was finished in SQL, and its event never came."""
    answer = (await asker.ask("Lost")).json()["answer"]
    reading = asyncio.create_task(collect(asker))
    await asyncio.sleep(0.2)
    async with db.transaction(tenant.workspace_id) as session:
        message = await session.get(Message, UUID(answer["id"]))
        message.status, message.text = "done", "Here."
    seen = await reading
    assert [e["event"] for e in seen] == ["snapshot", "snapshot"]
    assert seen[-1]["data"]["messages"][1]["status"] == "done"


async def test_two_readers_see_the_same_and_the_second_question_goes_on(asker, bus, db, tenant):
    first = (await asker.ask("One")).json()["answer"]
    readers = [asyncio.create_task(collect(asker)) for _ in range(2)]
    await asyncio.sleep(0.3)
    second = (await asker.ask("Two")).json()["answer"]
    await asyncio.sleep(0.1)
    await finish(db, bus, tenant.workspace_id, second["id"])
    seen = await asyncio.gather(*readers)
    kinds = ["snapshot", "superseded", "queued", "done"]
    assert [[e["event"] for e in one] for one in seen] == [kinds, kinds]
    assert seen[0][1]["data"] == {"message_id": first["id"], "superseded_by": second["id"]}


async def test_stopping_reaches_the_reader_and_ends_the_stream(asker, bus):
    answer = (await asker.ask("Stop")).json()["answer"]
    reading = asyncio.create_task(collect(asker))
    await asyncio.sleep(0.2)
    await asker.act(answer["id"], "stop")
    seen = await reading
    assert [e["event"] for e in seen] == ["snapshot", "cancelled"]


async def test_a_reload_in_mid_answer_sees_the_whole_answer(asker, bus, db, tenant):
    answer = (await asker.ask("Reload")).json()["answer"]
    async with asker.client.stream("GET", path(asker), headers=asker.auth) as response:
        assert (await anext(read_events(response)))["event"] == "snapshot"
    async with db.transaction(tenant.workspace_id) as session:
        message = await session.get(Message, UUID(answer["id"]))
        assert message.status == "queued"  # leaving has not stopped it
        message.status, message.sentences = "running", ["The first half."]
    reading = asyncio.create_task(collect(asker))
    await asyncio.sleep(0.2)
    await finish(db, bus, tenant.workspace_id, answer["id"], text="The first half. The second half.")
    seen = await reading
    assert seen[0]["data"]["messages"][1]["text"] == "The first half."
    assert seen[-1]["data"]["message"]["text"] == "The first half. The second half."


async def test_one_conversation_is_not_followed_without_end(asker, web):
    await asker.ask("Many tabs")
    opened, streams = [], []
    try:
        for _ in range(8):
            request = asker.client.build_request("GET", path(asker), headers=asker.auth)
            response = await asker.client.send(request, stream=True)
            streams.append(read_events(response))  # kept: a generator that is collected closes its response
            await anext(streams[-1])
            opened.append(response)
        await asyncio.sleep(0.2)
        answer = await asker.client.get(path(asker), headers=asker.auth)
        problem(answer, 429, "too-many-streams")
    finally:
        for response in opened:
            await response.aclose()
    await until(lambda: not web.services.relay.reader.readers(UUID(asker.conversation)))


async def test_a_slow_reader_gets_a_snapshot_instead_of_an_endless_queue(web, asker, bus, db, tenant):
    from app.chat.reader import QUEUE
    from app.chat.relay import Following

    answer = (await asker.ask("Slow")).json()["answer"]
    conversation, relay = UUID(asker.conversation), web.services.relay
    following = Following(relay, tenant.workspace_id, conversation)
    async with relay.reader.subscribe(conversation, await relay.last_id(conversation)) as subscription:
        await publish_sentences(bus, asker, answer["id"], QUEUE + 50)
        await until(lambda: subscription.lagging)
        chunk = await anext(following.tail(subscription, None))
        assert b"event: snapshot" in chunk and subscription.last == await relay.last_id(conversation)
