/** The full page: questions as headings, answers to read, the cited passage beside them. */
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks';
import panelRight from 'lucide:panel-right';
import printer from 'lucide:printer';
import { Announcer } from '../shared/announce';
import { Answer, Marked, type OnCite } from '../shared/answer';
import { Bars } from '../shared/bars';
import { Composer } from '../shared/composer';
import { exchangesOf } from '../shared/exchanges';
import { Icon, icons } from '../shared/icons';
import { isSafeLink } from '../shared/markdown';
import { OutgoingNote } from '../shared/outgoing';
import { type Cited, citedOf, markPassage, paragraphsOf, pathOf } from '../shared/quote';
import { expectsMore, isOpen, wordingOf } from '../shared/reducer';
import type { Message } from '../shared/types';
import { refocus, type ViewProps } from './frame';

interface Picked {
  message: string;
  number: number;
}

const WIDE = '(min-width: 1101px)'; // only there the passage opens by itself

export function Page({ assistant, conversation, focus }: ViewProps) {
  const thread = conversation.thread.value;
  const outbox = conversation.outbox.value;
  const phase = conversation.phase.value;
  const exchanges = exchangesOf(thread.messages);
  const empty = phase === 'new' || (phase === 'ready' && exchanges.length === 0 && outbox.length === 0);
  const offline = conversation.link.value.kind === 'waiting';
  const [picked, setPicked] = useState<Picked | null>(null);
  const declined = useRef(false);
  const scroller = useRef<HTMLDivElement>(null);

  const last = thread.messages.filter((m) => m.role === 'assistant' && !m.refused && m.citations?.length > 0).at(-1);
  useEffect(() => {
    if (last && !declined.current && matchMedia(WIDE).matches) setPicked({ message: last.id, number: last.citations[0]?.number ?? 1 });
  }, [last?.id]);

  // Beside an answer that rests on nothing, an older passage would mislead.
  const newest = thread.messages.filter((m) => m.role === 'assistant').at(-1);
  const bare = newest?.status === 'done' && newest.id !== last?.id;
  useEffect(() => {
    if (bare) setPicked(null);
  }, [bare, newest?.id]);

  const questions = exchanges.length + outbox.length;
  useLayoutEffect(() => {
    const node = scroller.current;
    if (!node || questions === 0) return;
    node.querySelector('.exchange:last-of-type')?.scrollIntoView({ block: 'start' });
  }, [questions]);

  const onCite: OnCite = (message, number) => {
    declined.current = false;
    setPicked({ message: message.id, number });
  };
  const source = useMemo(() => find(thread.messages, picked), [thread.messages, picked]);
  const close = (): void => {
    declined.current = true;
    setPicked(null);
    document.querySelector<HTMLElement>('.cite[aria-current="true"]')?.focus();
  };
  const again = (): void => {
    conversation.reset();
    setPicked(null);
    declined.current = false;
    focus.current();
  };

  return (
    <div class={`page${empty ? ' page-empty' : ''}${source ? ' page-read' : ''}`} onKeyDown={(event) => { if (event.key === 'Escape' && source) close(); }}>
      <header class="head">
        <span class="avatar avatar-brand"><Icon of={icons.bookOpenText} /></span><h1 class="clip" dir="auto">{assistant.name}</h1><span class="grow" />
        {!empty && <button type="button" class="btn btn-quiet hide-s" onClick={() => print()}><Icon of={printer} />Print</button>}
        {!empty && <button type="button" class="btn" aria-label="New conversation" onClick={again}><Icon of={icons.plus} /><span class="hide-s">New conversation</span></button>}
      </header>
      {!empty && (
        <nav class="topics" aria-label="Asked so far"><h2>Your questions</h2>
          {exchanges.map(({ key, question }) => question && <a key={key} class="nav" href={`#q-${key}`} dir="auto"><span class="clip" title={question.text}>{question.text}</span></a>)}
        </nav>
      )}
      <main class="talk">
        <Bars conversation={conversation} />
        <div ref={scroller} class="scroll" tabIndex={empty ? undefined : 0} role={empty ? undefined : 'region'} aria-label={empty ? undefined : 'Conversation'}>
          {phase === 'loading' && <Loading />}
          {empty && (
            <div class="talk-in start">
              <div><h2 class="q" dir="auto">{assistant.greeting || assistant.name}</h2>{assistant.intro && <p class="soft intro" dir="auto">{assistant.intro}</p>}</div>
              {assistant.suggested_questions.length > 0 && (
                <div><h3 class="muted often">Often asked</h3>{assistant.suggested_questions.map((text) => <button key={text} type="button" class="ask" dir="auto" onClick={() => { conversation.send(text); refocus(focus); }}>{text}<Icon of={icons.arrowRight} class="turn" /></button>)}</div>
              )}
            </div>
          )}
          {!empty && phase === 'ready' && (
            <div class="talk-in">
              {exchanges.map(({ key, question, replies }) => (
                <section key={key} class="exchange">
                  {question && <h2 class="q" id={`q-${key}`} dir="auto">{question.text}</h2>}
                  {replies.map((message) => message.role === 'agent' ? (
                    <div key={message.id} class="msg msg-agent"><div class="who">A person</div><div class="bubble" dir="auto">{message.text}</div></div>
                  ) : (
                    <div key={message.id} class={`answer${isOpen(message) ? '' : ' answered'}`}>
                      <Answer message={message} wording={wordingOf(thread, message)} contact={assistant.contact} sourceIcon={panelRight}
                        selected={picked?.message === message.id ? picked.number : null} onCite={onCite} onRetry={(m) => { void conversation.retry(m); refocus(focus); }} />
                      {offline && isOpen(message) && <p class="hint"><Icon of={icons.circleAlert} size="s" /> The rest follows when you are back.</p>}
                    </div>
                  ))}
                </section>
              ))}
              {outbox.map((item) => (
                <section key={item.key} class="exchange"><h2 class="q" dir="auto">{item.text}</h2>
                  {item.status === 'sending' ? <div class="answer"><div class="lead"><span class="typing"><i /><i /><i /></span></div></div> : <OutgoingNote item={item} conversation={conversation} offline={offline} />}
                </section>
              ))}
            </div>
          )}
        </div>
        <div class="foot"><div class="talk-in"><Composer placeholder={empty ? 'Ask a question' : 'Ask a follow-up'} answering={expectsMore(thread)} autoFocus={empty}
          onSend={(text) => conversation.send(text)} onStop={() => void conversation.stop()} onReady={(act) => { focus.current = act; }} />
          {empty && <p class="fine">Answered by a program, from what is written here.</p>}</div></div>
      </main>
      {source && <Reader item={source} onClose={close} />}
      <Announcer conversation={conversation} />
    </div>
  );
}

