/** What a conversation looks like after each event. Pure: the same events in the same order give the same thread. */
import type { Accepted, Citation, Evidence, Message, MessageStatus } from './types';
import type { ServerEvent } from './sse';

export type ConversationEvent =
  | { event: 'snapshot'; messages: Message[] }
  | { event: 'queued'; message: Message; answer: Message }
  | { event: 'evidence'; message_id: string; evidence: Evidence[]; citations: Citation[]; passages: number }
  | { event: 'sentence'; message_id: string; index: number; text: string }
  | { event: 'done' | 'failed' | 'cancelled'; message: Message }
  | { event: 'superseded'; message_id: string; superseded_by: string | null };

/** An answer in the making: what was stored before we listened, and the sentences since. */
export interface Live {
  base: string;
  sentences: Record<number, string>;
  passages: number;
}

export interface Thread {
  messages: Message[];
  live: Record<string, Live>;
  /** An event spoke of a message that is not here: ask for the conversation again. */
  stale: boolean;
}

export const emptyThread: Thread = { messages: [], live: {}, stale: false };

const progress: Record<MessageStatus, number> = { queued: 0, running: 1, done: 2, failed: 2, cancelled: 2, superseded: 2 };

export const isOpen = (message: Message): boolean => message.role === 'assistant' && progress[message.status] < 2;

export const expectsMore = (thread: Thread): boolean => thread.messages.some(isOpen);

export function parseEvent(raw: ServerEvent): ConversationEvent | null {
  let data: unknown;
  try {
    data = JSON.parse(raw.data);
  } catch {
    return null;
  }
  if (data === null || typeof data !== 'object') return null;
  const body = data as Record<string, unknown>;
  switch (raw.event) {
    case 'snapshot':
      return Array.isArray(body['messages']) ? ({ event: 'snapshot', messages: body['messages'] } as ConversationEvent) : null;
    case 'queued':
      return body['message'] && body['answer'] ? ({ event: 'queued', ...body } as ConversationEvent) : null;
    case 'evidence':
      return typeof body['message_id'] === 'string' && Array.isArray(body['evidence'])
        ? ({ citations: [], passages: 0, ...body, event: 'evidence' } as unknown as ConversationEvent)
        : null;
    case 'sentence':
      return typeof body['message_id'] === 'string' && Number.isInteger(body['index']) && typeof body['text'] === 'string'
        ? ({ ...body, event: 'sentence' } as ConversationEvent)
        : null;
    case 'done':
    case 'failed':
    case 'cancelled':
      return body['message'] ? ({ event: raw.event, message: body['message'] } as ConversationEvent) : null;
    case 'superseded':
      return typeof body['message_id'] === 'string' ? ({ superseded_by: null, ...body, event: 'superseded' } as ConversationEvent) : null;
    default:
      return null;
  }
}

const liveOf = (message: Message): Live => ({ base: message.wording ?? '', sentences: {}, passages: 0 });

function put(messages: Message[], message: Message): Message[] {
  const at = messages.findIndex((m) => m.id === message.id);
  const next = at < 0 ? [...messages, message] : messages.with(at, message);
  return next.sort((a, b) => a.ordinal - b.ordinal);
}

function without<T>(record: Record<string, T>, key: string): Record<string, T> {
  const { [key]: _, ...rest } = record;
  return rest;
}

function change(thread: Thread, id: string, edit: (message: Message, live: Live) => { message: Message; live: Live }): Thread {
  const found = thread.messages.find((m) => m.id === id);
  if (!found) return { ...thread, stale: true };
  if (!isOpen(found)) return thread; // late news of an answer that has ended
  const { message, live } = edit(found, thread.live[id] ?? liveOf(found));
  return { ...thread, messages: put(thread.messages, message), live: { ...thread.live, [id]: live } };
}

export function reduce(thread: Thread, event: ConversationEvent): Thread {
  switch (event.event) {
    case 'snapshot': {
      const messages = [...event.messages].sort((a, b) => a.ordinal - b.ordinal);
      const live: Record<string, Live> = {};
      for (const message of messages.filter(isOpen)) {
        const before = thread.live[message.id];
        live[message.id] = { ...(before ?? liveOf(message)), base: message.wording ?? '' };
      }
      return { messages, live, stale: false };
    }
    case 'queued':
      return accept(thread, event);
    case 'evidence':
      return change(thread, event.message_id, (message, live) => ({
        message: { ...message, status: 'running', evidence: event.evidence, citations: event.citations },
        live: { ...live, passages: event.passages },
      }));
    case 'sentence':
      return change(thread, event.message_id, (message, live) => ({
        message: { ...message, status: 'running' },
        live: { ...live, sentences: { ...live.sentences, [event.index]: event.text } },
      }));
    case 'done':
    case 'failed':
    case 'cancelled':
      return { ...thread, messages: put(thread.messages, event.message), live: without(thread.live, event.message.id) };
    case 'superseded': {
      const found = thread.messages.find((m) => m.id === event.message_id);
      if (!found) return { ...thread, stale: true };
      const message: Message = { ...found, status: 'superseded', superseded_by: event.superseded_by };
      return { ...thread, messages: put(thread.messages, message), live: without(thread.live, found.id) };
    }
  }
}

/** Takes in what a POST returned. The stream may be ahead of it, so it never turns a message back, unless asked to. */
export function accept(thread: Thread, { message, answer }: Accepted, again = false): Thread {
  let { messages, live } = thread;
  for (const item of [message, answer]) {
    const known = messages.find((m) => m.id === item.id);
    if (known && !again && progress[known.status] >= progress[item.status]) continue;
    messages = put(messages, item);
    if (again) live = without(live, item.id);
  }
  return { ...thread, messages, live };
}

const join = (parts: string[]): string =>
  parts.reduce((all, part) => (all === '' || /\s$/.test(all) ? all + part : `${all} ${part}`), '');

/** The wording to show now. Sentences of one index replace each other; what a snapshot already holds is not said twice. */
export function wordingOf(thread: Thread, message: Message): string {
  const live = thread.live[message.id];
  if (!live) return message.wording;
  const indexes = Object.keys(live.sentences).map(Number).sort((a, b) => a - b);
  const sentences = indexes.map((index) => live.sentences[index] ?? '');
  if (live.base === '' || indexes[0] === 0) return join(sentences);
  return join([live.base, ...sentences.filter((sentence) => !live.base.includes(sentence.trim()))]);
}
