import { render } from 'preact';
import { act } from 'preact/test-utils';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { ApiError, Offline } from '../shared/http';
import type { AssistantDetail, Source } from './types';

const api = { createAssistant: vi.fn(), changeAssistant: vi.fn(), addWebsite: vi.fn() };
vi.mock('./api', () => ({ api, config: { visitor_origin: 'http://127.0.0.1:8460' } }));
const { AddWebsite } = await import('./add-website');
const { NewAssistant } = await import('./new-assistant');

HTMLDialogElement.prototype.showModal ??= function showModal(this: HTMLDialogElement) { this.open = true; }; // jsdom has none

const guide = { id: 'g', name: 'Retort guide', slug: 'guide' } as AssistantDetail;
const made = { id: 'n', name: 'example.org', slug: 'example-org' } as AssistantDetail;
const docs = { id: 'd', url: 'http://127.0.0.1:8460/guide-docs/', assistant_ids: ['g'] } as Source;
const added = { id: 's', url: 'https://www.example.org/', assistant_ids: ['n'] } as Source;
let host: HTMLElement;

beforeEach(() => {
  host = document.body.appendChild(document.createElement('div'));
  api.createAssistant.mockReset().mockResolvedValue(made);
  api.addWebsite.mockReset().mockResolvedValue(added);
});
afterEach(() => { render(null, host); host.remove(); });

const field = (label: string): HTMLInputElement => {
  const found = [...host.querySelectorAll('label')].find((l) => l.textContent === label);
  if (!found) throw new Error(`No field “${label}” in ${host.textContent}`);
  return document.getElementById(found.htmlFor) as HTMLInputElement;
};
const type = (label: string, value: string) => act(() => { field(label).value = value; field(label).dispatchEvent(new Event('input', { bubbles: true })); });
const submit = () => act(async () => { host.querySelector('form')?.dispatchEvent(new Event('submit', { bubbles: true, cancelable: true })); await new Promise((settled) => setTimeout(settled)); });
const choose = (value: string) => act(() => { field('Assistant').value = value; field('Assistant').dispatchEvent(new Event('change', { bubbles: true })); });

function open(assistants: AssistantDetail[], sources: Source[]) {
  const told = { made: vi.fn(), added: vi.fn() };
  const draw = (known: AssistantDetail[]): void => render(<AddWebsite assistants={known} sources={sources} chosen={known[0]?.id ?? null} onClose={() => undefined} onAdded={told.added}
    onMade={(a) => { told.made(a); draw([...known.filter((k) => k.id !== a.id), a]); }} />, host);
  void act(() => draw(assistants));
  return told;
}

it('offers an assistant named after the website while there is only the guide', async () => {
  const told = open([guide], [docs]);
  await type('Address', 'www.example.org/docs/');
  expect(field('Assistant').value).toBe('');
  expect(field('Name of the new assistant').value).toBe('example.org');
  await submit();
  expect(api.createAssistant.mock.calls[0]?.[0]).toEqual({ name: 'example.org' });
  expect(api.addWebsite).toHaveBeenCalledWith('https://www.example.org/docs/', 'n');
  expect(told.made).toHaveBeenCalledWith(made);
  expect(told.added).toHaveBeenCalledWith(added);
});

it('keeps the name that the owner wrote, and asks for one when it is empty', async () => {
  open([guide], [docs]);
  await type('Name of the new assistant', 'Bicycles');
  await type('Address', 'example.org');
  expect(field('Name of the new assistant').value).toBe('Bicycles');
  await type('Name of the new assistant', ' ');
  await submit();
  expect(host.textContent).toContain('Give the assistant a name.');
  expect(api.createAssistant).not.toHaveBeenCalled();
  expect(document.activeElement).toBe(field('Name of the new assistant'));
});

it('adds to the guide only when it is chosen, and says what that means', async () => {
  open([guide], [docs]);
  await type('Address', 'example.org');
  await choose('g');
  expect(host.textContent).toContain('would be mixed into these answers');
  await submit();
  expect(api.createAssistant).not.toHaveBeenCalled();
  expect(api.addWebsite).toHaveBeenCalledWith('https://example.org', 'g');
});

it('makes no assistant for what is no address', async () => {
  open([guide], [docs]);
  await type('Address', 'not an address');
  await submit();
  expect(host.textContent).toContain('“not an address” is no address');
  expect(api.createAssistant).not.toHaveBeenCalled();
  expect(document.activeElement).toBe(field('Address'));
});

it('adds to the assistant that was made when the website was refused at first, under the name of the right one', async () => {
  open([guide], [docs]);
  api.addWebsite.mockRejectedValueOnce(new ApiError(422, 'url-unresolvable', 'No such host', 'There is no host example.invalid.', 'url', null));
  api.createAssistant.mockResolvedValueOnce({ ...made, name: 'example.invalid' });
  api.changeAssistant.mockResolvedValueOnce(made);
  await type('Address', 'example.invalid');
  await submit();
  expect(host.textContent).toContain('There is no host example.invalid.');
  expect(host.textContent).toContain('The assistant is made, its website is not added yet.');
  expect(field('Assistant').value).toBe('n');
  await type('Address', 'example.org');
  await submit();
  expect(api.createAssistant).toHaveBeenCalledTimes(1);
  expect(api.changeAssistant).toHaveBeenCalledWith('n', { name: 'example.org' });
  expect(api.addWebsite).toHaveBeenLastCalledWith('https://example.org', 'n');
});

it('says that the network is away, and does not make a second assistant after it', async () => {
  open([guide], [docs]);
  api.createAssistant.mockRejectedValueOnce(new Offline());
  await type('Address', 'example.org');
  await submit();
  expect(host.textContent).toContain('The assistant was not made. The server could not be reached.');
  expect(api.addWebsite).not.toHaveBeenCalled();
  await submit();
  const [first, second] = api.createAssistant.mock.calls;
  expect(second).toEqual(first); // the same key
  expect(api.addWebsite).toHaveBeenCalledTimes(1);
});

it('names a public address that is taken at its field, and asks with another key for another one', async () => {
  const onMade = vi.fn();
  void act(() => render(<NewAssistant onClose={() => undefined} onMade={onMade} />, host));
  api.createAssistant.mockRejectedValueOnce(new ApiError(409, 'slug-taken', 'This address is taken', 'guide is another assistant’s address already.', 'slug', null));
  await type('Name', 'Guide');
  await type('Public address', 'guide');
  await submit();
  expect(document.activeElement).toBe(field('Public address'));
  expect(host.querySelector('[role=alert]')?.textContent).toContain('guide is another assistant’s address already.');
  expect(onMade).not.toHaveBeenCalled();
  await type('Public address', 'guide-2');
  await submit();
  const [first, second] = api.createAssistant.mock.calls;
  expect(second?.[0]).toEqual({ name: 'Guide', slug: 'guide-2' });
  expect(second?.[1]).not.toBe(first?.[1]);
  expect(onMade).toHaveBeenCalledWith(made);
});
