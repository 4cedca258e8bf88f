/** The visitor's API, with a token that renews itself once when the server refuses it. */
import type { Transport } from '../shared/conversation';
import { ApiError, type Call, json, request } from '../shared/http';
import type { VisitorSession } from './session';

export function visitorTransport(api: string, session: VisitorSession): Transport {
  const call = async (path: string, options: Call = {}): Promise<Response> => {
    const attempt = async (renew: boolean): Promise<Response> => {
      const token = await session.token(renew);
      return request(`${api}${path}`, { ...options, headers: { ...options.headers, Authorization: `Bearer ${token}` } });
    };
    try {
      return await attempt(false);
    } catch (error) {
      if (error instanceof ApiError && error.status === 401) return attempt(true);
      throw error;
    }
  };
  return {
    create: () => json(call('/conversations', { method: 'POST', body: {} })),
    load: (id) => json(call(`/conversations/${id}`)),
    post: (id, text, key) => json(call(`/conversations/${id}/messages`, { method: 'POST', body: { text }, headers: { 'Idempotency-Key': key } })),
    events: (id, lastEventId, signal) =>
      call(`/conversations/${id}/events`, { stream: true, signal, headers: lastEventId === null ? {} : { 'Last-Event-ID': lastEventId } }),
    stop: (messageId) => json(call(`/messages/${messageId}/stop`, { method: 'POST', body: {} })),
    retry: (messageId) => json(call(`/messages/${messageId}/retry`, { method: 'POST', body: {} })),
  };
}
