/** The members' API: session cookie, CSRF header on every unsafe call, sign-in again when the session has ended. */
import { signal } from '@preact/signals';
import type { Transport } from '../shared/conversation';
import { ApiError, type Call, json, request } from '../shared/http';
import { readConfig } from '../widget/config';
import type { AssistantDetail, DocumentDetail, DocumentRow, Hit, Me, Page, Source, TracedMessage } from './types';

export interface Config {
  api: string;
  visitor_origin: string;
}

export const config = readConfig<Config>();

/** `undefined` until the server has said who is here, `null` for nobody. */
export const me = signal<Me | null | undefined>(undefined);

async function call(path: string, options: Call = {}): Promise<Response> {
  const unsafe = options.method !== undefined && options.method !== 'GET';
  const csrf: Record<string, string> = unsafe && me.value ? { 'X-CSRF-Token': me.value.csrf_token } : {};
  try {
    return await request(`${config.api}${path}`, { ...options, headers: { ...options.headers, ...csrf } });
  } catch (error) {
    if (error instanceof ApiError && error.status === 401) me.value = null;
    throw error;
  }
}

const get = <T>(path: string): Promise<T> => json<T>(call(path));
const post = <T>(path: string, body: unknown = {}): Promise<T> => json<T>(call(path, { method: 'POST', body }));
const query = (values: Record<string, string | null | undefined>): string => {
  const search = new URLSearchParams();
  for (const [key, value] of Object.entries(values)) if (value) search.set(key, value);
  const text = search.toString();
  return text ? `?${text}` : '';
};

export const api = {
  me: () => get<Me>('/me'),
  signIn: (email: string, password: string) => post<Me>('/sign-in', { email, password }),
  signInByLink: (token: string) => post<Me>('/sign-in/link', { token }),
  signOut: () => call('/sign-out', { method: 'POST' }),
  setPassword: (password: string, current: string) => call('/me/password', { method: 'PUT', body: current === '' ? { password } : { password, current_password: current } }),

  assistants: () => get<Page<AssistantDetail>>('/assistants?limit=100'),
  /** The same key again gives the same assistant. */
  createAssistant: (asked: { name: string; slug?: string }, key: string) =>
    json<AssistantDetail>(call('/assistants', { method: 'POST', body: asked, headers: { 'Idempotency-Key': key } })),
  changeAssistant: (id: string, change: Record<string, unknown>) => json<AssistantDetail>(call(`/assistants/${id}`, { method: 'PATCH', body: change })),
  search: (id: string, text: string) => post<{ passages: Hit[]; ms: number }>(`/assistants/${id}/search`, { query: text }),

  sources: () => get<Page<Source>>('/sources?limit=100'),
  source: (id: string) => get<Source>(`/sources/${id}`),
  addWebsite: (url: string, assistant: string) => post<Source>('/sources', { kind: 'website', url, assistant }),
  readAgain: (id: string) => post<Source>(`/sources/${id}/read`),
  removeSource: (id: string) => call(`/sources/${id}`, { method: 'DELETE', keepalive: true }),
  documents: (source: string, filter: { status?: string | null; q?: string; cursor?: string | null; limit?: number }) =>
    get<Page<DocumentRow>>(`/sources/${source}/documents${query({ status: filter.status, q: filter.q, cursor: filter.cursor, limit: String(filter.limit ?? 50) })}`),
  document: (id: string) => get<DocumentDetail>(`/documents/${id}`),
  message: (id: string) => get<TracedMessage>(`/messages/${id}`),
};

/** A member's own trial conversation with an assistant. */
export function memberTransport(assistant: string): Transport {
  return {
    create: () => post(`/assistants/${assistant}/conversations`),
    load: (id) => get(`/conversations/${id}`),
    post: (id, text, key) => json(call(`/conversations/${id}/messages`, { method: 'POST', body: { text }, headers: { 'Idempotency-Key': key } })),
    events: (id, lastEventId, abort) => call(`/conversations/${id}/events`, { stream: true, signal: abort, headers: lastEventId === null ? {} : { 'Last-Event-ID': lastEventId } }),
    stop: (messageId) => post(`/messages/${messageId}/stop`),
    retry: (messageId) => post(`/messages/${messageId}/retry`),
  };
}
