import { useEffect, useState } from 'preact/hooks';
import { Icon, icons } from './icons';

/** Copies with the clipboard API, or by selection where a frame may not use it. */
export async function copyText(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement('textarea');
    area.value = text;
    area.className = 'sr';
    document.body.append(area);
    area.select();
    const done = document.execCommand('copy');
    area.remove();
    return done;
  }
}

export interface CopyProps {
  text: () => string;
  label: string;
  class?: string;
  /** With words beside the icon. */
  wide?: boolean;
}

export function CopyButton({ text, label, class: extra = 'btn-quiet btn-icon', wide }: CopyProps) {
  const [state, setState] = useState<'idle' | 'done' | 'failed'>('idle');
  useEffect(() => {
    if (state === 'idle') return;
    const timer = setTimeout(() => setState('idle'), 2000);
    return () => clearTimeout(timer);
  }, [state]);
  const said = { idle: label, done: 'Copied', failed: 'Select it and copy by hand' }[state];
  return (
    <button type="button" class={`btn ${extra}`} aria-label={wide ? undefined : said} title={wide ? undefined : label}
      onClick={() => void copyText(text()).then((ok) => setState(ok ? 'done' : 'failed'))}>
      <Icon of={state === 'done' ? icons.check : icons.copy} />
      {wide && <span aria-live="polite">{said}</span>}
    </button>
  );
}
