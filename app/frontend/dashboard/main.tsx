/** The dashboard: who is here, what to do first, and the shell around the views. */
import { render } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import bot from 'lucide:bot';
import library from 'lucide:library';
import userRound from 'lucide:user-round';
import '../shared/tokens.css';
import '../shared/components.css';
import '../shared/conversation.css';
import './dashboard.css';
import { ApiError } from '../shared/http';
import { Icon } from '../shared/icons';
import { AccountView } from './account';
import { api, me } from './api';
import { AssistantView } from './assistant';
import { chosenOf, sourcesOf, useChosen } from './assistants';
import { ContentView } from './content';
import { FirstRun } from './first-run';
import { Failed, Mark, Toasts } from './parts';
import { useResource } from './resource';
import { go, Link, path } from './router';
import { SignIn } from './sign-in';
import type { AssistantDetail, Me } from './types';

const ROOMS = [
  ['/assistant', 'Assistant', bot],
  ['/content', 'Content', library],
  ['/account', 'Account', userRound],
] as const;

function App() {
  const [problem, setProblem] = useState<unknown>(null);
  const who = me.value;
  const ask = (): void => {
    setProblem(null);
    api.me().then((found) => { me.value = found; }, (error) => {
      if (!(error instanceof ApiError && error.status === 401)) setProblem(error);
    });
  };
  useEffect(() => {
    if (path.value === '/sign-in') me.value = null;
    else ask();
  }, []);
  useEffect(() => {
    if (who === null) go('/sign-in', true);
  }, [who]);

  if (problem) return <main class="screen"><div class="brandline"><Mark />Retort</div><div class="mid"><Failed title="The dashboard could not be opened" error={problem} onRetry={ask} /></div></main>;
  if (who === undefined) return <main class="screen" aria-busy="true"><span class="sr">Opening.</span></main>;
  return <>{who === null ? <SignIn /> : <Inside key={who.member.id} who={who} />}<Toasts /></>;
}

function Inside({ who }: { who: Me }) {
  const assistants = useResource(() => api.assistants(), 'assistants');
  const sources = useResource(() => api.sources(), 'sources');
  const here = path.value;
  const [chosen, choose] = useChosen(who.workspace.id);
  const items = assistants.data?.items ?? [];
  const assistant = chosenOf(items, chosen);
  const made = (a: AssistantDetail): void => {
    assistants.set({ items: [...items.filter((i) => i.id !== a.id), a], next_cursor: null });
    choose(a.id);
  };
  const none = sources.data !== null && sources.data.items.length === 0;

  useEffect(() => {
    if (sources.data === null) return;
    // Where one is by now: an effect runs a moment after its drawing, and a room chosen in that moment is not to be left again.
    const now = path.value;
    if (now === '/' || now === '/sign-in') go(none ? '/start' : '/assistant', true);
    else if (now === '/start' && !assistant && assistants.error) go('/assistant', true);
  }, [here, none, sources.data === null, assistant, assistants.error]);
  useEffect(() => {
    if (sources.error && (path.value === '/' || path.value === '/sign-in')) go('/assistant', true);
  }, [sources.error, here]);
  useEffect(() => {
    const room = ROOMS.find(([href]) => here.startsWith(href));
    document.title = `${room ? room[1] : 'Start'} · Retort`;
  }, [here]);

  if (here === '/start' && assistant && sources.data) {
    const known = sources.data.items;
    return (
      <FirstRun key={assistant.id} assistant={assistant} source={sourcesOf(assistant.id, known)[0] ?? null} named={items.length > 1}
        onSource={(source) => sources.set({ items: [source, ...known.filter((s) => s.id !== source.id)], next_cursor: null })} />
    );
  }
  return (
    <div class="shell">
      <a class="skip" href="#main">Skip to the content</a>
      <aside class="side" aria-label="Workspace">
        <div class="workspace"><Mark /><span class="grow lbl"><b class="clip" title={who.workspace.name}>{who.workspace.name}</b><span class="hint role">{who.member.role}</span></span></div>
        <nav aria-label="Main">{ROOMS.map(([href, text, icon]) => <Link key={href} class="nav" href={href} aria-current={here.startsWith(href) ? 'page' : undefined}><Icon of={icon} /><span class="lbl">{text}</span></Link>)}</nav>
      </aside>
      <nav class="dock" aria-label="Main, phone">{ROOMS.map(([href, text, icon]) => <Link key={href} class="nav" href={href} aria-current={here.startsWith(href) ? 'page' : undefined}><Icon of={icon} />{text}</Link>)}</nav>
      <main class="main" id="main" tabIndex={-1}>
        {here.startsWith('/content') ? <ContentView sources={sources} assistants={assistants} chosen={assistant?.id ?? null} onMade={made} />
          : here.startsWith('/account') ? <AccountView who={who} />
            : here.startsWith('/assistant') || here === '/' || here === '/start' ? <AssistantView assistants={assistants} assistant={assistant} bare={assistant !== null && sources.data !== null && sourcesOf(assistant.id, sources.data.items).length === 0} onChoose={choose} onMade={(a) => { made(a); go('/start'); }} />
              : <div class="main-in padded"><section class="card empty"><h1>There is no such page</h1><p>The address may be old.</p><Link class="btn" href="/assistant">Open the assistant</Link></section></div>}
      </main>
    </div>
  );
}

const root = document.getElementById('app');
if (root) render(<App />, root);
