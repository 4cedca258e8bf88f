/** Adding a website: its address, and which assistant answers from it. */
import { useState } from 'preact/hooks';
import { Icon, icons } from '../shared/icons';
import { NAME_LIMIT, nameFrom, readsOnlyRetort, targetFor } from './assistants';
import { useFocusOnProblem, useMaking } from './new-assistant';
import { Dialog, Field } from './parts';
import type { AssistantDetail, Source } from './types';
import { fullAddress, useWebsite } from './website';

const NEW = ''; // the value of the choice that makes an assistant

export interface AddWebsiteProps {
  assistants: AssistantDetail[];
  sources: Source[];
  chosen: string | null;
  onMade(assistant: AssistantDetail): void;
  onAdded(source: Source): void;
  onClose(): void;
}

export function AddWebsite({ assistants, sources, chosen, onMade, onAdded, onClose }: AddWebsiteProps) {
  const [target, setTarget] = useState(() => targetFor(assistants, sources, chosen)?.id ?? NEW);
  const [named, setNamed] = useState<string | null>(null); // null as long as the name follows the address
  const [made, setMade] = useState<AssistantDetail | null>(null);
  const making = useMaking();
  const naming = target === NEW || target === made?.id;
  const website = useWebsite(async () => {
    if (!naming || (made && made.name === name.trim())) return target;
    // Once it exists, an attempt that follows a refused address adds to it, under the name that is right by then.
    const fresh = await (made ? making.rename(made.id, name) : making.make(name));
    if (!fresh) return null;
    setMade(fresh);
    setTarget(fresh.id);
    onMade(fresh);
    return fresh.id;
  }, onAdded);
  const name = named ?? (website.url.trim() ? nameFrom(fullAddress(website.url)) : '');
  const form = useFocusOnProblem(website.problem ?? making.problem);
  const guide = assistants.find((a) => a.id === target && readsOnlyRetort(a, sources));
  const apart = target === NEW && assistants.some((a) => readsOnlyRetort(a, sources));
  const hint = guide ? `${guide.name} answers from Retort’s own documentation, which would be mixed into these answers.`
    : apart ? 'So that Retort’s own documentation stays out of its answers.' : undefined;

  return (
    <Dialog title="Add website" onClose={onClose}>
      <form ref={form} noValidate onSubmit={(event) => { event.preventDefault(); if (!website.busy) void website.submit(); }}>
        <div class="card-body form">
          {made && website.problem && <div class="notice notice-warn" role="alert"><Icon of={icons.circleAlert} /><span>The assistant is made, its website is not added yet.</span></div>}
          <Field label="Address" error={website.problem} hint="A page or a sitemap. Reading stays below this path and keeps to robots.txt.">
            {(a) => <input {...a} class="input" type="url" inputMode="url" autocomplete="url" placeholder="https://www.example.org/docs/" autoFocus value={website.url} onInput={(event) => website.setUrl(event.currentTarget.value)} />}</Field>
          <Field label="Assistant" hint={hint}>
            {(a) => <select {...a} class="select" value={target} onChange={(event) => { setTarget(event.currentTarget.value); making.forget(); }}>
              {assistants.map((one) => <option key={one.id} value={one.id}>{one.name}</option>)}<option value={NEW}>New assistant</option></select>}</Field>
          {naming && <Field label="Name of the new assistant" error={making.problem && ['name', 'slug'].includes(making.problem.field) ? making.problem.text : null} hint="Visitors see it. You may change it later.">
            {(a) => <input {...a} class="input" dir="auto" maxLength={NAME_LIMIT} autocomplete="off" placeholder="www.example.org" value={name} onInput={(event) => setNamed(event.currentTarget.value)} />}</Field>}
          {making.problem && !['name', 'slug'].includes(making.problem.field) && <div class="notice notice-bad" role="alert"><Icon of={icons.circleAlert} /><span>The assistant was not {made ? 'renamed' : 'made'}. {making.problem.text}</span></div>}
        </div>
        <footer class="card-foot"><span class="end row"><button type="button" class="btn" onClick={onClose}>Cancel</button><button class="btn btn-primary" disabled={website.busy}>{website.busy ? 'Looking' : 'Read website'}</button></span></footer>
      </form>
    </Dialog>
  );
}
