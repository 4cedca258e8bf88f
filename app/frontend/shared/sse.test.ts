import { describe, expect, it, vi } from 'vitest';
import { ApiError } from './http';
import { delayOf, follow, type Following, type Link, Pause, readEvents, type ServerEvent } from './sse';

const encoder = new TextEncoder();

function body(chunks: (string | Error)[]): ReadableStream<Uint8Array> {
  return new ReadableStream({
    pull(controller) {
      const next = chunks.shift();
      if (next === undefined) controller.close();
      else if (next instanceof Error) controller.error(next);
      else controller.enqueue(encoder.encode(next));
    },
  });
}

const event = (id: string, text: string): string => `id: ${id}\nevent: sentence\ndata: ${text}\n\n`;

class NoPause extends Pause {
  override wait = (): Promise<void> => Promise.resolve();
}

/** A server that gives one answer after another and notes from which event each was asked for. */
function server(answers: ((string | Error)[] | Error)[], lastEventId: string | null = null) {
  const asked: (string | null)[] = [];
  const events: ServerEvent[] = [];
  const links: Link[] = [];
  const following: Following = {
    open: (id) => {
      asked.push(id);
      const next = answers.shift() ?? [];
      return next instanceof Error ? Promise.reject(next) : Promise.resolve(new Response(body(next)));
    },
    onEvent: (e) => events.push(e),
    expecting: () => answers.length > 0,
    onLink: (link) => links.push(link),
    lastEventId,
    signal: new AbortController().signal,
    pause: new NoPause(),
  };
  return { asked, events, links, following };
}

describe('reading events', () => {
  it('understands events cut anywhere, comments and several lines of data', async () => {
    const seen: ServerEvent[] = [];
    await readEvents(body([': still here\n\nid: 1-0\nevent: sent', 'ence\ndata: é', '\ndata: b\n\n']), (e) => seen.push(e));
    expect(seen).toEqual([{ id: '1-0', event: 'sentence', data: 'é\nb' }]);
  });

  it('gives up a stream that fell silent', async () => {
    await expect(readEvents(new ReadableStream(), () => undefined, 5)).rejects.toThrow('silent');
  });
});

describe('following a conversation', () => {
  it('begins where it is told to', async () => {
    const { asked, following } = server([[event('6-0', 'a')]], '5-0');
    await follow(following);
    expect(asked).toEqual(['5-0']);
  });

  it('goes on from the last event after a cut, without gap or repetition', async () => {
    const { asked, events, following } = server([[event('1-0', 'a'), event('2-0', 'b'), new Error('cut')], [event('3-0', 'c')]]);
    await follow(following);
    expect(asked).toEqual([null, '2-0']);
    expect(events.map((e) => e.data)).toEqual(['a', 'b', 'c']);
  });

  it('comes back when the server ended the stream although an answer is expected', async () => {
    const { asked, following } = server([[event('1-0', 'a')], [event('2-0', 'b')]]);
    await follow(following);
    expect(asked).toEqual([null, '1-0']);
  });

  it('says when it waits, is open, and is over', async () => {
    const { links, following } = server([new Error('no network'), [event('1-0', 'a')]]);
    await follow(following);
    expect(links.map((l) => l.kind)).toEqual(['waiting', 'open', 'idle']);
  });

  it('waits as long as the server asks for', async () => {
    const { links, following } = server([new ApiError(503, 'away', '', '', null, 7), []]);
    vi.setSystemTime(1000);
    await follow(following);
    vi.useRealTimers();
    expect(links[0]).toEqual({ kind: 'waiting', until: 8000 });
  });

  it('does not insist when the conversation is gone', async () => {
    const { following } = server([new ApiError(404, 'conversation-unknown', '', '', null, null), []]);
    await expect(follow(following)).rejects.toThrow(ApiError);
  });

  it('waits longer each time, up to a limit', () => {
    expect([0, 1, 2, 10].map((n) => delayOf(n, 0.5))).toEqual([500, 1000, 2000, 15_000]);
  });
});

describe('a pause', () => {
  it('is ended early by a person, by the network and by leaving', async () => {
    const pause = new Pause();
    const first = pause.wait(60_000);
    pause.wake();
    await first;
    const second = pause.wait(60_000);
    dispatchEvent(new Event('online'));
    await second;
    await pause.wait(60_000, AbortSignal.abort());
  });
});
