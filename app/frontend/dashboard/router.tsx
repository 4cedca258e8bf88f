import { signal } from '@preact/signals';
import type { ComponentChildren } from 'preact';

export const path = signal(location.pathname);

export function go(to: string, replace = false): void {
  if (to === location.pathname) return;
  history[replace ? 'replaceState' : 'pushState'](null, '', to);
  path.value = location.pathname;
}

addEventListener('popstate', () => {
  path.value = location.pathname;
});

export interface LinkProps {
  href: string;
  class?: string;
  'aria-current'?: 'page' | 'true' | undefined;
  children: ComponentChildren;
}

export function Link({ href, children, ...rest }: LinkProps) {
  return (
    <a href={href} {...rest} onClick={(event) => {
      if (event.metaKey || event.ctrlKey || event.shiftKey || event.button !== 0) return;
      event.preventDefault();
      go(href);
    }}>{children}</a>
  );
}
