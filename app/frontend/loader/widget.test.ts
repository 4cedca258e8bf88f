import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Sessions, Unavailable } from './session';
import { type Options, Widget } from './widget';

const ORIGIN = 'https://ask.example';
const options: Options = { origin: ORIGIN, slug: 'guide', label: null, position: 'right', theme: 'auto', open: false };
const assistant = { name: 'Ask the guide', brand: { brand: '#a81d45', brand_on: '#ffffff', brand_dark: '#f391ab' } };
const granted = (): Response => Response.json({ token: 't', expires_in: 3600, visitor_id: 'v', assistant }, { status: 201 });

const parts = (widget: Widget) => {
  const root = widget.host.shadowRoot as ShadowRoot;
  return { launcher: root.querySelector('.launcher') as HTMLButtonElement, panel: root.querySelector('.panel') as HTMLDialogElement, frame: root.querySelector('iframe') };
};

/** What jsdom lacks of <dialog>; tests/browser uses the real one. */
const showModal = vi.fn(function (this: HTMLDialogElement) { this.open = true; });
HTMLDialogElement.prototype.showModal = showModal;
HTMLDialogElement.prototype.close = function (this: HTMLDialogElement) {
  if (this.open) queueMicrotask(() => this.dispatchEvent(new Event('close')));
  this.open = false;
};

beforeEach(() => {
  showModal.mockClear();
  vi.stubGlobal('fetch', vi.fn(async () => granted()));
  vi.stubGlobal('matchMedia', () => Object.assign(new EventTarget(), { matches: false }));
  vi.spyOn(console, 'warn').mockImplementation(() => undefined);
});
afterEach(() => {
  localStorage.clear();
  document.body.replaceChildren();
  vi.restoreAllMocks();
  vi.unstubAllGlobals();
});

describe('the launcher', () => {
  it('wears the name and the colour of the assistant', async () => {
    const widget = new Widget(options);
    await vi.waitFor(() => expect(parts(widget).launcher.textContent).toBe('Ask the guide'));
    expect(widget.host.style.getPropertyValue('--brand')).toBe('#a81d45');
  });

  it('makes the frame only when it is pressed, and gives the focus back when it is closed', async () => {
    const widget = new Widget(options);
    expect(parts(widget).frame).toBeNull();
    parts(widget).launcher.click();
    expect(parts(widget).launcher.getAttribute('aria-expanded')).toBe('true');
    await vi.waitFor(() => expect(parts(widget).frame?.src).toContain(`${ORIGIN}/widget/frame/guide`));
    widget.close();
    expect(parts(widget).panel.open).toBe(false);
    expect(parts(widget).launcher.getAttribute('aria-expanded')).toBe('false');
    expect(widget.host.shadowRoot?.activeElement).toBe(parts(widget).launcher);
  });

  it('makes everything behind the panel unreachable only where the panel covers it', async () => {
    const phone = Object.assign(new EventTarget(), { matches: false });
    vi.stubGlobal('matchMedia', () => phone);
    document.documentElement.style.overflow = 'clip';
    const widget = new Widget(options);
    widget.open();
    expect(showModal).not.toHaveBeenCalled();
    phone.matches = true;
    phone.dispatchEvent(new Event('change')); // the window was made narrow
    expect(showModal).toHaveBeenCalledTimes(1);
    expect(document.documentElement.style.overflow).toBe('hidden');
    parts(widget).panel.close(); // as the browser does it for Escape
    await vi.waitFor(() => expect(document.documentElement.style.overflow).toBe('clip'));
    expect(parts(widget).launcher.getAttribute('aria-expanded')).toBe('false');
    expect(widget.host.shadowRoot?.activeElement).toBe(parts(widget).launcher);
    document.documentElement.style.overflow = '';
  });

  it('says in the panel and once in the console when the page is not allowed', async () => {
    vi.stubGlobal('fetch', vi.fn(async () => Response.json({ code: 'origin-not-allowed' }, { status: 403 })));
    const widget = new Widget(options);
    parts(widget).launcher.click();
    await vi.waitFor(() => expect(parts(widget).panel.textContent).toContain('not set up for this page'));
    expect(console.warn).toHaveBeenCalledTimes(1);
    expect(parts(widget).frame).toBeNull();
  });
});

