/** The visitor's token, asked for from the owner's page by CORS, and what this browser remembers of the assistant. */

export interface Look {
  name: string;
  brand: string;
  brand_on: string;
}

export interface Memory {
  token: string | null;
  /** Milliseconds since 1970. */
  expires_at: number;
  conversation_id: string | null;
  look: Look | null;
}

export class Unavailable extends Error {
  constructor(
    /** For the owner, in the console. */
    readonly log: string,
    /** For the visitor, in the panel. */
    readonly text: string,
    readonly again: boolean,
  ) {
    super(log);
  }
}

/** A token is renewed this long before it ends, so that no request meets its end. */
const MARGIN_MS = 60_000;

const blank: Memory = { token: null, expires_at: 0, conversation_id: null, look: null };
const isColour = (value: unknown): value is string => typeof value === 'string' && /^#[0-9a-f]{3,8}$/i.test(value);
const str = (value: unknown): string | null => (typeof value === 'string' && value !== '' ? value : null);

function toLook(data: unknown): Look | null {
  const look = data as Partial<Record<keyof Look, unknown>> | null | undefined;
  return look && typeof look === 'object' && typeof look.name === 'string' && isColour(look.brand) && isColour(look.brand_on)
    ? { name: look.name, brand: look.brand, brand_on: look.brand_on }
    : null;
}

export class Sessions {
  private readonly key: string;
  memory: Memory;
  private running: Promise<Memory> | null = null;

  constructor(
    private readonly origin: string,
    private readonly slug: string,
  ) {
    this.key = `retort:${slug}`;
    this.memory = this.recall();
  }

  get fresh(): boolean {
    return this.memory.token !== null && this.memory.expires_at - MARGIN_MS > Date.now();
  }

  keep(change: Partial<Memory>): void {
    this.memory = { ...this.memory, ...change };
    try {
      localStorage.setItem(this.key, JSON.stringify(this.memory));
    } catch {
      // Storage is closed to us: the memory lasts as long as the page.
    }
  }

  /** A valid session; `renew` asks the server even if the token looks fresh. Parallel callers share one request. */
  get(renew = false): Promise<Memory> {
    if (this.fresh && !renew) return Promise.resolve(this.memory);
    this.running ??= this.ask().finally(() => (this.running = null));
    return this.running;
  }

  private recall(): Memory {
    try {
      const data = JSON.parse(localStorage.getItem(this.key) ?? 'null') as Record<string, unknown> | null;
      if (!data || typeof data !== 'object') return { ...blank };
      const expires = data['expires_at'];
      return { token: str(data['token']), expires_at: typeof expires === 'number' ? expires : 0, conversation_id: str(data['conversation_id']), look: toLook(data['look']) };
    } catch {
      return { ...blank };
    }
  }

  private async ask(): Promise<Memory> {
    const { token } = this.memory;
    let response: Response;
    try {
      response = await fetch(`${this.origin}/widget/v1/session`, {
        method: 'POST',
        credentials: 'omit',
        headers: { 'Content-Type': 'application/json' },
        body: JSON.stringify(token ? { assistant: this.slug, visitor_token: token } : { assistant: this.slug }),
      });
    } catch {
      throw new Unavailable(
        `No answer from ${this.origin}: it is not running, or it does not allow ${location.origin}. Allowed origins are set in the dashboard, under Assistant.`,
        'The assistant cannot be reached from here right now.',
        true,
      );
    }
    if (response.status === 401 && token) {
      this.keep({ token: null, conversation_id: null }); // a token of another time or key: begin anew
      return this.ask();
    }
    if (!response.ok) throw await this.refusal(response);
    const body = (await response.json()) as Record<string, unknown>;
    const assistant = body['assistant'] as { name?: unknown; brand?: Record<string, unknown> } | undefined;
    const life = Number(body['expires_in']);
    this.keep({
      token: str(body['token']),
      expires_at: Date.now() + (Number.isFinite(life) ? life : 0) * 1000,
      look: toLook({ name: assistant?.name, ...assistant?.brand }) ?? this.memory.look,
    });
    return this.memory;
  }

  private async refusal(response: Response): Promise<Unavailable> {
    const code = await response.json().then((p: { code?: unknown }) => p.code, () => null);
    if (response.status === 404) {
      return new Unavailable(`There is no assistant "${this.slug}" at ${this.origin}. Check data-assistant.`, 'This assistant does not exist any more.', false);
    }
    if (response.status === 403) {
      return new Unavailable(
        `"${this.slug}" may not answer on ${location.origin}. Add this origin in the dashboard, under Assistant, Allowed origins.`,
        'This assistant is not set up for this page.',
        false,
      );
    }
    return new Unavailable(`${this.origin} answered ${response.status}${code ? ` (${code})` : ''}.`, 'The assistant cannot be reached from here right now.', true);
  }
}
