import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { literal } from './literal';
import { render } from './markdown';

interface Case {
  why: string;
  text: string;
  sources: string | null;
  markdown: string;
}

const cases = JSON.parse(readFileSync(`${import.meta.dirname}/../../../tests/conversations/markdown_cases.json`, 'utf8')) as Case[];
const words = (text: string | null): string => (text ?? '').split(/\s+/).filter(Boolean).join(' ');
const tags = (fragment: DocumentFragment): Set<string> => new Set([...fragment.querySelectorAll('*')].map((node) => node.tagName.toLowerCase()));

describe('wording', () => {
  it.each(cases)('is escaped as the server escapes it: $why', ({ text, sources, markdown }) => {
    expect(literal(text, sources)).toBe(markdown);
  });

  it('shows the characters of the page, whatever they are', () => {
    const marks = ['\\', '`', '*', '_', '[', ']', '(', ')', '<', '>', '&', '~', '|', '!', '#', '-', '+', '=', ':', '.', '1', ' ', '\n', 'a', 'Ü', 'amp;', '&#60;', '```', '    ', '](', '<b>'];
    let seed = 4711;
    const next = (below: number): number => {
      seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
      return Math.floor((seed / 2 ** 32) * below);
    };
    for (let round = 0; round < 400; round += 1) {
      const text = Array.from({ length: 1 + next(16) }, () => marks[next(marks.length)]).join('');
      const drawn = render(literal(text, null));
      expect(words(drawn.textContent), JSON.stringify(text)).toBe(words(text));
      expect([...tags(drawn)].filter((tag) => tag !== 'p'), JSON.stringify(text)).toEqual([]);
    }
  });
});