describe('a message to the page', () => {
  const ready = (source: unknown, origin: string, data: unknown): void => {
    const event = new MessageEvent('message', { data, origin });
    Object.defineProperty(event, 'source', { value: source });
    dispatchEvent(event);
  };

  it('connects only the frame itself, from its own origin, in the agreed shape', async () => {
    const widget = new Widget(options);
    parts(widget).launcher.click();
    await vi.waitFor(() => expect(parts(widget).frame).not.toBeNull());
    const post = vi.fn();
    const target = { postMessage: post, focus: () => undefined };
    Object.defineProperty(parts(widget).frame, 'contentWindow', { value: target }); // jsdom loads no frame in a shadow root
    const hello = { type: 'retort:ready' };
    ready(window, ORIGIN, hello);
    ready(target, 'https://evil.example', hello);
    ready(target, ORIGIN, { type: 'ready' });
    expect(post).not.toHaveBeenCalled();
    ready(target, ORIGIN, hello);
    expect(post).toHaveBeenCalledWith({ type: 'retort:connect' }, ORIGIN, [expect.anything()]);
    expect(JSON.stringify(post.mock.calls[0]?.[0])).not.toContain('token');
  });
});

describe('sessions', () => {
  it('ask the server once while the token is fresh, and send it along to keep the visitor', async () => {
    const sessions = new Sessions(ORIGIN, 'guide');
    await Promise.all([sessions.get(), sessions.get()]);
    await sessions.get();
    expect(fetch).toHaveBeenCalledTimes(1);
    await new Sessions(ORIGIN, 'guide').get(true);
    expect(JSON.parse(String(vi.mocked(fetch).mock.calls[1]?.[1]?.body))).toEqual({ assistant: 'guide', visitor_token: 't' });
  });

  it('begin anew when the server does not know the old token', async () => {
    const sessions = new Sessions(ORIGIN, 'guide');
    sessions.keep({ token: 'old', conversation_id: 'c' });
    vi.mocked(fetch).mockResolvedValueOnce(Response.json({ code: 'token-invalid' }, { status: 401 }));
    expect((await sessions.get(true)).token).toBe('t');
    expect(sessions.memory.conversation_id).toBeNull();
  });

  it('work where the storage is closed', async () => {
    vi.spyOn(Storage.prototype, 'getItem').mockImplementation(() => { throw new Error('closed'); });
    vi.spyOn(Storage.prototype, 'setItem').mockImplementation(() => { throw new Error('closed'); });
    expect((await new Sessions(ORIGIN, 'guide').get()).token).toBe('t');
  });

  it('trust nothing that is stored', () => {
    localStorage.setItem('retort:guide', JSON.stringify({ token: 5, expires_at: 'x', conversation_id: [], look: { name: 'x', brand: 'url(evil)', brand_on: '#fff' } }));
    expect(new Sessions(ORIGIN, 'guide').memory).toEqual({ token: null, expires_at: 0, conversation_id: null, look: null });
  });

  it('tell apart an unknown assistant, a page that is not allowed, and a server that is away', async () => {
    const failing = async (answer: Response | Error): Promise<Unavailable> => {
      vi.mocked(fetch).mockImplementationOnce(() => (answer instanceof Error ? Promise.reject(answer) : Promise.resolve(answer)));
      return new Sessions(ORIGIN, 'nope').get().then(() => { throw new Error('no refusal'); }, (error: Unavailable) => error);
    };
    expect((await failing(Response.json({}, { status: 404 }))).log).toContain('There is no assistant "nope"');
    expect((await failing(Response.json({}, { status: 403 }))).log).toContain('Add this origin');
    expect((await failing(new TypeError('Failed to fetch'))).again).toBe(true);
  });
});
