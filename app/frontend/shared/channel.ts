/** What the loader on the owner's page and the application in its frame say to each other. Neither trusts the other's shape. */

/** Loader → frame, by window message with the port; everything after goes over the port. */
export interface Connect {
  type: 'retort:connect';
}

/** Frame → loader, by window message: listens now. */
export interface Ready {
  type: 'retort:ready';
}

export type ToFrame =
  | { type: 'session'; token: string; expires_at: number; conversation_id: string | null }
  | { type: 'unavailable'; text: string }
  | { type: 'shown' };

export type ToLoader =
  | { type: 'token-wanted' }
  | { type: 'conversation'; id: string | null }
  | { type: 'close' };

type Loose = Record<string, unknown>;

const loose = (data: unknown): Loose | null => (data !== null && typeof data === 'object' && !Array.isArray(data) ? (data as Loose) : null);
const isIdentifier = (value: unknown): value is string => typeof value === 'string' && /^[\w-]{1,64}$/.test(value);

export const isReady = (data: unknown): data is Ready => loose(data)?.['type'] === 'retort:ready';

export const isConnect = (data: unknown): data is Connect => loose(data)?.['type'] === 'retort:connect';

export function isToLoader(data: unknown): data is ToLoader {
  const message = loose(data);
  if (!message) return false;
  if (message['type'] === 'conversation') return message['id'] === null || isIdentifier(message['id']);
  return message['type'] === 'token-wanted' || message['type'] === 'close';
}

export function isToFrame(data: unknown): data is ToFrame {
  const message = loose(data);
  if (!message) return false;
  if (message['type'] === 'session') {
    const id = message['conversation_id'];
    return typeof message['token'] === 'string' && message['token'] !== '' && typeof message['expires_at'] === 'number' && (id === null || isIdentifier(id));
  }
  if (message['type'] === 'unavailable') return typeof message['text'] === 'string';
  return message['type'] === 'shown';
}
