/** The panel on the owner's page: welcome, then the conversation. */
import { useEffect, useLayoutEffect, useRef } from 'preact/hooks';
import { Announcer } from '../shared/announce';
import { Answer } from '../shared/answer';
import { Bars } from '../shared/bars';
import { Composer } from '../shared/composer';
import type { Conversation } from '../shared/conversation';
import { exchangesOf, type Exchange } from '../shared/exchanges';
import { counted } from '../shared/format';
import { Icon, icons } from '../shared/icons';
import { OutgoingNote } from '../shared/outgoing';
import { expectsMore, isOpen, wordingOf } from '../shared/reducer';
import type { Assistant } from '../shared/types';

export interface ViewProps {
  assistant: Assistant;
  conversation: Conversation;
  /** Puts the caret into the composer; set by the view. */
  focus: { current: () => void };
  onClose?: () => void;
}

/** Where the caret goes when what had the focus disappears. A finger would only get the keyboard over the answer. */
export function refocus(focus: ViewProps['focus']): void {
  if (matchMedia('(pointer: fine)').matches) focus.current();
  else document.querySelector<HTMLElement>('[role="region"]')?.focus({ preventScroll: true });
}

export function Frame({ assistant, conversation, focus, onClose }: ViewProps) {
  const thread = conversation.thread.value;
  const outbox = conversation.outbox.value;
  const phase = conversation.phase.value;
  const welcome = phase === 'new' || (phase === 'ready' && thread.messages.length === 0 && outbox.length === 0);
  const answering = expectsMore(thread);
  const running = thread.messages.filter(isOpen).at(-1);
  const passages = running ? thread.live[running.id]?.passages || new Set(running.evidence.map((e) => e.passage_id)).size : 0;
  const refused = thread.messages.at(-1)?.refused === true;
  const fresh = (): void => {
    conversation.reset();
    focus.current();
  };

  return (
    <div class="widget">
      {welcome ? (
        <header class="widget-head full">
          <div class="row"><span class="avatar avatar-inverse"><Icon of={icons.bookOpenText} /></span><span class="grow" />{onClose && <Close onClose={onClose} />}</div>
          <h1 dir="auto">{assistant.greeting || assistant.name}</h1>
          {assistant.intro && <p dir="auto">{assistant.intro}</p>}
        </header>
      ) : (
        <header class="widget-head">
          <span class="avatar avatar-brand"><Icon of={icons.bookOpenText} /></span>
          <div class="grow"><h1 class="name clip" dir="auto">{assistant.name}</h1><p class="sub">{passages > 0 ? `Answering from ${counted(passages, 'passage')}` : 'Answers with sources'}</p></div>
          <button type="button" class="btn btn-quiet btn-icon" aria-label="New conversation" title="New conversation" onClick={fresh}><Icon of={icons.plus} /></button>
          {onClose && <Close onClose={onClose} />}
        </header>
      )}
      <Bars conversation={conversation} />
      {phase === 'loading' && <Loading />}
      {welcome && <Welcome assistant={assistant} onAsk={(text) => { conversation.send(text); refocus(focus); }} />}
      {!welcome && phase === 'ready' && <Thread assistant={assistant} conversation={conversation} focus={focus} />}
      <footer class="widget-foot">
        <Composer placeholder={welcome ? 'Ask a question' : refused ? 'Ask another way' : 'Ask a follow-up'} answering={answering}
          onSend={(text) => conversation.send(text)} onStop={() => void conversation.stop()} onReady={(act) => { focus.current = act; }} />
        {welcome && <p class="fine">Answered by a program, from what is written here.</p>}
      </footer>
      <Announcer conversation={conversation} />
    </div>
  );
}

function Close({ onClose }: { onClose: () => void }) {
  return <button type="button" class="btn btn-quiet btn-icon" aria-label="Close" title="Close" onClick={onClose}><Icon of={icons.x} /></button>;
}

function Loading() {
  return (
    <div class="widget-body thread" aria-busy="true">
      <span class="sr">Opening your conversation.</span>
      <span class="skeleton skeleton-area bubble-shape" />
      <div class="stack"><span class="skeleton w90" /><span class="skeleton w80" /><span class="skeleton w50" /></div>
      <span class="skeleton skeleton-area card-shape" />
    </div>
  );
}

export function Welcome({ assistant, onAsk }: { assistant: Assistant; onAsk: (text: string) => void }) {
  return (
    <div class="widget-body">
      {assistant.suggested_questions.length > 0 && (
        <><h2 class="muted often">Often asked</h2>
          <div>{assistant.suggested_questions.map((text) => <button key={text} type="button" class="ask" dir="auto" onClick={() => onAsk(text)}>{text}<Icon of={icons.arrowRight} class="turn" /></button>)}</div></>
      )}
    </div>
  );
}

function Thread({ assistant, conversation, focus }: ViewProps) {
  const scroller = useRef<HTMLDivElement>(null);
  const thread = conversation.thread.value;
  const outbox = conversation.outbox.value;
  const offline = conversation.link.value.kind === 'waiting';
  const exchanges = exchangesOf(thread.messages);
  const questions = exchanges.length + outbox.length;

  // A new question moves to the top and stays there, so that its answer grows below without moving what is read.
  useLayoutEffect(() => {
    const node = scroller.current;
    if (node) node.scrollTop = node.scrollHeight;
  }, [questions]);

  return (
    <div ref={scroller} class="widget-body thread" role="region" aria-label="Conversation" tabIndex={0}>
      {exchanges.map((exchange) => <Turn key={exchange.key} exchange={exchange} assistant={assistant} conversation={conversation} focus={focus} offline={offline} />)}
      {outbox.map((item) => (
        <section key={item.key} class="turn-group">
          <div class="msg msg-visitor"><div class="bubble" dir="auto" data-pending={item.status !== 'sending' ? '' : undefined}>{item.text}</div><OutgoingNote item={item} conversation={conversation} offline={offline} /></div>
        </section>
      ))}
    </div>
  );
}

function Turn({ exchange, assistant, conversation, focus, offline }: ViewProps & { exchange: Exchange; offline: boolean }) {
  const thread = conversation.thread.value;
  return (
    <section class="turn-group">
      {exchange.question && <div class="msg msg-visitor"><div class="bubble" dir="auto">{exchange.question.text}</div></div>}
      {exchange.replies.map((message) => message.role === 'agent' ? (
        <div key={message.id} class="msg msg-agent"><div class="who">A person</div><div class="bubble" dir="auto">{message.text}</div></div>
      ) : (
        <div key={message.id} class={`msg msg-assistant${isOpen(message) ? '' : ' answered'}`}>
          <Answer message={message} wording={wordingOf(thread, message)} contact={assistant.contact} onRetry={(m) => { void conversation.retry(m); refocus(focus); }} />
          {offline && isOpen(message) && <p class="hint"><Icon of={icons.circleAlert} size="s" /> The rest follows when you are back.</p>}
        </div>
      ))}
    </section>
  );
}

/** Reads the conversation again when this page comes back into view: another tab may have gone on with it. */
export function useReturn(conversation: Conversation): void {
  useEffect(() => {
    const onChange = (): void => {
      if (document.visibilityState === 'visible') void conversation.refresh();
    };
    document.addEventListener('visibilitychange', onChange);
    return () => document.removeEventListener('visibilitychange', onChange);
  }, [conversation]);
}
