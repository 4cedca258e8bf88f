/** Which assistant is chosen, and which one a new website is for. */
import { useCallback, useState } from 'preact/hooks';
import type { AssistantDetail, Source } from './types';

export const NAME_LIMIT = 80; // characters, as the server counts them
const OWN_DOCS = '/guide-docs/'; // where this installation serves Retort's own documentation

const keyOf = (workspace: string): string => `retort.assistant.${workspace}`;

function remembered(workspace: string): string | null {
  try {
    return localStorage.getItem(keyOf(workspace));
  } catch {
    return null; // storage may be forbidden; then the choice lasts as long as the page
  }
}

/** The id of the assistant chosen last, kept over a reload, and a way to choose another. */
export function useChosen(workspace: string): [string | null, (id: string) => void] {
  const [id, setId] = useState(() => remembered(workspace));
  const choose = useCallback((next: string) => {
    setId(next);
    try {
      localStorage.setItem(keyOf(workspace), next);
    } catch {
      // As above: it is chosen all the same.
    }
  }, [workspace]);
  return [id, choose];
}

/** The chosen assistant while there is one, otherwise the oldest. */
export const chosenOf = (items: AssistantDetail[], id: string | null): AssistantDetail | null => items.find((a) => a.id === id) ?? items[0] ?? null;

export const sourcesOf = (assistant: string, sources: Source[]): Source[] => sources.filter((s) => s.assistant_ids.includes(assistant));

export const namesOf = (source: Source, items: AssistantDetail[]): string => items.filter((a) => source.assistant_ids.includes(a.id)).map((a) => a.name).join(', ');

function isOwnDocs(source: Source): boolean {
  try {
    return new URL(source.url).pathname === OWN_DOCS;
  } catch {
    return false;
  }
}

/** Whether an assistant answers from Retort's own documentation and nothing else: a website added to it would be mixed with that. */
export function readsOnlyRetort(assistant: AssistantDetail, sources: Source[]): boolean {
  const its = sourcesOf(assistant.id, sources);
  return its.length > 0 && its.every(isOwnDocs);
}

/** The assistant that a new website is most likely for: the chosen one, or the newest that is not the guide; null for one to be made. */
export function targetFor(items: AssistantDetail[], sources: Source[], chosen: string | null): AssistantDetail | null {
  const open = items.filter((a) => !readsOnlyRetort(a, sources));
  return open.find((a) => a.id === chosen) ?? open.at(-1) ?? null;
}

/** What an assistant of a website is called until its owner says otherwise: the host. */
export function nameFrom(address: string): string {
  try {
    return new URL(address).host.replace(/^www\./, '').slice(0, NAME_LIMIT);
  } catch {
    return '';
  }
}

/** The public address that the server makes of a name. */
export const slugFrom = (name: string): string => name.toLowerCase().replace(/[^a-z0-9]+/g, '-').replace(/^-+|-+$/g, '').slice(0, 40).replace(/-+$/, '') || 'assistant';
