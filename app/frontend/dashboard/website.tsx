import { useState } from 'preact/hooks';
import { ApiError, explain } from '../shared/http';
import { api } from './api';
import type { Source } from './types';

export interface WebsiteForm {
  url: string;
  setUrl(url: string): void;
  problem: string | null;
  busy: boolean;
  submit(): Promise<void>;
}

/** An address as people type it: the scheme may be left out. */
export function fullAddress(text: string): string {
  const trimmed = text.trim();
  return /^[a-z][a-z0-9+.-]*:\/\//i.test(trimmed) ? trimmed : `https://${trimmed}`;
}

/** `target` gives the id of the assistant that the website is for; null when there is none, which it has then told by itself. */
export function useWebsite(target: () => Promise<string | null>, onAdded: (source: Source) => void): WebsiteForm {
  const [url, setUrl] = useState('');
  const [problem, setProblem] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const submit = async (): Promise<void> => {
    // Known before anything is asked of the server: an assistant may have to be made first, and must not be made in vain.
    if (url.trim() === '' || !URL.canParse(fullAddress(url))) {
      setProblem(url.trim() === '' ? 'Write the address of a website, such as example.org.' : `“${url.trim()}” is no address. Write one such as example.org.`);
      return;
    }
    setBusy(true);
    setProblem(null);
    try {
      const assistant = await target();
      if (assistant !== null) onAdded(await api.addWebsite(fullAddress(url), assistant));
    } catch (error) {
      setProblem(error instanceof ApiError && error.detail === '' ? error.title : explain(error));
    }
    setBusy(false);
  };
  return { url, setUrl, problem, busy, submit };
}
