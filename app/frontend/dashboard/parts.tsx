/** Small pieces of every view. */
import { signal } from '@preact/signals';
import type { ComponentChildren } from 'preact';
import { useId, useLayoutEffect, useRef } from 'preact/hooks';
import { CopyButton } from '../shared/copy';
import { explain } from '../shared/http';
import { Icon, icons } from '../shared/icons';
import { config } from './api';

export const RETORT = '<path d="M8.5 21.5A6.5 6.5 0 0 1 2 15C2 8.5 6.2 2.5 12.2 2.5c4.9 0 7.3 3.6 9.6 11.4l-2.2.7c-1.5-4.5-2.9-5.9-5-5.6-.6.1-.5.4-.3 1 .4 1.1.7 2.5.7 3.9a6.5 6.5 0 0 1-6.5 7.6Z"/>';

export const Mark = () => <span class="avatar avatar-brand"><Icon of={RETORT} size="l" class="solid" /></span>;

export function Failed({ title, error, onRetry }: { title: string; error: unknown; onRetry: () => void }) {
  return (
    <section class="card empty" role="alert">
      <span class="glyph glyph-bad"><Icon of={icons.circleAlert} size="l" /></span><h2>{title}</h2><p>{explain(error)}</p>
      <button type="button" class="btn" onClick={onRetry}><Icon of={icons.rotateCw} />Try again</button>
    </section>
  );
}

export interface FieldProps {
  label: string;
  error?: string | null | undefined;
  hint?: ComponentChildren;
  children: (attributes: { id: string; 'aria-invalid': boolean; 'aria-describedby': string | undefined }) => ComponentChildren;
}

export function Field({ label, error, hint, children }: FieldProps) {
  const id = useId();
  const described = error ? `${id}-error` : hint ? `${id}-hint` : undefined;
  return (
    <div class="field">
      <label for={id}>{label}</label>
      {children({ id, 'aria-invalid': Boolean(error), 'aria-describedby': described })}
      {error ? <span class="error" id={`${id}-error`} role="alert"><Icon of={icons.circleAlert} size="s" /><span>{error}</span></span> : hint ? <span class="hint" id={`${id}-hint`}>{hint}</span> : null}
    </div>
  );
}

interface Toast {
  text: string;
  undo: (() => void) | null;
}

const toast = signal<Toast | null>(null);
let toastTimer = 0;

export function say(text: string, undo: (() => void) | null = null, ms = 4000): void {
  clearTimeout(toastTimer);
  toast.value = { text, undo };
  toastTimer = window.setTimeout(() => { toast.value = null; }, ms);
}

export function Toasts() {
  const now = toast.value;
  return (
    <div class="toasts" role="status" aria-live="polite">
      {now && <div class="toast"><span class="grow">{now.text}</span>{now.undo && <button type="button" onClick={() => { now.undo?.(); toast.value = null; }}>Undo</button>}</div>}
    </div>
  );
}

/** A native modal dialog: it traps focus, closes on Escape and gives focus back. */
export function Dialog({ title, onClose, children }: { title: string; onClose: () => void; children: ComponentChildren }) {
  const node = useRef<HTMLDialogElement>(null);
  const id = useId();
  // At once, so that keys pressed right after the button are written into the dialog and not lost.
  useLayoutEffect(() => {
    node.current?.showModal();
  }, []);
  return (
    <dialog ref={node} class="dialog" aria-labelledby={id} onClose={onClose} onClick={(event) => { if (event.target === node.current) node.current?.close(); }}>
      <header class="card-head"><h2 id={id}>{title}</h2><button type="button" class="btn btn-quiet btn-icon end" aria-label="Close" onClick={() => node.current?.close()}><Icon of={icons.x} /></button></header>
      {children}
    </dialog>
  );
}

export const snippetOf = (slug: string): string => `<script src="${config.visitor_origin}/widget.js" data-assistant="${slug}" async></script>`;

export function Snippet({ slug }: { slug: string }) {
  const text = snippetOf(slug);
  return <div class="snippet"><code class="grow" tabIndex={0}>{text}</code><CopyButton text={() => text} label="Copy" class="" wide /></div>;
}
