/** Where the visitor's token comes from: the loader by MessageChannel in a frame, the server itself on the full page. */
import { isConnect, isToFrame, type ToLoader } from '../shared/channel';
import { json, Offline, request } from '../shared/http';
import type { Session as SessionAnswer } from '../shared/types';

export interface VisitorSession {
  /** A valid token; `renew` after the server refused the last one. */
  token(renew?: boolean): Promise<string>;
  /** The conversation of the last visit. */
  remembered(): Promise<string | null>;
  remember(id: string | null): void;
}

interface Grant {
  token: string;
  expires_at: number;
  conversation_id: string | null;
}

const MARGIN_MS = 30_000; // renewed this long before its end
const WAIT_MS = 20_000; // for the loader to answer

const fresh = (grant: Grant | null): grant is Grant => grant !== null && grant.expires_at - MARGIN_MS > Date.now();

export class FrameSession implements VisitorSession {
  private grant: Grant | null = null;
  private port: MessagePort | null = null;
  private waiting: { resolve(grant: Grant): void; reject(error: Error): void }[] = [];

  constructor(private readonly onShown: () => void) {
    addEventListener('message', this.onWindowMessage);
    parent.postMessage({ type: 'retort:ready' }, '*'); // says nothing but that we are here
  }

  async token(renew = false): Promise<string> {
    if (!renew && fresh(this.grant)) return this.grant.token;
    if (this.port && this.grant) this.post({ type: 'token-wanted' });
    return (await this.next()).token;
  }

  async remembered(): Promise<string | null> {
    return (this.grant ?? (await this.next())).conversation_id;
  }

  remember(id: string | null): void {
    this.post({ type: 'conversation', id });
  }

  close(): void {
    this.post({ type: 'close' });
  }

  private post(message: ToLoader): void {
    this.port?.postMessage(message);
  }

  private next(): Promise<Grant> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Offline()), WAIT_MS);
      this.waiting.push({
        resolve: (grant) => (clearTimeout(timer), resolve(grant)),
        reject: (error) => (clearTimeout(timer), reject(error)),
      });
    });
  }

  /** The first page that embeds us gets the port; its origin was checked by `frame-ancestors` before we ran. */
  private readonly onWindowMessage = (event: MessageEvent): void => {
    const [port] = event.ports;
    if (event.source !== parent || !isParentOrigin(event.origin) || !port || !isConnect(event.data)) return;
    removeEventListener('message', this.onWindowMessage);
    this.port = port;
    port.onmessage = ({ data }) => {
      if (!isToFrame(data)) return;
      if (data.type === 'shown') return this.onShown();
      const waiting = this.waiting.splice(0);
      if (data.type === 'unavailable') {
        for (const one of waiting) one.reject(new Offline());
        return;
      }
      this.grant = { token: data.token, expires_at: data.expires_at, conversation_id: data.conversation_id };
      for (const one of waiting) one.resolve(this.grant);
    };
  };
}

/** Chromium and Safari tell who embeds us; elsewhere any web origin that `frame-ancestors` admitted. */
export function isParentOrigin(origin: string, ancestors: ArrayLike<string> | undefined = location.ancestorOrigins): boolean {
  return ancestors && ancestors.length > 0 ? ancestors[0] === origin : /^https?:\/\//.test(origin);
}

export class PageSession implements VisitorSession {
  private readonly key: string;
  private grant: Grant | null;
  private running: Promise<Grant> | null = null;

  constructor(
    private readonly api: string,
    private readonly slug: string,
  ) {
    this.key = `retort:${slug}`;
    this.grant = this.recall();
  }

  async token(renew = false): Promise<string> {
    if (!renew && fresh(this.grant)) return this.grant.token;
    this.running ??= this.ask().finally(() => (this.running = null));
    return (await this.running).token;
  }

  remembered(): Promise<string | null> {
    return Promise.resolve(this.grant?.conversation_id ?? null);
  }

  remember(id: string | null): void {
    if (this.grant) this.keep({ ...this.grant, conversation_id: id });
  }

  private recall(): Grant | null {
    try {
      const stored: unknown = { type: 'session', ...JSON.parse(localStorage.getItem(this.key) ?? 'null') };
      return isToFrame(stored) && stored.type === 'session' ? stored : null;
    } catch {
      return null;
    }
  }

  private keep(grant: Grant): Grant {
    this.grant = grant;
    try {
      localStorage.setItem(this.key, JSON.stringify(grant));
    } catch {
      // Without storage the conversation lasts as long as the page.
    }
    return grant;
  }

  private async ask(anew = false): Promise<Grant> {
    const old = anew ? null : this.grant;
    const body = old ? { assistant: this.slug, visitor_token: old.token } : { assistant: this.slug };
    try {
      const { token, expires_in } = await json<SessionAnswer>(request(`${this.api}/session`, { method: 'POST', body }));
      return this.keep({ token, expires_at: Date.now() + expires_in * 1000, conversation_id: this.grant?.conversation_id ?? null });
    } catch (error) {
      if (old && !(error instanceof Offline)) return this.ask(true); // a token that the server cannot read any more
      throw error;
    }
  }
}
