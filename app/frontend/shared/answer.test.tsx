import { render } from 'preact';
import { act } from 'preact/test-utils';
import { afterEach, describe, expect, it } from 'vitest';
import { Answer, spoken } from './answer';
import type { Evidence, Message, Nearest } from './types';

const place = { url: 'https://docs.example.org/plugins#hooks', title: 'Plugins', heading_path: ['Guide', 'Plugins'] };
const evidence = (text: string): Evidence => ({ number: 1, text, passage_id: 'p', document_id: 'd', ...place });
const contact = { email: 'desk@example.org', url: 'https://www.example.org/contact' };

function message(wording: string, quoted: string[], more: Partial<Message> = {}): Message {
  return {
    id: 'm', conversation_id: 'c', ordinal: 2, role: 'assistant', status: 'done', epoch: 1, text: '', wording,
    evidence: quoted.map(evidence), citations: quoted.length > 0 ? [{ number: 1, passage: quoted.join(' '), ...place }] : [], nearest: [],
    refused: false, kind: quoted.length > 0 ? 'grounded' : 'noted', error: null, superseded_by: null,
    created_at: '', finished_at: '', timings: null, tokens: 0, ...more,
  };
}

function drawn(shown: Message): HTMLElement {
  const host = document.body.appendChild(document.createElement('div'));
  void act(() => render(<Answer message={shown} wording={shown.wording} contact={contact} onRetry={() => undefined} />, host));
  return host;
}

const wordsOf = (host: HTMLElement): string => {
  const prose = host.querySelector('.prose')?.cloneNode(true) as HTMLElement;
  for (const numeral of prose.querySelectorAll('.cite')) numeral.remove();
  return prose.textContent?.trim() ?? '';
};

afterEach(() => document.body.replaceChildren());

describe('an answer', () => {
  it('calls a thing by the name that the page gives it, above and in the quotation', () => {
    const page = 'The server calls __init_plugin__ for *.so files & <b>once</b>.';
    const host = drawn(message('It calls __init_plugin__ for *.so files & <b>once</b>.', [page]));
    expect(wordsOf(host)).toBe('It calls __init_plugin__ for *.so files & <b>once</b>.');
    expect(host.querySelector('.prose strong, .prose em, .prose b')).toBeNull();
    expect(host.querySelector('.source mark')?.textContent?.trim()).toBe(page);
  });

  it('keeps what the generator marks by itself', () => {
    const host = drawn(message('Run `apt update`, **never** `apt __x__`.', ['Run apt update, never apt __x__.']));
    expect([...host.querySelectorAll('.prose code')].map((code) => code.textContent)).toEqual(['apt update', 'apt __x__']);
    expect(host.querySelector('.prose strong')?.textContent).toBe('never');
  });

  it('gives a visitor their own words back', () => {
    const words = 'You wrote: “**my** `code` is <img src=x onerror=alert(1)> [a](javascript:b) 1 * 2 * 3”';
    const host = drawn(message(words, []));
    expect(wordsOf(host)).toBe(words);
    expect(host.querySelector('.prose p > *')).toBeNull();
  });

  it('leads to the hosts of its sources and of the contact, and nowhere else', () => {
    const host = drawn(message('See https://docs.example.org/a, https://www.example.org/b or https://evil.example/c; write to desk@example.org or x@evil.example.', ['See.']));
    expect([...host.querySelectorAll<HTMLAnchorElement>('.prose a:not(.cite)')].map((a) => a.getAttribute('href'))).toEqual([
      'https://docs.example.org/a', 'https://www.example.org/b', 'mailto:desk@example.org',
    ]);
    expect(wordsOf(host)).toContain('https://evil.example/c');
  });

  it('without an answer names the nearest pages once, to the eye and to the ear', () => {
    const nearest: Nearest[] = [place, { ...place, url: 'https://docs.example.org/x', title: 'Hooks' }];
    const refusal = message('The pages I know do not answer that.', [], { refused: true, kind: 'refusal', nearest });
    expect(drawn(refusal).textContent?.match(/nearest/gi)).toHaveLength(1);
    expect(spoken(refusal, refusal.wording)).toBe('The pages I know do not answer that. 2 nearest pages are shown.');
  });
});
