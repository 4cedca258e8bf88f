/** Try a question: the conversation as visitors see it, and beside it why each answer was given. */
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import library from 'lucide:library';
import messagesSquare from 'lucide:messages-square';
import { Composer } from '../shared/composer';
import { Conversation } from '../shared/conversation';
import { Icon, icons } from '../shared/icons';
import { expectsMore } from '../shared/reducer';
import { memberTransport } from './api';
import { Link } from './router';
import { Talk } from './talk';
import type { AssistantDetail } from './types';
import { Why } from './why';

/** The trial goes on when one comes back from another view. */
const trials = new Map<string, Conversation>();

export function trialOf(assistant: string): Conversation {
  const known = trials.get(assistant) ?? new Conversation(memberTransport(assistant));
  trials.set(assistant, known);
  return known;
}

export function Try({ assistant, bare }: { assistant: AssistantDetail; bare: boolean }) {
  const conversation = useMemo(() => trialOf(assistant.id), [assistant.id]);
  const thread = conversation.thread.value;
  const answers = thread.messages.filter((m) => m.role === 'assistant' && m.status !== 'superseded');
  const latest = answers.at(-1) ?? null;
  const [pickedId, setPickedId] = useState<string | null>(null);
  const picked = answers.find((m) => m.id === pickedId) ?? latest;
  const focus = useRef<() => void>(() => undefined);
  useEffect(() => setPickedId(null), [latest?.id]);
  const empty = thread.messages.length === 0 && conversation.outbox.value.length === 0;

  return (
    <div class="try">
      <section class="transcript" aria-label="Conversation">
        <div class="scroll">
          {empty && bare ? (
            <div class="empty"><span class="glyph"><Icon of={library} size="l" /></span><h2>Nothing to answer from yet</h2><p>Add its website; it answers as soon as the first pages are read.</p><Link class="btn btn-primary" href="/start">Add website</Link></div>
          ) : empty ? (
            <div class="empty"><span class="glyph"><Icon of={messagesSquare} size="l" /></span><h2>Ask it something</h2><p>You get what visitors get, and see beside it why.</p>
              {assistant.suggested_questions.length > 0 && <div class="suggestions">{assistant.suggested_questions.slice(0, 3).map((text) => <button key={text} type="button" class="chip" dir="auto" onClick={() => conversation.send(text)}>{text}</button>)}</div>}
            </div>
          ) : <Talk conversation={conversation} name={assistant.name} contact={assistant.contact} explained={picked?.id ?? null} onExplain={(m) => setPickedId(m.id)} />}
        </div>
        <div class="try-foot">
          <Composer placeholder={empty ? 'Ask a question' : 'Ask a follow-up'} answering={expectsMore(thread)} onSend={(text) => conversation.send(text)} onStop={() => void conversation.stop()} onReady={(act) => { focus.current = act; }} />
          {!empty && <button type="button" class="btn btn-quiet" onClick={() => { conversation.reset(); focus.current(); }}><Icon of={icons.plus} />New conversation</button>}
        </div>
      </section>
      <aside class="why" aria-label="Why this answer">
        <div class="pane-head"><h2>Why this answer</h2></div>
        <Why message={picked} />
      </aside>
    </div>
  );
}
