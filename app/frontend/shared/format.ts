/** Numbers, times and addresses as people read them. */

const whole = new Intl.NumberFormat('en');
const exact = new Intl.DateTimeFormat('en', { dateStyle: 'long', timeStyle: 'medium' });

export const number = (value: number): string => whole.format(value);

export const counted = (value: number, one: string, many = `${one}s`): string => `${number(value)} ${value === 1 ? one : many}`;

export function bytes(value: number): string {
  if (value < 1000) return counted(value, 'byte');
  if (value < 1_000_000) return `${number(Math.round(value / 1000))} kB`;
  return `${(value / 1_000_000).toFixed(1)} MB`;
}

export function seconds(ms: number): string {
  return ms < 9_950 ? `${(ms / 1000).toFixed(ms < 995 ? 2 : 1)} s` : `${Math.round(ms / 1000)} s`;
}

export function span(secondsLeft: number): string {
  if (secondsLeft < 90) return counted(Math.max(1, Math.round(secondsLeft)), 'second');
  if (secondsLeft < 5400) return counted(Math.round(secondsLeft / 60), 'minute');
  return counted(Math.round(secondsLeft / 3600), 'hour');
}

export const exactTime = (time: string): string => exact.format(new Date(time));

export function ago(time: string, now = Date.now()): string {
  const s = Math.max(0, (now - Date.parse(time)) / 1000);
  if (s < 5) return 'now';
  if (s < 60) return `${Math.round(s)} s ago`;
  if (s < 3600) return `${Math.round(s / 60)} min ago`;
  if (s < 86_400) return `${Math.round(s / 3600)} h ago`;
  return counted(Math.round(s / 86_400), 'day') + ' ago';
}

/** An address without its scheme, as a row shows it. */
export const shortUrl = (url: string): string => url.replace(/^https?:\/\//, '').replace(/\/$/, '');

/** The last part of an address: enough where the site is known. */
export function pageName(url: string): string {
  try {
    const { pathname, host, search } = new URL(url);
    const last = pathname.split('/').filter(Boolean).at(-1);
    return decodeURIComponent(last ?? host) + search;
  } catch {
    return url;
  }
}

/** Characters as the server counts them (code points). */
export function lengthOf(text: string): number {
  let n = 0;
  for (const _ of text) n += 1;
  return n;
}
