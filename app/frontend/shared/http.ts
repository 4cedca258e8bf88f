/** One way to call the server: problem documents become `ApiError`, a missing network becomes `Offline`. */

const TIMEOUT_MS = 20_000;

export class ApiError extends Error {
  override readonly name = 'ApiError';
  constructor(
    readonly status: number,
    readonly code: string,
    readonly title: string,
    readonly detail: string,
    readonly field: string | null,
    /** Seconds, from `Retry-After`. */
    readonly retryAfter: number | null,
  ) {
    super(detail || title);
  }
}

export class Offline extends Error {
  override readonly name = 'Offline';
  constructor() {
    super('The server could not be reached.');
  }
}

const text = (value: unknown): string => (typeof value === 'string' ? value : '');

export async function toError(response: Response): Promise<ApiError> {
  let body: Record<string, unknown> = {};
  try {
    const parsed: unknown = await response.json();
    if (parsed !== null && typeof parsed === 'object') body = parsed as Record<string, unknown>;
  } catch {
    // A proxy's own error page carries no problem document.
  }
  const seconds = Number(response.headers.get('Retry-After'));
  return new ApiError(
    response.status,
    text(body['code']) || `http-${response.status}`,
    text(body['title']) || 'The request was not accepted',
    text(body['detail']) || `The server answered ${response.status}. Try again in a moment.`,
    text(body['field']) || null,
    response.headers.has('Retry-After') && Number.isFinite(seconds) ? Math.max(0, seconds) : null,
  );
}

export interface Call {
  method?: string;
  body?: unknown;
  headers?: Record<string, string>;
  signal?: AbortSignal | undefined;
  /** A stream has no time limit of its own. */
  stream?: boolean;
  keepalive?: boolean;
}

export async function request(url: string, call: Call = {}): Promise<Response> {
  const signals = [call.signal, call.stream ? undefined : AbortSignal.timeout(TIMEOUT_MS)].filter((s) => s !== undefined);
  const headers: Record<string, string> = { Accept: call.stream ? 'text/event-stream' : 'application/json', ...call.headers };
  const init: RequestInit = { method: call.method ?? 'GET', headers, cache: 'no-store', keepalive: call.keepalive ?? false };
  if (signals.length > 0) init.signal = AbortSignal.any(signals);
  if (call.body !== undefined) {
    headers['Content-Type'] = 'application/json';
    init.body = JSON.stringify(call.body);
  }
  let response: Response;
  try {
    response = await fetch(url, init);
  } catch (error) {
    if (call.signal?.aborted) throw error;
    throw new Offline();
  }
  if (!response.ok) throw await toError(response);
  return response;
}

export async function json<T>(response: Promise<Response>): Promise<T> {
  return (await (await response).json()) as T;
}

/** What to tell a person about any error. */
export function explain(error: unknown): string {
  if (error instanceof ApiError || error instanceof Offline) return error.message;
  return 'Something did not work. Try again.';
}
