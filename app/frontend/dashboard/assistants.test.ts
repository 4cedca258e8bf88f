import { expect, it } from 'vitest';
import { chosenOf, namesOf, nameFrom, readsOnlyRetort, slugFrom, targetFor } from './assistants';
import type { AssistantDetail, Source } from './types';

const assistant = (id: string): AssistantDetail => ({ id, name: `Name of ${id}`, slug: id }) as AssistantDetail;
const source = (url: string, ...assistant_ids: string[]): Source => ({ id: url, url, assistant_ids }) as Source;
const [guide, shop, wiki] = [assistant('guide'), assistant('shop'), assistant('wiki')];
const docs = source('http://127.0.0.1:8460/guide-docs/', 'guide');
const shopping = source('https://shop.example/', 'shop');

it('knows the assistant that has read Retort’s own documentation and nothing else', () => {
  expect(readsOnlyRetort(guide, [docs, shopping])).toBe(true);
  expect(readsOnlyRetort(guide, [docs, source('https://shop.example/', 'guide')])).toBe(false);
  expect(readsOnlyRetort(guide, [])).toBe(false);
  expect(readsOnlyRetort(shop, [docs, shopping])).toBe(false);
});

it('gives a website an assistant of its own as long as there is only the guide', () => {
  expect(targetFor([guide], [docs], 'guide')).toBeNull();
  expect(targetFor([], [], null)).toBeNull();
});

it('gives a website to the chosen assistant, but not to the guide while there is another', () => {
  expect(targetFor([guide, shop, wiki], [docs, shopping], 'shop')).toBe(shop);
  expect(targetFor([guide, shop, wiki], [docs, shopping], 'guide')).toBe(wiki);
  expect(targetFor([guide], [docs, source('https://shop.example/', 'guide')], 'guide')).toBe(guide);
});

it('shows the oldest assistant when the chosen one is gone', () => {
  expect(chosenOf([guide, shop], 'shop')).toBe(shop);
  expect(chosenOf([guide, shop], 'gone')).toBe(guide);
  expect(chosenOf([], 'gone')).toBeNull();
});

it('names the assistants of a source, and none of the others', () => {
  expect(namesOf(source('https://shop.example/', 'shop', 'wiki'), [guide, shop, wiki])).toBe('Name of shop, Name of wiki');
});

it('calls an assistant after the host of its website', () => {
  expect(nameFrom('https://www.example.org/docs/')).toBe('example.org');
  expect(nameFrom('http://127.0.0.1:8000/')).toBe('127.0.0.1:8000');
  expect(nameFrom('https://')).toBe('');
});

it('shows the public address that the server makes of a name', () => {
  expect(slugFrom(' Acme  Docs! ')).toBe('acme-docs');
  expect(slugFrom('説明書')).toBe('assistant');
  expect(slugFrom(`${'a'.repeat(39)} b`)).toBe('a'.repeat(39));
});
