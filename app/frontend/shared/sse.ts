/** Server-sent events over fetch (they need an Authorization header), resumed by Last-Event-ID until nothing is expected. */
import { createParser } from 'eventsource-parser';
import { ApiError } from './http';

/** The server writes a comment every 15 s; three missed ones mean that the line is dead. */
const SILENCE_MS = 45_000;
const FIRST_DELAY_MS = 500;
const LAST_DELAY_MS = 15_000;

export interface ServerEvent {
  id: string | null;
  event: string;
  data: string;
}

export type Link =
  | { kind: 'idle' }
  | { kind: 'open' }
  | { kind: 'waiting'; until: number };

/** Reads one response to its end; rejects when it is cut or falls silent. */
export async function readEvents(
  body: ReadableStream<Uint8Array>,
  onEvent: (event: ServerEvent) => void,
  silenceMs = SILENCE_MS,
): Promise<void> {
  const parser = createParser({
    onEvent: (event) => onEvent({ id: event.id ?? null, event: event.event ?? 'message', data: event.data }),
  });
  const decoder = new TextDecoder();
  const reader = body.getReader();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const silence = (): Promise<never> =>
    new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error('The stream fell silent.')), silenceMs);
    });
  try {
    for (;;) {
      const { done, value } = await Promise.race([reader.read(), silence()]).finally(() => clearTimeout(timer));
      if (done) return;
      parser.feed(decoder.decode(value, { stream: true }));
    }
  } finally {
    reader.cancel().catch(() => undefined);
  }
}

/** A wait that "Try now", a network that is back, or an abort ends early. */
export class Pause {
  private wakers = new Set<() => void>();

  wake = (): void => {
    for (const waker of this.wakers) waker();
  };

  wait(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const end = (): void => {
        clearTimeout(timer);
        this.wakers.delete(end);
        signal?.removeEventListener('abort', end);
        globalThis.removeEventListener?.('online', end);
        resolve();
      };
      const timer = setTimeout(end, ms);
      this.wakers.add(end);
      signal?.addEventListener('abort', end);
      globalThis.addEventListener?.('online', end);
      if (signal?.aborted) end();
    });
  }
}

export function delayOf(attempt: number, random = Math.random()): number {
  return Math.min(LAST_DELAY_MS, FIRST_DELAY_MS * 2 ** attempt) * (0.75 + random / 2);
}

export interface Following {
  open(lastEventId: string | null, signal: AbortSignal): Promise<Response>;
  onEvent(event: ServerEvent): void;
  expecting(): boolean;
  onLink(link: Link): void;
  lastEventId: string | null;
  signal: AbortSignal;
  pause: Pause;
}

const isFinal = (error: unknown): boolean =>
  error instanceof ApiError && error.status >= 400 && error.status < 500 && ![401, 408, 425, 429].includes(error.status);

/** Follows a conversation until nothing is expected any more; only a refusal that waiting cannot cure rejects. */
export async function follow(options: Following): Promise<void> {
  const { signal } = options;
  let lastEventId = options.lastEventId;
  let attempt = 0;
  while (!signal.aborted) {
    let delay: number | null = null;
    try {
      const response = await options.open(lastEventId, signal);
      options.onLink({ kind: 'open' });
      if (response.body === null) throw new Error('The stream has no body.');
      await readEvents(response.body, (event) => {
        attempt = 0;
        if (event.id !== null) lastEventId = event.id;
        options.onEvent(event);
      });
      if (!options.expecting()) break;
    } catch (error) {
      if (signal.aborted) return;
      if (isFinal(error)) throw error;
      if (!options.expecting()) break;
      if (error instanceof ApiError && error.retryAfter !== null) delay = error.retryAfter * 1000;
      delay ??= delayOf(attempt);
      options.onLink({ kind: 'waiting', until: Date.now() + delay });
    }
    await options.pause.wait(delay ?? delayOf(attempt), signal);
    attempt += 1;
  }
  options.onLink({ kind: 'idle' });
}
