/** What the server wrote into the page. */
import type { Assistant } from '../shared/types';

export interface Config {
  mode: 'frame' | 'page';
  api: string;
  assistant: Assistant;
}

export function readConfig<T>(): T {
  return JSON.parse(document.getElementById('retort-config')?.textContent ?? 'null') as T;
}

/** The owner's three colours, on the root, so that everything derived from them follows. */
export function wear({ brand, brand_on, brand_dark }: Assistant['brand']): void {
  const root = document.documentElement;
  root.dataset['brand'] = '';
  root.style.setProperty('--brand', brand);
  root.style.setProperty('--brand-on', brand_on);
  root.style.setProperty('--brand-dark', brand_dark);
}
