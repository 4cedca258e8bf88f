/** The launcher button and its panel, in a shadow root on the owner's page. */
import { isReady, isToLoader, type ToFrame } from '../shared/channel';
import { type Look, Sessions, Unavailable } from './session';
import { css } from './style';

export interface Options {
  origin: string;
  slug: string;
  label: string | null;
  position: 'left' | 'right';
  theme: 'light' | 'dark' | 'auto';
  open: boolean;
}

const LOAD_MS = 15_000; // for the frame to say that it is there
const PHONE = '(max-width: 480px)';
const DEFAULT_LOOK: Look = { name: 'Ask a question', brand: '#0b6e63', brand_on: '#ffffff' };
/** Lucide: message-circle-question-mark. */
const GLYPH = ['M2.992 16.342a2 2 0 0 1 .094 1.167l-1.065 3.29a1 1 0 0 0 1.236 1.168l3.413-.998a2 2 0 0 1 1.099.092 10 10 0 1 0-4.777-4.719', 'M9.09 9a3 3 0 0 1 5.83 1c0 2-3 3-3 3', 'M12 17h.01'];

function make<K extends keyof HTMLElementTagNameMap>(tag: K, className = '', text = ''): HTMLElementTagNameMap[K] {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text) node.textContent = text;
  return node;
}

function glyph(): SVGSVGElement {
  const space = 'http://www.w3.org/2000/svg';
  const svg = document.createElementNS(space, 'svg');
  svg.setAttribute('viewBox', '0 0 24 24');
  svg.setAttribute('aria-hidden', 'true');
  for (const d of GLYPH) svg.appendChild(document.createElementNS(space, 'path')).setAttribute('d', d);
  return svg;
}

export class Widget {
  readonly host = document.createElement('retort-widget');
  private readonly wrap = make('div');
  private readonly launcher = make('button', 'launcher');
  private readonly label = make('span');
  private readonly panel = make('dialog', 'panel');
  private readonly phone = matchMedia(PHONE);
  private readonly sessions: Sessions;
  private frame: HTMLIFrameElement | null = null;
  private port: MessagePort | null = null;
  private timer = 0;
  private told = '';
  /** Whether the visitor asked for the panel; one that opens by itself takes no focus. */
  private wanted = false;
  /** The page's own `overflow`, while the panel covers the page. */
  private covered: string | null = null;

  constructor(private readonly options: Options) {
    this.sessions = new Sessions(options.origin, options.slug);
    const root = this.host.attachShadow({ mode: 'open' });
    this.style(root);
    if (options.theme !== 'auto') this.host.dataset['theme'] = options.theme;
    this.wrap.className = options.position;
    this.launcher.type = 'button';
    this.launcher.append(glyph(), this.label);
    this.launcher.setAttribute('aria-controls', 'retort-panel');
    this.panel.id = 'retort-panel';
    this.wrap.append(this.panel, this.launcher);
    root.append(this.wrap);
    this.dress();
    this.expanded(false);
    this.launcher.addEventListener('click', () => (this.panel.open ? this.close() : this.open()));
    this.panel.addEventListener('close', () => {
      if (!this.panel.open) this.close(); // by the browser itself: Escape, or a phone's way back
    });
    this.phone.addEventListener('change', () => {
      if (!this.panel.open) return;
      this.show();
      this.frame?.focus();
    });
    this.wrap.addEventListener('keydown', (event) => {
      if (event.key === 'Escape') this.close();
    });
    addEventListener('message', this.onWindowMessage);
    document.body.append(this.host);
    if (options.open) this.open(false);
    else if (!this.sessions.fresh) this.sessions.get().then(() => this.dress(), this.tell);
  }

  open(focus = true): void {
    this.show();
    this.expanded(true);
    if (this.frame) {
      this.post({ type: 'shown' });
      this.frame.focus();
    } else {
      this.wanted = focus;
      this.start();
    }
  }

  close(): void {
    if (this.launcher.getAttribute('aria-expanded') === 'false') return;
    this.expanded(false);
    this.panel.close();
    this.uncover();
    this.launcher.focus();
  }

  /** Beside the page the panel takes nothing away. On a phone it covers the page, and nothing behind it can be reached. */
  private show(): void {
    if (this.panel.open) this.panel.close();
    this.uncover();
    if (!this.phone.matches) {
      this.panel.open = true; // unlike `show()`, leaves the focus where it is
      return;
    }
    this.covered = document.documentElement.style.overflow;
    document.documentElement.style.overflow = 'hidden';
    this.panel.showModal();
  }

