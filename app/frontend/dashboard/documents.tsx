/** The pages of a source, filtered by what happened to them, and one of them with its passages. */
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import fileSearch from 'lucide:file-search';
import search from 'lucide:search';
import { ago, bytes, counted, exactTime, number, pageName } from '../shared/format';
import { explain } from '../shared/http';
import { Icon, icons } from '../shared/icons';
import { isSafeLink } from '../shared/markdown';
import { folderOf, isFileName, placeOf } from './addresses';
import { api } from './api';
import { isReading } from './reading';
import { usePolling, useResource } from './resource';
import { go, Link } from './router';
import type { DocumentDetail, DocumentRow, DocumentStatus, DocumentStep, Source } from './types';

const PAGE = 30; // rows asked for at once
const POLL_MS = 1000;
const CLIPPED_FROM = 6; // characters: a shorter folder is shown whole, and takes no more room than it needs
const TYPING_MS = 250; // before a search is sent

const BADGES: Record<DocumentStatus, [string, string]> = {
  waiting: ['badge-plain', 'Waiting'],
  fetching: ['badge-accent badge-live', 'Fetching'],
  read: ['badge-good', 'Read'],
  unchanged: ['badge-plain', 'Unchanged'],
  skipped: ['badge-warn', 'Skipped'],
  failed: ['badge-bad', 'Failed'],
};

/** Instead of the status, where a page is under way: what it waits for is no work, and does not pulse. */
const STEPS: Partial<Record<DocumentStep, [string, string]>> = {
  fetched: ['badge-plain', 'Waiting for vectors'],
  embedding: ['badge-accent badge-live', 'Making vectors'],
};

export function DocumentBadge({ row }: { row: Pick<DocumentRow, 'status' | 'step'> }) {
  const [look, word] = (row.step && STEPS[row.step]) ?? BADGES[row.status] ?? ['badge-plain', row.status];
  return <span class={`badge ${look}`}>{word}</span>;
}

interface Listing {
  items: DocumentRow[];
  next: string | null;
}

function useDocuments(source: Source, status: string | null, q: string) {
  const [size, setSize] = useState(PAGE);
  const [more, setMore] = useState(false);
  const key = `${source.id}:${status ?? ''}:${q}`;
  useEffect(() => setSize(PAGE), [key]);

  /** As many rows as are shown now, so that a poll never shortens the list. */
  const load = async (wanted: number): Promise<Listing> => {
    const items: DocumentRow[] = [];
    let cursor: string | null = null;
    do {
      const page: { items: DocumentRow[]; next_cursor: string | null } = await api.documents(source.id, { status, q, cursor, limit: Math.min(PAGE * 3, wanted - items.length) });
      items.push(...page.items);
      cursor = page.next_cursor;
    } while (cursor !== null && items.length < wanted);
    return { items, next: cursor };
  };
  const list = useResource(() => load(size), key);
  usePolling(async () => list.set(await load(size)), POLL_MS, isReading(source) && list.data !== null && !list.error);
  const wasReading = useRef(isReading(source));
  useEffect(() => {
    if (wasReading.current && !isReading(source)) void list.reload();
    wasReading.current = isReading(source);
  }, [source.status]);

  const showMore = async (): Promise<void> => {
    if (!list.data?.next) return;
    setMore(true);
    try {
      const page = await api.documents(source.id, { status, q, cursor: list.data.next, limit: PAGE });
      setSize(list.data.items.length + page.items.length);
      list.set({ items: [...list.data.items, ...page.items], next: page.next_cursor });
    } finally {
      setMore(false);
    }
  };
  return { ...list, showMore, more };
}

const oneColumn = (): boolean => matchMedia('(max-width: 1200px)').matches; // as in dashboard.css: the page takes the list's place

/** Choosing a page moves the focus to its pane, whose beginning is shown; leaving it, back to its row in the list. */
function usePaneFocus(picked: string | null) {
  const list = useRef<HTMLDivElement>(null);
  const pane = useRef<HTMLElement>(null);
  const before = useRef(picked);
  useLayoutEffect(() => {
    if (before.current === picked) return;
    const left = before.current;
    before.current = picked;
    if (picked !== null && pane.current) {
      pane.current.scrollTop = 0;
      pane.current.focus({ preventScroll: true });
    } else if (left !== null) {
      const row = list.current?.querySelector<HTMLElement>(`a[href$="/${left}"]`);
      row?.focus({ preventScroll: true });
      row?.scrollIntoView({ block: oneColumn() ? 'center' : 'nearest' });
    }
  }, [picked]);
  return { list, pane };
}

