import { describe, expect, it } from 'vitest';
import { accept, emptyThread, expectsMore, parseEvent, reduce, type ConversationEvent, type Thread, wordingOf } from './reducer';
import type { Evidence, Message } from './types';

const message = (id: string, change: Partial<Message> = {}): Message => ({
  id, conversation_id: 'c', ordinal: Number(id.replace(/\D/g, '')), role: 'assistant', status: 'queued', epoch: 1, text: '', wording: '', evidence: [], citations: [], nearest: [],
  refused: false, kind: null, error: null, superseded_by: null, created_at: '2026-11-24T08:00:00Z', finished_at: null, timings: null, tokens: null, ...change,
});
const question = message('m1', { role: 'visitor', status: 'done', text: 'How?' });
const answer = message('m2');
const quote: Evidence = { number: 1, text: 'So.', url: 'https://example.org/', title: 'Page', heading_path: [], passage_id: 'p', document_id: 'd' };
const queued: ConversationEvent = { event: 'queued', message: question, answer };
const sentence = (index: number, text: string): ConversationEvent => ({ event: 'sentence', message_id: 'm2', index, text });
const play = (events: ConversationEvent[], from: Thread = emptyThread): Thread => events.reduce(reduce, from);
const wording = (thread: Thread): string => wordingOf(thread, thread.messages.find((m) => m.id === 'm2') as Message);

describe('a streamed answer', () => {
  it('shows evidence before any wording, then sentence after sentence', () => {
    const found = play([queued, { event: 'evidence', message_id: 'm2', evidence: [quote], citations: [], passages: 2 }]);
    expect(found.messages[1]).toMatchObject({ status: 'running', evidence: [quote] });
    expect(wording(found)).toBe('');
    expect(wording(play([sentence(0, 'One.'), sentence(1, 'Two.')], found))).toBe('One. Two.');
  });

  it('replaces a sentence whose index comes again', () => {
    expect(wording(play([queued, sentence(0, 'One.'), sentence(0, 'Uno.'), sentence(1, 'Two.')]))).toBe('Uno. Two.');
  });

  it('puts sentences in the order of their index', () => {
    expect(wording(play([queued, sentence(1, 'Two.'), sentence(0, 'One.')]))).toBe('One. Two.');
  });

  it('ends with what the server stored, whatever was streamed', () => {
    const done = play([queued, sentence(0, 'One.'), { event: 'done', message: { ...answer, status: 'done', wording: 'One. Two.' } }]);
    expect(wording(done)).toBe('One. Two.');
    expect(done.live).toEqual({});
    expect(expectsMore(done)).toBe(false);
  });

  it('ignores late news of an answer that has ended', () => {
    const done = play([queued, { event: 'cancelled', message: { ...answer, status: 'cancelled', wording: 'One.' } }]);
    expect(play([sentence(1, 'Two.'), { event: 'evidence', message_id: 'm2', evidence: [quote], citations: [], passages: 1 }], done)).toEqual(done);
  });

  it('marks a superseded answer, which its successor answers', () => {
    const thread = play([queued, { event: 'superseded', message_id: 'm2', superseded_by: 'm4' }]);
    expect(thread.messages[1]).toMatchObject({ status: 'superseded', superseded_by: 'm4' });
    expect(expectsMore(thread)).toBe(false);
  });

  it('asks for the conversation when an event speaks of an unknown message', () => {
    expect(play([sentence(0, 'One.')]).stale).toBe(true);
  });
});

describe('a snapshot and its tail', () => {
  const snapshot: ConversationEvent = { event: 'snapshot', messages: [question, { ...answer, status: 'running', wording: 'One.' }] };

  it('continues the stored wording', () => {
    expect(wording(play([snapshot, sentence(1, 'Two.')]))).toBe('One. Two.');
  });

  it('says nothing twice when the tail begins before the snapshot', () => {
    expect(wording(play([snapshot, sentence(0, 'One.'), sentence(1, 'Two.')]))).toBe('One. Two.');
  });

  it('takes the words of a second attempt instead of those of the first', () => {
    expect(wording(play([snapshot, sentence(0, 'Eins.')]))).toBe('Eins.');
  });

  it('keeps what was streamed before the line was lost', () => {
    const before = play([queued, sentence(0, 'One.'), sentence(1, 'Two.')]);
    expect(wording(play([{ event: 'snapshot', messages: [question, { ...answer, status: 'running', wording: 'One.' }] }], before))).toBe('One. Two.');
  });

  it('drops messages that the server does not have', () => {
    expect(play([{ event: 'snapshot', messages: [question] }], play([queued])).messages).toEqual([question]);
  });
});

describe('what a POST returns', () => {
  it('never turns back a message of which the stream knows more', () => {
    const done = play([queued, { event: 'done', message: { ...answer, status: 'done', wording: 'One.' } }]);
    expect(accept(done, { message: question, answer })).toEqual(done);
  });

  it('starts the same message anew when it was asked for again', () => {
    const failed = play([queued, sentence(0, 'On'), { event: 'failed', message: { ...answer, status: 'failed' } }]);
    const again = accept(failed, { message: question, answer }, true);
    expect(expectsMore(again)).toBe(true);
    expect(wording(play([sentence(0, 'One.')], again))).toBe('One.');
  });
});

describe('events from the wire', () => {
  it('are dropped when they are no JSON, of another shape or of an unknown kind', () => {
    const raw = (event: string, data: string) => parseEvent({ id: null, event, data });
    expect(raw('sentence', '{')).toBeNull();
    expect(raw('sentence', 'null')).toBeNull();
    expect(raw('sentence', '{"message_id":"m2","index":"0","text":"One."}')).toBeNull();
    expect(raw('done', '{}')).toBeNull();
    expect(raw('party', '{}')).toBeNull();
    expect(raw('sentence', '{"message_id":"m2","index":0,"text":"One."}')).toEqual(sentence(0, 'One.'));
  });
});
