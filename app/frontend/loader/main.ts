/** `<script src="https://…/widget.js" data-assistant="slug" async>`: reads its own tag and draws the launcher. */
import { type Options, Widget } from './widget';

function read(script: HTMLScriptElement): Options | null {
  const { assistant, label, position, theme, open } = script.dataset;
  if (!assistant) return null;
  return {
    origin: new URL(script.src, location.href).origin,
    slug: assistant,
    label: label || null,
    position: position === 'left' ? 'left' : 'right',
    theme: theme === 'light' || theme === 'dark' ? theme : 'auto',
    open: open !== undefined && open !== 'false',
  };
}

const script = document.currentScript ?? document.querySelector('script[data-assistant][src*="widget.js"]');

if (script instanceof HTMLScriptElement) {
  const options = read(script);
  const drawn = `retort-${options?.slug}`;
  if (!options) console.warn('[Retort] The script tag lacks data-assistant.');
  else if (!document.getElementById(drawn)) {
    const start = (): void => {
      new Widget(options).host.id = drawn;
    };
    if (document.body) start();
    else addEventListener('DOMContentLoaded', start);
  }
}
