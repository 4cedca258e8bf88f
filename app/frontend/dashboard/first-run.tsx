/** One question, one thing to watch, one result. */
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import loader from 'lucide:loader-circle';
import { Composer } from '../shared/composer';
import { counted, number, pageName, seconds } from '../shared/format';
import { Icon, icons } from '../shared/icons';
import { expectsMore } from '../shared/reducer';
import { api } from './api';
import { Mark, Snippet } from './parts';
import { handled, isReading, ProgressBar, timeLeft } from './reading';
import { usePolling } from './resource';
import { Link } from './router';
import { Talk } from './talk';
import { trialOf } from './try';
import type { AssistantDetail, Source } from './types';
import { useWebsite } from './website';

const POLL_MS = 1000;

export interface FirstRunProps {
  assistant: AssistantDetail;
  source: Source | null;
  /** There are others, so the page says which one this is. */
  named: boolean;
  onSource(source: Source): void;
}

export function FirstRun({ assistant, source, named, onSource }: FirstRunProps) {
  usePolling(async () => { if (source) onSource(await api.source(source.id)); }, POLL_MS, source !== null && isReading(source));
  const step = source === null || source.status === 'failed' ? 1 : isReading(source) ? 2 : 3;
  return (
    <main class="screen">
      <div class="brandline"><Mark />Retort<span class="steps" role="img" aria-label={`Step ${step} of 3`}>{[1, 2, 3].map((n) => <i key={n} class={n <= step ? 'on' : ''} />)}</span></div>
      {step === 1 && <Address assistant={assistant} failed={source} named={named} onSource={onSource} />}
      {step === 2 && source && <Watch source={source} />}
      {step === 3 && source && <Result source={source} assistant={assistant} />}
    </main>
  );
}

function Address({ assistant, failed, named, onSource }: { assistant: AssistantDetail; failed: Source | null; named: boolean; onSource: (source: Source) => void }) {
  const form = useWebsite(async () => assistant.id, onSource);
  const input = useRef<HTMLInputElement>(null);
  useEffect(() => input.current?.focus(), []);
  useEffect(() => {
    if (failed) form.setUrl(failed.url);
  }, [failed?.id]);
  const problem = form.problem ?? failed?.reason ?? null;
  return (
    <form class="mid" noValidate onSubmit={(event) => { event.preventDefault(); void form.submit(); }}>
      <div><h1>Which website should answer?</h1><p dir="auto">{named ? `“${assistant.name}”` : 'Retort'} reads it and answers visitors only from what is written there.</p></div>
      <div class="address"><label class="legend" for="address">Address of your website</label>
        <input ref={input} class="input big" id="address" type="url" inputMode="url" autocomplete="url" placeholder="www.example.org/docs/" aria-invalid={problem !== null} aria-describedby={problem ? 'address-problem' : undefined} value={form.url} onInput={(event) => form.setUrl(event.currentTarget.value)} />
        {problem && <span class="error error-big" id="address-problem" role="alert"><Icon of={icons.circleAlert} size="s" /><span>{problem}</span></span>}
        <button class="btn btn-primary big" disabled={form.busy}>{form.busy ? 'Looking' : problem ? 'Try again' : 'Read website'}</button></div>
      {named && <Link class="soft later" href="/assistant">Not now</Link>}
    </form>
  );
}

function Watch({ source }: { source: Source }) {
  const { counts } = source;
  const left = timeLeft(source);
  return (
    <div class="mid">
      <div><h1>Reading your website</h1><p class="num" role="status">{counts.found > 0 ? `${number(handled(counts))} of ${counted(counts.found, 'page')}${left ? `, ${left}` : ''}` : 'Looking for its pages'}</p></div>
      <ProgressBar counts={counts} tall />
      <ul class="log">
        <li class={counts.found > 0 ? '' : 'now'}><Icon of={counts.found > 0 ? icons.check : loader} class={counts.found > 0 ? '' : 'spinner'} />{counts.found > 0 ? 'Website found, reading allowed' : 'Finding its pages'}</li>
        {counts.found > 0 && <li class="now"><Icon of={loader} class="spinner" /><span class="clip" title={source.current ?? ''}>{source.current ? pageName(source.current) : counts.fetched > 0 ? 'Making vectors' : 'Reading'}</span><span class="num">{counted(counts.passages, 'passage')}</span></li>}
      </ul>
      <div><p class="soft">You can leave this page; reading goes on.</p><Link class="later" href="/content">Go to the dashboard</Link></div>
    </div>
  );
}

function Result({ source, assistant }: { source: Source; assistant: AssistantDetail }) {
  const conversation = useMemo(() => trialOf(assistant.id), [assistant.id]);
  const [asked, setAsked] = useState(false);
  const first = assistant.suggested_questions[0];
  const { counts } = source;
  const read = counts.read + counts.unchanged;
  const not = counts.skipped + counts.failed;
  const took = source.started_at && source.finished_at ? Date.parse(source.finished_at) - Date.parse(source.started_at) : null;
  useEffect(() => {
    if (!first || asked || conversation.thread.value.messages.length > 0) return;
    setAsked(true);
    conversation.send(first);
  }, [first]);
  const empty = conversation.thread.value.messages.length === 0 && conversation.outbox.value.length === 0;
  return (
    <div class="mid mid-close">
      <div><h1>Your assistant answers</h1><p class="num">{counted(read, 'page')} read{took !== null && took > 0 ? ` in ${seconds(took)}` : ''}.{not > 0 && <> <Link href={`/content/${source.id}`}>{not === 1 ? '1 was not' : `${number(not)} were not`}</Link>.</>}</p></div>
      {!empty && <div class="answer-card"><Talk conversation={conversation} name={assistant.name} contact={assistant.contact} /></div>}
      <Composer placeholder="Ask it something" answering={expectsMore(conversation.thread.value)} onSend={(text) => conversation.send(text)} onStop={() => void conversation.stop()} autoFocus />
      <Snippet slug={assistant.slug} />
      <Link class="later" href="/assistant">Go to the dashboard</Link>
    </div>
  );
}