export function Documents({ source, picked }: { source: Source; picked: string | null }) {
  const [status, setStatus] = useState<DocumentStatus | null>(null);
  const [typed, setTyped] = useState('');
  const [q, setQ] = useState('');
  useEffect(() => {
    const timer = setTimeout(() => setQ(typed.trim()), TYPING_MS);
    return () => clearTimeout(timer);
  }, [typed]);
  const { data, error, loading, reload, showMore, more } = useDocuments(source, status, q);
  const { counts } = source;
  const filters: [DocumentStatus | null, string, number][] = [
    [null, 'All', counts.found], ['read', 'Read', counts.read], ['unchanged', 'Unchanged', counts.unchanged], ['skipped', 'Skipped', counts.skipped], ['failed', 'Failed', counts.failed],
    ['waiting', 'Waiting', counts.waiting - counts.fetching - counts.fetched], ['fetching', 'Under way', counts.fetching + counts.fetched],
  ];
  const total = filters.find(([value]) => value === status)?.[2] ?? 0;
  const items = data?.items ?? [];
  const { list, pane } = usePaneFocus(picked);
  const close = `/content/${source.id}`;

  return (
    <div class={`split${picked ? ' split-open' : ''}`}>
      <div class="pages" ref={list}>
        <div class="filters">
          <div class="search grow"><Icon of={search} /><input class="input" type="search" aria-label="Filter pages" placeholder="Filter by title or address" value={typed} onInput={(event) => setTyped(event.currentTarget.value)} /></div>
          <div class="row wrap" role="group" aria-label="Status">
            {filters.filter(([value, , n]) => value === null || n > 0 || value === status).map(([value, text, n]) => <button key={text} type="button" class="chip" aria-pressed={status === value} onClick={() => setStatus(value)}>{text} <b>{number(n)}</b></button>)}
          </div>
        </div>
        {error ? <div class="card-body"><div class="notice notice-bad" role="alert"><Icon of={icons.circleAlert} /><span class="grow">The pages could not be listed. {explain(error)}</span><button type="button" class="btn" onClick={() => void reload()}>Try again</button></div></div> : null}
        {!data && loading && <div aria-busy="true">{[72, 58, 80, 64].map((width) => <div key={width} class="item pageitem"><span class="skeleton" style={{ width: `${width}%` }} /><span class="skeleton w-56" /><span class="skeleton w50" /></div>)}</div>}
        {items.map((row) => <PageItem key={row.id} row={row} source={source} current={row.id === picked} />)}
        {data && items.length === 0 && <p class="none-found">{q || status ? 'No page matches. ' : isReading(source) ? 'The first pages follow in a moment.' : 'No page was found.'}{(q || status) && <button type="button" class="btn btn-quiet" onClick={() => { setTyped(''); setStatus(null); }}>Show all</button>}</p>}
        {data && items.length > 0 && (
          <div class="more num"><span>{q ? counted(items.length, 'page') : `${number(items.length)} of ${number(Math.max(total, items.length))}`}</span>{data.next && <button type="button" class="btn btn-quiet" disabled={more} onClick={() => void showMore()}>Show more</button>}</div>
        )}
      </div>
      <article aria-label="Document" class="document" ref={pane} tabIndex={-1} onKeyDown={(event) => { if (event.key === 'Escape' && picked) go(close); }}>
        {picked ? <Detail key={picked} id={picked} source={source} /> : <div class="empty"><span class="glyph"><Icon of={fileSearch} size="l" /></span><h3>Choose a page</h3><p>You see its passages here, or why it was not read.</p></div>}
      </article>
    </div>
  );
}

