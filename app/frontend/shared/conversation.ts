/** One conversation as both the widget and the dashboard hold it: send, follow, stop, ask again, survive a lost line. */
import { signal } from '@preact/signals';
import { ApiError, explain, Offline } from './http';
import { accept, emptyThread, expectsMore, isOpen, parseEvent, reduce, type Thread } from './reducer';
import { delayOf, follow, type Link, Pause } from './sse';
import type { Accepted, ConversationSnapshot, Message } from './types';

export const MESSAGE_LIMIT = 4000; // characters, as the server counts them

/** Before listening again where the server refused the stream. */
const RELISTEN_MS = 5_000;

export interface Transport {
  create(): Promise<ConversationSnapshot>;
  load(id: string): Promise<ConversationSnapshot>;
  post(id: string, text: string, key: string): Promise<Accepted>;
  events(id: string, lastEventId: string | null, signal: AbortSignal): Promise<Response>;
  stop(messageId: string): Promise<Message>;
  retry(messageId: string): Promise<Accepted>;
}

/** A question that the server has not accepted yet. */
export interface Outgoing {
  key: string;
  text: string;
  status: 'sending' | 'waiting' | 'failed';
  problem: string | null;
}

/** The server asked for patience: 429 or 503. */
export interface Hold {
  until: number;
  text: string;
}

export type Phase = 'new' | 'loading' | 'ready';

export const newKey = (): string =>
  typeof crypto.randomUUID === 'function'
    ? crypto.randomUUID()
    : Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, '0')).join('');

export class Conversation {
  readonly thread = signal<Thread>(emptyThread);
  readonly outbox = signal<Outgoing[]>([]);
  readonly link = signal<Link>({ kind: 'idle' });
  readonly hold = signal<Hold | null>(null);
  readonly phase = signal<Phase>('new');
  /** A line for what cannot be tied to one message, such as a stop that failed. */
  readonly notice = signal<string | null>(null);

  private id: string | null = null;
  private lastEventId: string | null = null;
  private life = new AbortController();
  private following = false;
  private pumping = false;
  private readonly pause = new Pause();

  constructor(
    private readonly transport: Transport,
    private readonly onId: (id: string | null) => void = () => undefined,
  ) {}

  get currentId(): string | null {
    return this.id;
  }

  tryNow = (): void => this.pause.wake();

  /** Shows a stored conversation, then listens when an answer is still being made. */
  async restore(id: string): Promise<void> {
    this.phase.value = 'loading';
    const { signal: life } = this.life;
    for (let attempt = 0; !life.aborted; attempt += 1) {
      try {
        this.take(await this.transport.load(id));
        if (life.aborted) return;
        this.link.value = { kind: 'idle' };
        this.lastEventId = null; // the stream then begins with a snapshot and misses nothing
        this.listen();
        return;
      } catch (error) {
        if (life.aborted) return;
        if (error instanceof ApiError && error.status < 500 && error.status !== 429) {
          this.reset();
          return;
        }
        await this.waitFor(attempt, error);
      }
    }
  }

  /** Another tab may have gone on with this conversation. */
  async refresh(): Promise<void> {
    if (this.id === null || this.following || this.phase.value !== 'ready') return;
    const { signal: life } = this.life;
    try {
      const snapshot = await this.transport.load(this.id);
      if (life.aborted || this.following) return;
      this.take(snapshot);
      this.listen();
    } catch {
      // What is shown stays; the next question tells whether the server is there.
    }
  }

  send(text: string): void {
    this.notice.value = null;
    this.outbox.value = [...this.outbox.value, { key: newKey(), text, status: 'sending', problem: null }];
    if (this.phase.value === 'new') this.phase.value = 'ready';
    void this.pump();
  }

  sendAgain(key: string): void {
    this.mark(key, { status: 'sending', problem: null });
    void this.pump();
  }

  discard(key: string): void {
    this.outbox.value = this.outbox.value.filter((item) => item.key !== key);
  }

  async stop(): Promise<void> {
    const open = this.thread.value.messages.filter(isOpen).at(-1);
    if (!open) return;
    try {
      const message = await this.transport.stop(open.id);
      this.thread.value = reduce(this.thread.value, { event: 'cancelled', message });
    } catch (error) {
      this.notice.value = `The answer was not stopped. ${explain(error)}`;
    }
  }

  async retry(message: Message): Promise<void> {
    this.notice.value = null;
    try {
      const accepted = await this.transport.retry(message.id);
      this.thread.value = accept(this.thread.value, accepted, true);
      this.listen();
    } catch (error) {
      this.notice.value = explain(error);
    }
  }

  /** Leaves this conversation; the next question starts another. */
  reset(): void {
    this.life.abort();
    this.life = new AbortController();
    this.following = false;
    this.pumping = false;
    this.id = null;
    this.lastEventId = null;
    this.thread.value = emptyThread;
    this.outbox.value = [];
    this.link.value = { kind: 'idle' };
    this.hold.value = null;
    this.notice.value = null;
    this.phase.value = 'new';
    this.onId(null);
  }

