/** A page's address as its row shows it: enough to tell it from the others of its site. */
import { shortUrl } from '../shared/format';

export interface Place {
  /** What may be clipped first; ends in a slash, or is empty. */
  folder: string;
  leaf: string;
}

const readable = (text: string): string => {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
};

/** The address from the folder of the source on; the whole path of a page that lies elsewhere, the host of a bare one. */
export function placeOf(url: string, source: string): Place {
  let page: URL, root: URL;
  try {
    [page, root] = [new URL(url), new URL(source)];
  } catch {
    return { folder: '', leaf: url };
  }
  const base = root.pathname.slice(0, root.pathname.lastIndexOf('/') + 1);
  const inside = page.host === root.host && page.pathname.startsWith(base);
  const path = inside ? page.pathname.slice(base.length) : page.pathname;
  const cut = path.slice(0, -1).lastIndexOf('/') + 1;
  const leaf = path.slice(cut) + page.search;
  return leaf === '' || leaf === '/' ? { folder: '', leaf: shortUrl(url) } : { folder: readable(path.slice(0, cut)), leaf: readable(leaf) };
}

/** Whether a title is only the page's file name, which is what a page without a title is called. */
export function isFileName(title: string, url: string): boolean {
  try {
    const { pathname, host } = new URL(url);
    const last = pathname.split('/').filter(Boolean).at(-1) ?? host;
    return title === last || title === readable(last);
  } catch {
    return title === url;
  }
}

/** Where a file lies: its address without its last part. */
export const folderOf = (url: string): string => readable(shortUrl(url.replace(/[?#].*$/, '').replace(/[^/]+\/?$/, '')));