  private uncover(): void {
    if (this.covered !== null) document.documentElement.style.overflow = this.covered;
    this.covered = null;
  }

  private expanded(open: boolean): void {
    this.launcher.setAttribute('aria-expanded', String(open));
    this.wrap.classList.toggle('open', open);
  }

  private style(root: ShadowRoot): void {
    if ('adoptedStyleSheets' in root) {
      const sheet = new CSSStyleSheet(); // allowed by any style-src of the page
      sheet.replaceSync(css);
      root.adoptedStyleSheets = [sheet];
    } else (root as ShadowRoot).append(make('style', '', css));
  }

  private dress(): void {
    const look = this.sessions.memory.look ?? DEFAULT_LOOK;
    const name = this.options.label ?? look.name;
    this.label.textContent = name;
    this.panel.setAttribute('aria-label', name);
    this.host.style.setProperty('--brand', look.brand);
    this.host.style.setProperty('--brand-on', look.brand_on);
  }

  private start(): void {
    const wait = make('div', 'note');
    const ring = wait.appendChild(make('span', 'wait'));
    ring.setAttribute('role', 'status');
    ring.setAttribute('aria-label', 'Opening');
    this.panel.replaceChildren(wait);
    this.sessions.get().then(
      (memory) => {
        this.dress();
        this.embed(memory.conversation_id !== null);
      },
      (error) => this.fail(error),
    );
  }

  private embed(resumes: boolean): void {
    const { origin, slug, theme } = this.options;
    const frame = make('iframe');
    frame.title = this.label.textContent ?? slug;
    frame.allow = 'clipboard-write';
    frame.src = `${origin}/widget/frame/${encodeURIComponent(slug)}#${new URLSearchParams({ theme, resumes: String(resumes) })}`;
    this.frame = frame;
    this.panel.append(frame);
    this.timer = window.setTimeout(() => {
      this.fail(new Unavailable(`The frame of "${slug}" did not load from ${origin}. Does this page's Content-Security-Policy allow frame-src ${origin}?`, 'The assistant did not load.', true));
    }, LOAD_MS);
  }

  private readonly onWindowMessage = (event: MessageEvent): void => {
    const target = this.frame?.contentWindow;
    if (!target || event.source !== target || event.origin !== this.options.origin || !isReady(event.data)) return;
    clearTimeout(this.timer);
    this.port?.close();
    const channel = new MessageChannel();
    this.port = channel.port1;
    this.port.onmessage = this.onPortMessage;
    target.postMessage({ type: 'retort:connect' }, this.options.origin, [channel.port2]);
    void this.handOver(false);
    this.panel.querySelector('.note')?.remove();
    if (this.wanted && this.panel.open) {
      this.frame?.focus();
      this.post({ type: 'shown' });
    }
  };

  private readonly onPortMessage = ({ data }: MessageEvent): void => {
    if (!isToLoader(data)) return;
    if (data.type === 'close') this.close();
    else if (data.type === 'conversation') this.sessions.keep({ conversation_id: data.id });
    else void this.handOver(true);
  };

  private async handOver(renew: boolean): Promise<void> {
    try {
      const { token, expires_at, conversation_id } = await this.sessions.get(renew);
      if (token) this.post({ type: 'session', token, expires_at, conversation_id });
    } catch (error) {
      this.tell(error);
      this.post({ type: 'unavailable', text: error instanceof Unavailable ? error.text : 'The assistant cannot be reached from here right now.' });
    }
  }

  private post(message: ToFrame): void {
    this.port?.postMessage(message);
  }

  /** One line for each thing that is wrong, however often it is met. */
  private readonly tell = (error: unknown): void => {
    const line = error instanceof Unavailable ? error.log : String(error);
    if (line !== this.told) console.warn(`[Retort] ${line}`);
    this.told = line;
  };

  private fail(error: unknown): void {
    this.tell(error);
    clearTimeout(this.timer);
    this.port?.close();
    this.port = this.frame = null;
    const note = make('div', 'note');
    note.setAttribute('role', 'alert');
    const again = !(error instanceof Unavailable) || error.again;
    const acts = make('div');
    const button = (text: string, act: () => void): HTMLButtonElement => {
      const node = acts.appendChild(make('button', '', text));
      node.addEventListener('click', act);
      return node;
    };
    const first = again ? button('Try again', () => this.start()) : null;
    const close = button('Close', () => this.close());
    note.append(make('b', '', 'No assistant here right now'), make('p', '', error instanceof Unavailable ? error.text : 'Try again in a moment.'), acts);
    this.panel.replaceChildren(note);
    if (this.panel.open) (first ?? close).focus();
  }
}