function find(messages: Message[], picked: Picked | null): Cited | null {
  const message = picked && messages.find((m) => m.id === picked.message);
  if (!message) return null;
  return citedOf(message.evidence, message.citations).find((item) => item.number === picked.number) ?? null;
}

function Loading() {
  return (
    <div class="talk-in exchange" aria-busy="true"><span class="sr">Opening your conversation.</span>
      <span class="skeleton q-shape" /><div class="stack"><span class="skeleton w90" /><span class="skeleton w80" /><span class="skeleton w50" /></div>
    </div>
  );
}

/** The passage with its cited sentences marked, paragraph by paragraph. */
function Reader({ item, onClose }: { item: Cited; onClose: () => void }) {
  const doc = useRef<HTMLDivElement>(null);
  const paragraphs = useMemo(() => paragraphsOf(markPassage(item.passage || item.sentences.join(' '), item.sentences)), [item]);
  useEffect(() => {
    if (doc.current) doc.current.scrollTop = 0;
    doc.current?.querySelector('mark')?.scrollIntoView({ block: 'nearest' });
  }, [item.number, item.url]);
  return (
    <aside class="read" aria-label={`Source ${item.number}`}>
      <header>
        <div class="row"><span class="cite">{item.number}</span><h2 class="grow clip" title={item.title} dir="auto">{item.title}</h2>
          <button type="button" class="btn btn-quiet btn-icon" aria-label="Close source" title="Close source" onClick={onClose}><Icon of={icons.x} /></button></div>
        <div class="row"><span class="hint clip" dir="auto">{pathOf(item)}</span>
          {isSafeLink(item.url) && <a class="btn btn-quiet end" href={item.url} target="_blank" rel="noopener noreferrer">Open page<Icon of={icons.arrowUpRight} size="s" class="turn" /></a>}</div>
      </header>
      <div ref={doc} class="doc" tabIndex={0} role="region" aria-label="Passage">
        {paragraphs.map((parts, i) => <p key={i} class={parts.some((part) => part.marked) ? 'cited' : ''} dir="auto"><Marked parts={parts} /></p>)}</div>
    </aside>
  );
}
