/** Wording as sanitised Markdown: text, lists, code, and links to where they are allowed; no HTML, no images. */
import DOMPurify from 'dompurify';
import { Marked } from 'marked';

const TAGS = ['p', 'br', 'strong', 'em', 'del', 'code', 'pre', 'ul', 'ol', 'li', 'blockquote', 'a', 'hr', 'h1', 'h2', 'h3', 'h4', 'table', 'thead', 'tbody', 'tr', 'th', 'td'];
const LINK = /^(?:https?:|mailto:)/i;

const escape = (text: string): string =>
  text.replace(/[&<>"]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c] ?? c);

const marked = new Marked({ gfm: true, breaks: false, async: false });
marked.use({
  renderer: {
    html: ({ text }) => escape(text), // shown as written, never parsed
    image: ({ text }) => escape(text),
    checkbox: ({ checked }) => (checked ? '[x] ' : '[ ] '),
  },
});

export const isSafeLink = (url: string): boolean => LINK.test(url.trim());

/** Where wording may lead: the hosts of the cited pages and of the assistant's contact, and its address. */
export interface Allowed {
  hosts: ReadonlySet<string>;
  email: string | null;
}

export const nowhere: Allowed = { hosts: new Set(), email: null };

const hostOf = (url: string): string => (/^https?:/i.test(url.trim()) && URL.canParse(url) ? new URL(url).host : '');

export function allowedBy(pages: { url: string }[], contact: { email: string | null; url: string | null }): Allowed {
  const hosts = [...pages.map((page) => page.url), contact.url ?? ''].map(hostOf);
  return { hosts: new Set(hosts.filter((host) => host !== '')), email: contact.email };
}

function leads(url: string, { hosts, email }: Allowed): boolean {
  if (/^mailto:/i.test(url)) return email !== null && url.slice('mailto:'.length).toLowerCase() === email.toLowerCase();
  return hosts.has(hostOf(url));
}

export function render(markdown: string, allowed: Allowed = nowhere): DocumentFragment {
  const fragment = DOMPurify.sanitize(marked.parse(markdown) as string, {
    ALLOWED_TAGS: TAGS,
    ALLOWED_ATTR: ['href', 'start'],
    ALLOWED_URI_REGEXP: LINK,
    ALLOW_DATA_ATTR: false,
    ALLOW_ARIA_ATTR: false,
    RETURN_DOM_FRAGMENT: true,
  });
  for (const link of fragment.querySelectorAll('a')) {
    if (!leads(link.getAttribute('href') ?? '', allowed)) {
      link.replaceWith(...link.childNodes);
      continue;
    }
    link.target = '_blank';
    link.rel = 'noopener noreferrer';
  }
  for (const scrolling of fragment.querySelectorAll('pre')) scrolling.tabIndex = 0;
  return fragment;
}

/** The text without marks, for the clipboard and the screen reader. */
export function plain(markdown: string): string {
  const fragment = render(markdown);
  for (const block of fragment.querySelectorAll('p, li, pre, h1, h2, h3, h4, tr, br')) block.append('\n');
  return (fragment.textContent ?? '').replace(/\n{3,}/g, '\n\n').trim();
}
