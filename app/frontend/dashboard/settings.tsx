/** What the owner sets of an assistant. Only what was changed is sent. */
import { useState } from 'preact/hooks';
import { ApiError, explain } from '../shared/http';
import { api } from './api';
import { Field, say } from './parts';
import type { AssistantDetail, Tone } from './types';

const TONES: Record<Tone, [string, string]> = {
  plain: ['Plain', 'The answer first, no greeting.'],
  friendly: ['Friendly', 'Warm, and still short.'],
  formal: ['Formal', 'Full sentences, no contractions.'],
};

interface Form {
  name: string;
  greeting: string;
  intro: string;
  tone: Tone;
  email: string;
  url: string;
  origins: string;
  brand: string;
  mode: AssistantDetail['mode'];
}

const formOf = (a: AssistantDetail): Form => ({
  name: a.name, greeting: a.greeting, intro: a.intro, tone: a.tone, email: a.contact.email ?? '', url: a.contact.url ?? '',
  origins: a.allowed_origins.join('\n'), brand: a.brand_color, mode: a.mode,
});

/** The members of a PATCH: nested where the assistant's own shape is. */
export function changesOf(before: Form, after: Form): Record<string, unknown> {
  const change: Record<string, unknown> = {};
  for (const key of ['name', 'greeting', 'intro', 'tone', 'mode'] as const) if (before[key] !== after[key]) change[key] = after[key].trim();
  if (before.email !== after.email || before.url !== after.url) change['contact'] = { email: after.email.trim() || null, url: after.url.trim() || null };
  if (before.origins !== after.origins) change['allowed_origins'] = originsOf(after.origins);
  if (before.brand !== after.brand) change['brand_color'] = after.brand.trim();
  return change;
}

export const originsOf = (text: string): string[] => [...new Set(text.split(/[\s,]+/).map((o) => o.trim().replace(/\/+$/, '')).filter((o) => o !== ''))];

