import { expect, it, vi } from 'vitest';

vi.mock('./api', () => ({ api: {}, config: {} }));
const { changesOf, originsOf } = await import('./settings');

const form = { name: 'Guide', greeting: 'Hello', intro: '', tone: 'plain', email: '', url: '', origins: 'https://a.example', brand: '#0b6e63', mode: 'wording' } as const;

it('sends only what was changed', () => {
  expect(changesOf(form, { ...form })).toEqual({});
  expect(changesOf(form, { ...form, name: ' New ' })).toEqual({ name: 'New' });
});

it('reads origins one a line, without a slash at the end, each once', () => {
  expect(originsOf(' https://a.example/\nhttps://b.example, https://a.example\n\n')).toEqual(['https://a.example', 'https://b.example']);
});
