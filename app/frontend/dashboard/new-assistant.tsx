/** Making an assistant: a name is enough. */
import { useEffect, useRef, useState } from 'preact/hooks';
import { newKey } from '../shared/conversation';
import { ApiError, explain } from '../shared/http';
import { Icon, icons } from '../shared/icons';
import { api, config } from './api';
import { NAME_LIMIT, slugFrom } from './assistants';
import { Dialog, Field } from './parts';
import type { AssistantDetail } from './types';

const SLUG_LIMIT = 60;

export interface Problem {
  field: string;
  text: string;
}

export interface Making {
  problem: Problem | null;
  busy: boolean;
  /** The assistant, or null when `problem` says why there is none. The same name and address again never make a second one. */
  make(name: string, slug?: string): Promise<AssistantDetail | null>;
  rename(id: string, name: string): Promise<AssistantDetail | null>;
  forget(): void;
}

export function useMaking(): Making {
  const [problem, setProblem] = useState<Problem | null>(null);
  const [busy, setBusy] = useState(false);
  const attempt = useRef({ of: '', key: '' });
  const tried = async (name: string, call: () => Promise<AssistantDetail>): Promise<AssistantDetail | null> => {
    if (name.trim() === '') {
      setProblem({ field: 'name', text: 'Give the assistant a name.' });
      return null;
    }
    setBusy(true);
    setProblem(null);
    try {
      return await call();
    } catch (error) {
      setProblem({ field: (error instanceof ApiError && error.field) || '', text: explain(error) });
      return null;
    } finally {
      setBusy(false);
    }
  };
  const make = (name: string, slug = ''): Promise<AssistantDetail | null> => tried(name, () => {
    const asked = { name: name.trim(), ...(slug.trim() ? { slug: slug.trim() } : {}) };
    const of = JSON.stringify(asked);
    if (attempt.current.of !== of) attempt.current = { of, key: newKey() };
    return api.createAssistant(asked, attempt.current.key);
  });
  const rename = (id: string, name: string): Promise<AssistantDetail | null> => tried(name, () => api.changeAssistant(id, { name: name.trim() }));
  return { problem, busy, make, rename, forget: () => setProblem(null) };
}

/** Puts the caret into the field that a problem is about, each time that there is a new one. */
export function useFocusOnProblem(problem: unknown) {
  const form = useRef<HTMLFormElement>(null);
  useEffect(() => {
    if (problem) form.current?.querySelector<HTMLElement>('[aria-invalid="true"]')?.focus();
  }, [problem]);
  return form;
}

export function NewAssistant({ onClose, onMade }: { onClose: () => void; onMade: (assistant: AssistantDetail) => void }) {
  const [name, setName] = useState('');
  const [slug, setSlug] = useState('');
  const { problem, busy, make } = useMaking();
  const form = useFocusOnProblem(problem);
  const errorOf = (field: string): string | null => (problem?.field === field ? problem.text : null);
  const submit = async (): Promise<void> => {
    const made = await make(name, slug);
    if (made) onMade(made);
  };
  return (
    <Dialog title="New assistant" onClose={onClose}>
      <form ref={form} noValidate onSubmit={(event) => { event.preventDefault(); if (!busy) void submit(); }}>
        <div class="card-body form">
          <p class="soft">It answers from its own websites alone. You add the first one next.</p>
          <Field label="Name" error={errorOf('name')} hint="Visitors see it.">{(a) => <input {...a} class="input" dir="auto" maxLength={NAME_LIMIT} autoFocus autocomplete="off" value={name} onInput={(e) => setName(e.currentTarget.value)} />}</Field>
          <Field label="Public address" error={errorOf('slug')} hint={<><span class="mono">{config.visitor_origin.replace(/^https?:\/\//, '')}/a/{slug.trim() || slugFrom(name)}</span> cannot be changed later.</>}>
            {(a) => <input {...a} class="input mono" maxLength={SLUG_LIMIT} autocapitalize="none" autocomplete="off" spellcheck={false} placeholder={slugFrom(name)} value={slug} onInput={(e) => setSlug(e.currentTarget.value)} />}</Field>
          {problem && !['name', 'slug'].includes(problem.field) && <div class="notice notice-bad" role="alert"><Icon of={icons.circleAlert} /><span>Not made. {problem.text}</span></div>}
        </div>
        <footer class="card-foot"><span class="end row"><button type="button" class="btn" onClick={onClose}>Cancel</button><button class="btn btn-primary" disabled={busy}>{busy ? 'Making' : 'Make assistant'}</button></span></footer>
      </form>
    </Dialog>
  );
}