function localProblem(form: Form): { field: string; text: string } | null {
  if (form.name.trim() === '') return { field: 'name', text: 'Give the assistant a name.' };
  if (!/^#[0-9a-f]{6}$/i.test(form.brand.trim())) return { field: 'brand_color', text: 'Write the colour as # and six digits, such as #0b6e63.' };
  const wrong = originsOf(form.origins).find((origin) => !/^https?:\/\/[^/\s]+$/i.test(origin));
  return wrong ? { field: 'allowed_origins', text: `“${wrong}” is no origin. Write it like https://www.example.org.` } : null;
}

export function Settings({ assistant, onChanged }: { assistant: AssistantDetail; onChanged: (a: AssistantDetail) => void }) {
  const [before, setBefore] = useState(() => formOf(assistant));
  const [form, setForm] = useState(before);
  const [problem, setProblem] = useState<{ field: string; text: string } | null>(null);
  const [busy, setBusy] = useState(false);
  const changed = Object.keys(changesOf(before, form)).length > 0;
  const put = <K extends keyof Form>(key: K, value: Form[K]): void => setForm({ ...form, [key]: value });
  const errorOf = (...fields: string[]): string | null => (problem && fields.includes(problem.field) ? problem.text : null);
  const known = ['name', 'greeting', 'intro', 'contact', 'contact_email', 'contact.email', 'contact_url', 'contact.url', 'allowed_origins', 'brand', 'brand_color'];

  const submit = async (event: Event): Promise<void> => {
    event.preventDefault();
    const wrong = localProblem(form);
    setProblem(wrong);
    if (wrong) return;
    setBusy(true);
    try {
      const saved = await api.changeAssistant(assistant.id, changesOf(before, form));
      setBefore(formOf(saved));
      setForm(formOf(saved));
      onChanged(saved);
      say('Saved. Visitors get it from now on.');
    } catch (error) {
      setProblem({ field: (error instanceof ApiError && error.field) || '', text: explain(error) });
    }
    setBusy(false);
  };

  return (
    <form class="form" onSubmit={(event) => void submit(event)} noValidate>
      <section class="card"><header class="card-head"><h2>Words</h2></header><div class="card-body">
        <Field label="Name" error={errorOf('name')}>{(a) => <input {...a} class="input" dir="auto" maxLength={80} value={form.name} onInput={(e) => put('name', e.currentTarget.value)} />}</Field>
        <Field label="Greeting" error={errorOf('greeting')} hint="The first line that a visitor reads.">{(a) => <input {...a} class="input" dir="auto" maxLength={200} value={form.greeting} onInput={(e) => put('greeting', e.currentTarget.value)} />}</Field>
        <Field label="Introduction" error={errorOf('intro')}>{(a) => <textarea {...a} class="textarea" dir="auto" rows={2} maxLength={500} value={form.intro} onInput={(e) => put('intro', e.currentTarget.value)} />}</Field>
        <div class="stack gap-1"><span class="legend" id="tone">Tone</span><div class="trio" role="radiogroup" aria-labelledby="tone">
          {(Object.keys(TONES) as Tone[]).map((tone) => <label key={tone} class="choice"><input type="radio" name="tone" checked={form.tone === tone} onChange={() => put('tone', tone)} /><span><b>{TONES[tone][0]}</b><p>{TONES[tone][1]}</p></span></label>)}
        </div><span class="hint">How it says that it does not know, and that it has noted something.</span></div>
      </div></section>
      <section class="card"><header class="card-head"><h2>Answers</h2></header><div class="card-body">
        <div class="pair" role="radiogroup" aria-label="Answers">
          <label class="choice"><input type="radio" name="mode" checked={form.mode === 'wording'} onChange={() => put('mode', 'wording')} /><span><b>Wording and evidence</b><p>One or two sentences above the quotations, when the evidence supports them.</p></span></label>
          <label class="choice"><input type="radio" name="mode" checked={form.mode === 'evidence'} onChange={() => put('mode', 'evidence')} /><span><b>Evidence alone</b><p>Only the quotations from your content, with their source.</p></span></label>
        </div>
      </div></section>
      <section class="card"><header class="card-head"><h2>A person</h2></header><div class="card-body">
        <p class="soft">Offered when the assistant does not know.</p>
        <div class="pair">
          <Field label="E-mail" error={errorOf('contact_email', 'contact.email', 'contact')}>{(a) => <input {...a} class="input" type="email" value={form.email} onInput={(e) => put('email', e.currentTarget.value)} />}</Field>
          <Field label="Contact page" error={errorOf('contact_url', 'contact.url')}>{(a) => <input {...a} class="input" type="url" placeholder="https://" value={form.url} onInput={(e) => put('url', e.currentTarget.value)} />}</Field>
        </div>
      </div></section>
      <section class="card"><header class="card-head"><h2>On your website</h2></header><div class="card-body">
        <Field label="Colour" error={errorOf('brand_color', 'brand')} hint="Corrected where it would be hard to read.">{(a) => (
          <span class="colour"><input type="color" aria-label="Pick the colour" value={/^#[0-9a-f]{6}$/i.test(form.brand) ? form.brand : '#000000'} onInput={(e) => put('brand', e.currentTarget.value)} />
            <input {...a} class="input mono" value={form.brand} onInput={(e) => put('brand', e.currentTarget.value)} /></span>)}</Field>
        <Field label="Allowed origins" error={errorOf('allowed_origins')} hint="The websites that may show this assistant, one a line, such as https://www.example.org.">{(a) => <textarea {...a} class="textarea mono" rows={3} spellcheck={false} value={form.origins} onInput={(e) => put('origins', e.currentTarget.value)} />}</Field>
      </div></section>
      {problem && !known.includes(problem.field) && <div class="notice notice-bad" role="alert"><span>Not saved. {problem.text}</span></div>}
      <div class="row form-foot"><button class="btn btn-primary" disabled={!changed || busy}>{busy ? 'Saving' : 'Save'}</button>{changed && <button type="button" class="btn btn-quiet" onClick={() => { setForm(before); setProblem(null); }}>Discard changes</button>}</div>
    </form>
  );
}
