import { useState } from 'preact/hooks';
import bot from 'lucide:bot';
import { Icon, icons } from '../shared/icons';
import { config } from './api';
import { NewAssistant } from './new-assistant';
import { Failed, Snippet } from './parts';
import type { Resource } from './resource';
import { Link, path } from './router';
import { Settings } from './settings';
import { Try } from './try';
import type { AssistantDetail, Page } from './types';

const TABS = [
  ['/assistant', 'Try it'],
  ['/assistant/settings', 'Settings'],
  ['/assistant/embed', 'Embed'],
] as const;

export interface AssistantViewProps {
  assistants: Resource<Page<AssistantDetail>>;
  /** The chosen one. */
  assistant: AssistantDetail | null;
  /** It has nothing to answer from. */
  bare: boolean;
  onChoose(id: string): void;
  onMade(assistant: AssistantDetail): void;
}

export function AssistantView({ assistants, assistant, bare, onChoose, onMade }: AssistantViewProps) {
  const { data, error, loading, reload, set } = assistants;
  const [making, setMaking] = useState(false);
  if (error && !data) return <div class="main-in padded"><header class="page-head"><h1>Assistant</h1></header><Failed title="The assistant could not be loaded" error={error} onRetry={() => void reload()} /></div>;
  const items = data?.items ?? [];
  const page = path.value;

  return (
    <div class="assistant-view">
      <header class="page-head bar">
        {items.length > 1 && assistant ? (
          <><h1 class="sr">Assistant</h1><select class="select pick" aria-label="Assistant" value={assistant.id} onChange={(event) => onChoose(event.currentTarget.value)}>{items.map((a) => <option key={a.id} value={a.id}>{a.name}</option>)}</select><span class="grow hide-s" /></>
        ) : <h1 class="clip" dir="auto">{assistant?.name ?? (loading ? <span class="skeleton title-shape" /> : 'Assistant')}</h1>}
        {assistant && <button type="button" class="btn btn-quiet" aria-label="New assistant" title="New assistant" onClick={() => setMaking(true)}><Icon of={icons.plus} /><span class="hide-s">New assistant</span></button>}
        {assistant && <a class="btn" aria-label="Open full page" title="Open full page" href={`${config.visitor_origin}/a/${assistant.slug}`} target="_blank" rel="noopener noreferrer"><span class="hide-s">Open full page</span><Icon of={icons.arrowUpRight} size="s" class="turn" /></a>}
      </header>
      {(assistant || loading) && <nav class="tabs bar" aria-label="Assistant">{TABS.map(([href, text]) => <Link key={href} class="tab" href={href} aria-current={page === href ? 'page' : undefined}>{text}</Link>)}</nav>}
      {!assistant && loading && <AssistantLoading />}
      {!assistant && !loading && <div class="empty"><span class="glyph"><Icon of={bot} size="l" /></span><h2>No assistant yet</h2><p>Name one, and add the website that it answers from.</p><button type="button" class="btn btn-primary" onClick={() => setMaking(true)}>New assistant</button></div>}
      {assistant && page === '/assistant' && <Try key={assistant.id} assistant={assistant} bare={bare} />}
      {assistant && page === '/assistant/settings' && (
        <div class="main-in narrow"><Settings key={assistant.id} assistant={assistant} onChanged={(a) => set({ items: items.map((i) => (i.id === a.id ? a : i)), next_cursor: null })} /></div>
      )}
      {assistant && page === '/assistant/embed' && <div class="main-in narrow"><Embed assistant={assistant} /></div>}
      {making && <NewAssistant onClose={() => setMaking(false)} onMade={(a) => { setMaking(false); onMade(a); }} />}
    </div>
  );
}

function AssistantLoading() {
  return (
    <div class="try" aria-busy="true"><section class="transcript"><div class="scroll thread"><span class="skeleton skeleton-area bubble-shape" /><div class="stack"><span class="skeleton w30" /><span class="skeleton w90" /><span class="skeleton w80" /></div></div></section>
      <aside class="why"><div class="pane-head"><h2>Why this answer</h2></div><section><span class="skeleton w30" /><span class="skeleton w90" /></section></aside></div>
  );
}

function Embed({ assistant }: { assistant: AssistantDetail }) {
  const { visitor_origin } = config;
  return (
    <>
      <section class="card"><header class="card-head"><h2>On your pages</h2></header><div class="card-body stack">
        <p class="soft">Put this line before <code>{'</body>'}</code> on every page that should have the assistant.</p>
        <Snippet slug={assistant.slug} />
        {assistant.allowed_origins.length === 0
          ? <div class="notice notice-warn"><Icon of={icons.circleAlert} /><span>No website may show it yet. Add yours under <Link href="/assistant/settings">Settings</Link>, Allowed origins.</span></div>
          : <p class="hint">It works on {assistant.allowed_origins.join(', ')}. Change that under <Link href="/assistant/settings">Settings</Link>.</p>}
        <dl class="kv options"><dt><code>data-label</code></dt><dd>The words on the button; otherwise the assistant’s name</dd><dt><code>data-position</code></dt><dd><code>right</code> or <code>left</code></dd><dt><code>data-theme</code></dt><dd><code>auto</code>, <code>light</code> or <code>dark</code></dd><dt><code>data-open</code></dt><dd>Open when the page has loaded</dd></dl>
      </div></section>
      <section class="card"><header class="card-head"><h2>Without a website</h2></header><div class="card-body stack">
        <p class="soft">The same assistant as a page of its own, and a sample page with the button on it.</p>
        <div class="row wrap"><a class="btn" href={`${visitor_origin}/a/${assistant.slug}`} target="_blank" rel="noopener noreferrer">Open full page<Icon of={icons.arrowUpRight} size="s" class="turn" /></a><a class="btn btn-quiet" href={`${visitor_origin}/demo/${assistant.slug}`} target="_blank" rel="noopener noreferrer">Open sample page<Icon of={icons.arrowUpRight} size="s" class="turn" /></a></div>
      </div></section>
    </>
  );
}
