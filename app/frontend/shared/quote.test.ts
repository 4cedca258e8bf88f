import { describe, expect, it } from 'vitest';
import { citedOf, excerpt, markPassage, paragraphsOf, pathOf } from './quote';
import type { Citation, Evidence } from './types';

const place = { url: 'https://example.org/a', title: 'Page', heading_path: ['Book', 'Page'] };
const evidence = (number: number, text: string): Evidence => ({ number, text, passage_id: `p${number}`, document_id: 'd', ...place });
const citation = (number: number, passage: string): Citation => ({ number, passage, ...place });
const marked = (parts: { text: string; marked: boolean }[]): string[] => parts.filter((p) => p.marked).map((p) => p.text);

describe('a source card', () => {
  it('gathers the sentences of one number under its passage', () => {
    const [first, second] = citedOf([evidence(2, 'C.'), evidence(1, 'A.'), evidence(1, 'B.')], [citation(2, 'C.'), citation(1, 'A. B.')]);
    expect(first).toMatchObject({ number: 1, sentences: ['A.', 'B.'] });
    expect(second).toMatchObject({ number: 2, sentences: ['C.'] });
  });

  it('quotes the sentence alone when the passage is not known', () => {
    const [card] = citedOf([evidence(1, 'A.')], []);
    expect(card && marked(excerpt(card))).toEqual(['A. ']);
  });

  it('cuts a long passage around what it marks', () => {
    const [card] = citedOf([evidence(1, 'The point.')], [citation(1, `${'before '.repeat(60)}The point. ${'after '.repeat(60)}`)]);
    const text = card ? excerpt(card).map((p) => p.text).join('') : '';
    expect(text).toMatch(/^… (before )+The point\. (after )+…$/);
    expect(text.length).toBeLessThan(160);
  });
});

describe('marking a passage', () => {
  it('finds a sentence whatever the white space, and special characters as they are', () => {
    expect(marked(markPassage('So run\n  (apt) update? Yes.', ['run (apt) update?']))).toEqual(['run\n  (apt) update?']);
  });

  it('loses no character of the passage', () => {
    const passage = 'One. Two. Three.';
    expect(markPassage(passage, ['Three.', 'One.', 'Nowhere.']).map((p) => p.text).join('')).toBe(passage);
  });

  it('keeps paragraphs apart', () => {
    const paragraphs = paragraphsOf(markPassage('One.\n\nTwo. Three.', ['Two.']));
    expect(paragraphs.map((parts) => parts.some((p) => p.marked))).toEqual([false, true]);
  });
});

it('leads to the page without repeating its title', () => {
  expect(pathOf(place)).toBe('Book');
  expect(pathOf({ ...place, heading_path: [] })).toBe('example.org/a');
});
