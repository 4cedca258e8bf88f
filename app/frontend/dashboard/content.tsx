/** Content: the sources, how their reading goes, and every page with what happened to it. */
import { useRef, useState } from 'preact/hooks';
import globe from 'lucide:globe';
import library from 'lucide:library';
import trash from 'lucide:trash-2';
import { ago, counted, exactTime, number, shortUrl } from '../shared/format';
import { explain } from '../shared/http';
import { Icon, icons } from '../shared/icons';
import { AddWebsite } from './add-website';
import { api } from './api';
import { namesOf } from './assistants';
import { Documents } from './documents';
import { Failed, say } from './parts';
import { handled, isReading, Reading } from './reading';
import { type Resource, usePolling } from './resource';
import { go, Link, path } from './router';
import type { AssistantDetail, Page, Source } from './types';

const UNDO_MS = 6000;
const POLL_MS = 1000;

export interface ContentProps {
  sources: Resource<Page<Source>>;
  assistants: Resource<Page<AssistantDetail>>;
  /** The assistant that the other rooms show. */
  chosen: string | null;
  onMade(assistant: AssistantDetail): void;
}

export function ContentView({ sources, assistants, chosen, onMade }: ContentProps) {
  const { data, error, loading, reload, set } = sources;
  const [adding, setAdding] = useState(false);
  const [gone, setGone] = useState<ReadonlySet<string>>(new Set());
  const removal = useRemoval(setGone);
  const items = (data?.items ?? []).filter((source) => !gone.has(source.id));
  const [, , sourceId, documentId] = path.value.split('/');
  const answering = assistants.data?.items ?? null;
  const open = items.find((source) => source.id === sourceId) ?? items[0];

  usePolling(async () => set(await api.sources()), POLL_MS, items.some(isReading));

  const replace = (source: Source): void => {
    const known = data?.items ?? [];
    set({ items: known.some((s) => s.id === source.id) ? known.map((s) => (s.id === source.id ? source : s)) : [source, ...known], next_cursor: null });
  };
  const readAgain = async (source: Source): Promise<void> => {
    try {
      replace(await api.readAgain(source.id));
    } catch (problem) {
      say(`Not read again. ${explain(problem)}`);
    }
  };

  return (
    <div class="main-in padded">
      <header class="page-head"><h1>Content</h1>{data && items.length > 0 && <button type="button" class="btn btn-primary" disabled={!answering} onClick={() => setAdding(true)}><Icon of={icons.plus} />Add website</button>}</header>
      {error && !data ? <Failed title="The sources could not be listed" error={error} onRetry={() => void reload()} /> : null}
      {error && data ? <div class="notice notice-warn" role="alert"><Icon of={icons.circleAlert} /><span class="grow">These figures are from before: {explain(error)}</span><button type="button" class="btn" onClick={() => void reload()}>Try again</button></div> : null}
      {assistants.error && !assistants.data ? <div class="notice notice-bad" role="alert"><Icon of={icons.circleAlert} /><span class="grow">The assistants could not be listed, so no website can be added. {explain(assistants.error)}</span><button type="button" class="btn" onClick={() => void assistants.reload()}>Try again</button></div> : null}
      {data && items.length === 0 && (
        <section class="card empty"><span class="glyph"><Icon of={library} size="l" /></span><h2>Nothing to answer from yet</h2><p>Point at a website. You see page by page what was read and what was not, and why.</p>
          <button type="button" class="btn btn-primary" disabled={!answering} onClick={() => setAdding(true)}>Add website</button></section>
      )}
      {(items.length > 0 || (loading && !data)) && <SourceTable items={items} assistants={answering ?? []} open={open?.id ?? null} />}
      {open && (
        <section class="card" aria-label={open.title}>
          <header class="card-head"><h2 class="clip" title={open.title}>{open.title || shortUrl(open.url)}</h2><StatusBadge source={open} />
            <span class="end row"><button type="button" class="btn" disabled={isReading(open)} onClick={() => void readAgain(open)}><Icon of={icons.rotateCw} />Read again</button>
              <button type="button" class="btn btn-quiet btn-icon" aria-label={`Remove ${open.title}`} title="Remove" onClick={() => { removal(open, () => void reload()); go('/content'); }}><Icon of={trash} /></button></span></header>
          {open.status === 'failed' && <div class="card-body"><div class="notice notice-bad" role="alert"><Icon of={icons.circleAlert} /><span><b>It could not be read.</b> {open.reason}</span></div></div>}
          {(open.status !== 'failed' || open.counts.found > 0) && <Reading source={open} />}
          {(open.status !== 'failed' || open.counts.found > 0) && <Documents key={open.id} source={open} picked={sourceId === open.id ? (documentId ?? null) : null} />}
        </section>
      )}
      {adding && answering && <AddWebsite assistants={answering} sources={data?.items ?? []} chosen={chosen} onMade={onMade} onClose={() => setAdding(false)} onAdded={(source) => { replace(source); setAdding(false); go(`/content/${source.id}`); say('Reading has begun.'); }} />}
    </div>
  );
}