/** Two lines: the title and the way to the page, or for a page without a title its file name and where that lies. */
function PageItem({ row, source, current }: { row: DocumentRow; source: Source; current: boolean }) {
  const nameless = !row.title || isFileName(row.title, row.url);
  const { folder, leaf } = placeOf(row.url, source.url);
  return (
    <Link class="item pageitem" href={`/content/${row.source_id}/${row.id}`} aria-current={current ? 'true' : undefined}>
      <b class="clip" dir="auto" title={nameless ? row.url : row.title}>{nameless ? leaf : row.title}</b><DocumentBadge row={row} />
      <span class="hint page-path" title={row.url}>{nameless ? <span class="clip">{folderOf(row.url)}</span> : <>{folder && <span class={folder.length > CLIPPED_FROM ? 'clip' : 'nowrap'}>{folder}</span>}<span class="clip leaf">{leaf}</span></>}</span>{row.passages > 0 && <span class="hint num">{counted(row.passages, 'passage')}</span>}
      {row.reason && <span class="reason">{row.reason}</span>}
    </Link>
  );
}

function Detail({ id, source }: { id: string; source: Source }) {
  const { data, error, loading, reload, set } = useResource<DocumentDetail>(() => api.document(id), id);
  const head = useRef<HTMLDivElement>(null);
  useEffect(() => {
    if (oneColumn()) head.current?.scrollIntoView({ block: 'start' });
  }, [loading]);
  const unfinished = data !== null && (data.status === 'waiting' || data.status === 'fetching');
  usePolling(async () => set(await api.document(id)), POLL_MS, unfinished && isReading(source));
  const back = <div ref={head}><Link class="btn btn-quiet back" href={`/content/${source.id}`}>All pages</Link></div>;
  if (error) return <>{back}<div class="empty" role="alert"><span class="glyph glyph-bad"><Icon of={icons.circleAlert} size="l" /></span><h3>The page could not be loaded</h3><p>{explain(error)}</p><button type="button" class="btn" onClick={() => void reload()}>Try again</button></div></>;
  if (!data || loading) return <>{back}<div class="doc-head" aria-busy="true"><span class="skeleton title-shape" /><span class="skeleton w50" /></div><div class="card-body stack"><span class="skeleton w90" /><span class="skeleton w80" /><span class="skeleton w90" /></div></>;
  return (
    <>
      {back}
      <div class="doc-head">
        <div class="row"><h2 class="clip grow" dir="auto" title={data.title}>{data.title || pageName(data.url)}</h2>{isSafeLink(data.url) && <a class="btn btn-quiet" href={data.url} target="_blank" rel="noopener noreferrer">Open page<Icon of={icons.arrowUpRight} size="s" class="turn" /></a>}</div>
        <div class="facts num"><DocumentBadge row={data} />{data.fetched_at && <time dateTime={data.fetched_at} title={exactTime(data.fetched_at)}>{data.status === 'failed' ? 'Tried' : data.step || data.status === 'skipped' ? 'Fetched' : 'Read'} {ago(data.fetched_at)}</time>}
          {data.version > 0 && <span>Version {data.version}</span>}{data.words ? <span>{counted(data.words, 'word')}</span> : null}{data.bytes ? <span>{bytes(data.bytes)}</span> : null}{data.http_status !== null && <span>HTTP {data.http_status}</span>}</div>
        {data.reason && <div class={`notice ${data.status === 'failed' ? 'notice-bad' : data.status === 'skipped' ? 'notice-warn' : ''}`}><Icon of={icons.circleAlert} /><span>{data.reason}</span></div>}
      </div>
      <section class="passages" aria-label="Passages">
        <h3>{data.passages.length > 0 ? counted(data.passages.length, 'passage') : unfinished ? 'Not read yet' : 'No passages'}</h3>
        {data.passages.map((passage) => (
          <div key={passage.id} class="passage-item" dir="auto"><b>{passage.heading_path.at(-1) ?? data.title}</b>
            {passage.heading_path.length > 1 && <span class="hint">{passage.heading_path.slice(0, -1).join(' › ')}</span>}
            <span class="passage-text">{passage.text}</span><span class="meta num"><span>{counted(passage.tokens, 'token')}</span>{passage.fragment && <span class="mono">#{passage.fragment.replace(/^#/, '')}</span>}</span></div>
        ))}
      </section>
    </>
  );
}
