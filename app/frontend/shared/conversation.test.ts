import { beforeEach, describe, expect, it, vi } from 'vitest';
import { Conversation, type Transport } from './conversation';
import { ApiError, Offline } from './http';
import type { Accepted, Message } from './types';

const message = (id: string, change: Partial<Message>): Message => ({
  id, conversation_id: 'c1', ordinal: 1, role: 'assistant', status: 'done', epoch: 1, text: '', wording: '', evidence: [], citations: [], nearest: [],
  refused: false, kind: 'grounded', error: null, superseded_by: null, created_at: '', finished_at: null, timings: null, tokens: null, ...change,
});

/** A server in memory that answers each question at once, and each key once. */
class Server implements Transport {
  posts: string[] = [];
  refusals: Error[] = [];
  private known = new Map<string, Accepted>();
  messages: Message[] = [];

  create = vi.fn(async () => ({ id: 'c1', messages: [], last_event_id: '0-0' }));
  load = vi.fn(async (id: string) => ({ id, messages: this.messages, last_event_id: '9-0' }));
  events = vi.fn(async (_id: string, _last: string | null, _signal: AbortSignal) => new Response(''));
  retry = vi.fn(async (id: string) => ({ message: message('q1', { role: 'visitor' }), answer: message(id, { ordinal: 2 }) }));
  stop = vi.fn(async (id: string) => message(id, { status: 'cancelled' }));

  async post(_id: string, text: string, key: string): Promise<Accepted> {
    this.posts.push(key);
    const refusal = this.refusals.shift();
    if (refusal) throw refusal;
    const n = this.messages.length + 1;
    const accepted = this.known.get(key) ?? { message: message(`q${n}`, { role: 'visitor', text, ordinal: n }), answer: message(`a${n}`, { ordinal: n + 1, wording: 'So.' }) };
    this.known.set(key, accepted);
    this.messages = [...new Set([...this.messages, accepted.message, accepted.answer])];
    return accepted;
  }
}

describe('a conversation', () => {
  let server: Server;
  let conversation: Conversation;
  let ids: (string | null)[];
  beforeEach(() => {
    server = new Server();
    ids = [];
    conversation = new Conversation(server, (id) => ids.push(id));
  });
  const settled = () => vi.waitFor(() => expect(conversation.outbox.value).toEqual([]));

  it('shows a question before the server has it', async () => {
    conversation.send('How?');
    expect(conversation.outbox.value).toMatchObject([{ text: 'How?', status: 'sending' }]);
    await settled();
    expect(conversation.thread.value.messages.map((m) => m.role)).toEqual(['visitor', 'assistant']);
    expect(ids).toEqual(['c1']);
  });

  it('sends again under the same key when the network was away', async () => {
    server.refusals = [new Offline()];
    conversation.send('How?');
    await vi.waitFor(() => expect(conversation.link.value.kind).toBe('waiting'));
    expect(conversation.outbox.value[0]?.status).toBe('waiting');
    conversation.tryNow();
    await settled();
    expect(server.posts).toHaveLength(2);
    expect(new Set(server.posts).size).toBe(1);
    expect(server.messages).toHaveLength(2);
  });

  it('waits as long as the server asks for, and says so', async () => {
    server.refusals = [new ApiError(429, 'rate-limited', '', '', null, 30)];
    conversation.send('How?');
    await vi.waitFor(() => expect(conversation.hold.value).not.toBeNull());
    expect((conversation.hold.value?.until ?? 0) - Date.now()).toBeGreaterThan(25_000);
    conversation.tryNow();
    await settled();
    expect(conversation.hold.value).toBeNull();
  });

  it('gives a refused question back instead of trying for ever', async () => {
    server.refusals = [new ApiError(422, 'message-not-text', '', 'It is no text.', 'text', null)];
    conversation.send('How?');
    await vi.waitFor(() => expect(conversation.outbox.value).toMatchObject([{ status: 'failed', problem: 'It is no text.' }]));
    conversation.send('Another one?');
    await vi.waitFor(() => expect(conversation.outbox.value).toHaveLength(1));
    expect(server.posts).toHaveLength(2);
  });

  it('begins another conversation when the old one is gone', async () => {
    conversation.send('One?');
    await settled();
    server.refusals = [new ApiError(404, 'conversation-unknown', '', '', null, null)];
    conversation.send('Two?');
    await settled();
    expect(server.create).toHaveBeenCalledTimes(2);
  });

  it('restores a stored conversation and listens only when an answer is expected', async () => {
    server.messages = [message('q1', { role: 'visitor' }), message('a1', { ordinal: 2 })];
    await conversation.restore('c1');
    expect(conversation.thread.value.messages).toHaveLength(2);
    expect(server.events).not.toHaveBeenCalled();
  });

  it('asks for a snapshot first when it restores in mid-answer', async () => {
    server.messages = [message('q1', { role: 'visitor' }), message('a1', { ordinal: 2, status: 'running' })];
    await conversation.restore('c1');
    expect(server.events).toHaveBeenCalledWith('c1', null, expect.anything());
    conversation.reset();
  });

  it('forgets everything when a new one begins', async () => {
    conversation.send('How?');
    await settled();
    conversation.reset();
    expect(conversation.thread.value.messages).toEqual([]);
    expect(conversation.currentId).toBeNull();
    expect(ids.at(-1)).toBeNull();
  });
});
