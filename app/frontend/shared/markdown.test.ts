import { describe, expect, it } from 'vitest';
import { allowedBy, isSafeLink, plain, render } from './markdown';

const cited = allowedBy([{ url: 'https://example.org/page#a' }, { url: 'http://127.0.0.1:8460/guide' }, { url: 'not an address' }], { email: 'Desk@example.com', url: 'https://help.example.net/contact' });
const html = (markdown: string): string => {
  const box = document.createElement('div');
  box.append(render(markdown));
  return box.innerHTML;
};

describe('wording as Markdown', () => {
  it('keeps text, code, emphasis and lists', () => {
    expect(html('Run `apt update`, **then**:\n\n- one\n- two')).toBe('<p>Run <code>apt update</code>, <strong>then</strong>:</p>\n<ul>\n<li>one</li>\n<li>two</li>\n</ul>\n');
  });

  it('shows HTML as it was written and runs none of it', () => {
    const box = html('<img src=x onerror=alert(1)> and <script>alert(1)</script>\n\n<iframe src="https://example.org"></iframe>');
    expect(box).not.toMatch(/<(img|script|iframe)/i);
    expect(box).toContain('&lt;img src=x onerror=alert(1)&gt;');
  });

  it('has no images', () => {
    expect(html('![a picture](https://example.org/track.png)')).toBe('<p>a picture</p>\n');
  });

  it.each(['javascript:alert(1)', 'JaVaScRiPt:alert(1)', 'data:text/html,x', 'vbscript:x', '/relative', '//example.org', 'java&#x73;cript:alert(1)'])('does not link to %s', (url) => {
    expect(render(`[press](${url})`, cited).querySelector('a')).toBeNull();
  });

  it.each(['https://example.org/a#b', 'http://EXAMPLE.org', 'http://127.0.0.1:8460/x', 'https://help.example.net/', 'mailto:desk@example.com'])('links to %s in a new tab that cannot reach back', (url) => {
    const link = render(`[press](${url})`, cited).querySelector('a');
    expect(link?.getAttribute('href')).toBe(url);
    expect(link?.target).toBe('_blank');
    expect(link?.rel).toContain('noopener');
  });

  it.each([
    'https://evil.example/', 'https://example.org.evil.example/', 'https://example.org@evil.example/', 'https://sub.example.org/', 'http://127.0.0.1:8461/',
    'http:///evil.example', 'https:\\\\evil.example', 'mailto:other@example.com', 'mailto:desk@example.com,other@example.com', 'mailto:desk@example.com?bcc=x@evil.example',
  ])('does not lead to %s, which no source and no contact is at', (url) => {
    const drawn = render(`[press](${url})`, cited);
    expect(drawn.querySelector('a')).toBeNull();
    expect(drawn.textContent).toContain('press');
  });

  it('leads nowhere when nothing is allowed', () => {
    expect(render('https://example.org www.example.org a@example.org').querySelector('a')).toBeNull();
  });

  it('keeps no attribute but the link', () => {
    const { attributes } = render('[a](https://example.org "title")', cited).querySelector('a') as HTMLAnchorElement;
    expect([...attributes].map((a) => a.name).sort()).toEqual(['href', 'rel', 'target']);
  });

  it('can be read as plain text', () => {
    expect(plain('**One** `two`.\n\n- three')).toBe('One two.\n\nthree');
  });
});

it('knows a link that may be opened', () => {
  expect(isSafeLink(' https://example.org')).toBe(true);
  expect(isSafeLink('javascript:alert(1)')).toBe(false);
});