/** Removing waits a few seconds for an Undo; leaving the page carries it out. */
function useRemoval(setGone: (change: (gone: ReadonlySet<string>) => ReadonlySet<string>) => void) {
  const pending = useRef<(() => void) | null>(null);
  return (source: Source, reload: () => void): void => {
    pending.current?.();
    setGone((gone) => new Set([...gone, source.id]));
    const restore = (): void => setGone((gone) => new Set([...gone].filter((id) => id !== source.id)));
    const settle = (): void => {
      clearTimeout(timer);
      removeEventListener('pagehide', carryOut);
      pending.current = null;
    };
    const carryOut = (): void => {
      settle();
      api.removeSource(source.id).then(reload, (error) => {
        restore();
        say(`Not removed. ${explain(error)}`);
      });
    };
    const timer = window.setTimeout(carryOut, UNDO_MS);
    pending.current = carryOut;
    addEventListener('pagehide', carryOut);
    say(`“${source.title || shortUrl(source.url)}” is removed with its ${counted(source.counts.passages, 'passage')}.`, () => { settle(); restore(); }, UNDO_MS);
  };
}

export function StatusBadge({ source }: { source: Source }) {
  const { skipped, failed } = source.counts;
  if (source.status === 'reading') return <span class="badge badge-accent badge-live">Reading</span>;
  if (source.status === 'waiting') return <span class="badge badge-accent badge-live">Waiting</span>;
  if (source.status === 'failed') return <span class="badge badge-bad">Failed</span>;
  if (failed > 0) return <span class="badge badge-warn">{number(failed)} failed</span>;
  if (skipped > 0) return <span class="badge badge-good">Read, {number(skipped)} skipped</span>;
  return <span class="badge badge-good">Read</span>;
}

function SourceTable({ items, assistants, open }: { items: Source[]; assistants: AssistantDetail[]; open: string | null }) {
  return (
    <section class="card" aria-label="Sources" aria-busy={items.length === 0}><div class="table-wrap"><table class="table">
      <thead><tr><th>Source</th><th class="hide-m">Assistant</th><th class="hide-m">Kind</th><th class="num hide-s">Documents</th><th class="num hide-s">Passages</th><th>Status</th><th class="hide-m">Last read</th></tr></thead>
      <tbody>
        {items.length === 0 && [260, 200].map((width) => (
          <tr key={width}><td class="main-col"><span class="skeleton" style={{ width: `${width}px`, maxWidth: '100%' }} /></td><td class="hide-m"><span class="skeleton w-90" /></td><td class="hide-m"><span class="skeleton w-56" /></td><td class="hide-s"><span class="skeleton w-32" /></td><td class="hide-s"><span class="skeleton w-32" /></td><td><span class="skeleton w-90" /></td><td class="hide-m"><span class="skeleton w-56" /></td></tr>
        ))}
        {items.map((source) => (
          <tr key={source.id} aria-selected={source.id === open}>
            <td class="main-col"><div class="kind"><Icon of={globe} /><div class="grow"><Link class="clip plain-link" href={`/content/${source.id}`}><b>{source.title || shortUrl(source.url)}</b></Link><span class="hint clip block">{shortUrl(source.url)}</span>{namesOf(source, assistants) && <span class="hint clip only-m" dir="auto">Answers as {namesOf(source, assistants)}</span>}</div></div></td>
            <td class="hide-m"><span class="clip block names" dir="auto" title={namesOf(source, assistants)}>{namesOf(source, assistants) || '–'}</span></td>
            <td class="hide-m">{source.kind === 'website' ? 'Website' : source.kind}</td>
            <td class="num hide-s">{number(source.counts.read + source.counts.unchanged)}</td>
            <td class="num hide-s">{number(source.counts.passages)}</td>
            <td><StatusBadge source={source} /></td>
            <td class="soft hide-m nowrap">{source.finished_at ? <time dateTime={source.finished_at} title={exactTime(source.finished_at)}>{ago(source.finished_at)}</time> : isReading(source) ? <span class="num">{number(handled(source.counts))} of {number(source.counts.found)}</span> : '–'}</td>
          </tr>
        ))}
      </tbody></table></div></section>
  );
}