  private take(snapshot: ConversationSnapshot): void {
    this.id = snapshot.id;
    this.lastEventId = snapshot.last_event_id;
    this.thread.value = reduce(this.thread.value, { event: 'snapshot', messages: snapshot.messages });
    this.phase.value = 'ready';
  }

  private mark(key: string, change: Partial<Outgoing>): void {
    this.outbox.value = this.outbox.value.map((item) => (item.key === key ? { ...item, ...change } : item));
  }

  private async waitFor(attempt: number, error: unknown): Promise<void> {
    const delay = error instanceof ApiError && error.retryAfter !== null ? error.retryAfter * 1000 : delayOf(attempt + 1);
    this.link.value = { kind: 'waiting', until: Date.now() + delay };
    await this.pause.wait(delay, this.life.signal);
  }

  /** Sends what waits, one at a time and in order, each under its own key however often it has to be repeated. */
  private async pump(): Promise<void> {
    if (this.pumping) return;
    this.pumping = true;
    const { signal: life } = this.life;
    let attempt = 0;
    for (;;) {
      const next = this.outbox.value.find((item) => item.status !== 'failed');
      if (life.aborted || !next) break;
      try {
        const id = this.id ?? (await this.begin());
        const accepted = await this.transport.post(id, next.text, next.key);
        if (life.aborted) return;
        attempt = 0;
        this.hold.value = null;
        if (!this.following) this.link.value = { kind: 'idle' };
        this.discard(next.key);
        this.thread.value = accept(this.thread.value, accepted);
        this.listen();
      } catch (error) {
        if (life.aborted) return;
        await this.refused(next, error, attempt);
        attempt += 1;
      }
    }
    if (!life.aborted) this.pumping = false;
  }

  private async begin(): Promise<string> {
    const snapshot = await this.transport.create();
    this.id = snapshot.id;
    this.lastEventId = snapshot.last_event_id;
    this.onId(snapshot.id);
    return snapshot.id;
  }

  private async refused(item: Outgoing, error: unknown, attempt: number): Promise<void> {
    if (error instanceof ApiError && (error.status === 429 || error.status === 503)) {
      const seconds = error.retryAfter ?? Math.ceil(delayOf(attempt + 1) / 1000);
      this.mark(item.key, { status: 'waiting' });
      this.hold.value = { until: Date.now() + seconds * 1000, text: error.status === 429 ? 'You asked a lot at once.' : 'Many people are asking right now.' };
      await this.pause.wait(seconds * 1000, this.life.signal);
      this.hold.value = null;
    } else if (error instanceof Offline || (error instanceof ApiError && error.status >= 500)) {
      this.mark(item.key, { status: 'waiting' });
      await this.waitFor(attempt, error);
    } else if (error instanceof ApiError && error.status === 404 && this.id !== null && attempt === 0) {
      this.id = null; // erased, or of another visitor: the question begins a new conversation
      this.thread.value = emptyThread;
      this.onId(null);
    } else {
      this.mark(item.key, { status: 'failed', problem: explain(error) });
    }
  }

  /** Holds a stream only while something is expected. */
  private listen(): void {
    const id = this.id;
    if (this.following || id === null || !expectsMore(this.thread.value)) return;
    this.following = true;
    const { signal: life } = this.life;
    follow({
      open: (lastEventId, signal) => this.transport.events(id, lastEventId, signal),
      onEvent: (raw) => {
        if (raw.id !== null) this.lastEventId = raw.id;
        const event = parseEvent(raw);
        if (event === null || life.aborted) return;
        if (event.event === 'queued') this.dropSent(event.message.text);
        this.thread.value = reduce(this.thread.value, event);
        if (this.thread.value.stale) void this.reload(id, life);
      },
      expecting: () => expectsMore(this.thread.value),
      onLink: (link) => {
        if (!life.aborted) this.link.value = link;
      },
      lastEventId: this.lastEventId,
      signal: life,
      pause: this.pause,
    })
      .catch(async () => {
        await this.reload(id, life);
        await this.pause.wait(RELISTEN_MS, life);
      })
      .finally(() => {
        if (life.aborted) return;
        this.following = false;
        this.link.value = { kind: 'idle' };
        this.listen();
      });
  }

  /** The stream may tell of a question before its POST has returned. */
  private dropSent(text: string): void {
    const sent = this.outbox.value.find((item) => item.text === text && item.status === 'sending');
    if (sent) this.outbox.value = this.outbox.value.filter((item) => item !== sent);
  }

  private async reload(id: string, life: AbortSignal): Promise<void> {
    try {
      const snapshot = await this.transport.load(id);
      if (life.aborted || this.id !== id) return;
      this.thread.value = reduce(this.thread.value, { event: 'snapshot', messages: snapshot.messages });
    } catch (error) {
      if (!life.aborted && error instanceof ApiError && error.status === 404) this.reset();
    }
  }
}
