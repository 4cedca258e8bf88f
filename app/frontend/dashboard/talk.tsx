/** A trial conversation as visitors see it; used by "Try it" and by the first run. */
import { useLayoutEffect, useRef } from 'preact/hooks';
import { Announcer } from '../shared/announce';
import { Answer, type Contact } from '../shared/answer';
import { Bars } from '../shared/bars';
import type { Conversation } from '../shared/conversation';
import { exchangesOf } from '../shared/exchanges';
import { seconds } from '../shared/format';
import { Icon, icons } from '../shared/icons';
import { OutgoingNote } from '../shared/outgoing';
import { isOpen, wordingOf } from '../shared/reducer';
import type { Message } from '../shared/types';

export interface TalkProps {
  conversation: Conversation;
  name: string;
  contact: Contact;
  /** The answer explained beside the conversation. */
  explained?: string | null;
  onExplain?: (message: Message) => void;
}

export function Talk({ conversation, name, contact, explained, onExplain }: TalkProps) {
  const thread = conversation.thread.value;
  const outbox = conversation.outbox.value;
  const offline = conversation.link.value.kind === 'waiting';
  const end = useRef<HTMLDivElement>(null);
  const exchanges = exchangesOf(thread.messages);
  const questions = exchanges.length + outbox.length;
  useLayoutEffect(() => {
    if (questions > 0) end.current?.previousElementSibling?.scrollIntoView({ block: 'nearest' });
  }, [questions, thread]);

  return (
    <>
      <Bars conversation={conversation} />
      <div class="thread">
        {exchanges.map(({ key, question, replies }) => (
          <section key={key} class="thread turn">
            {question && <div class="msg msg-visitor"><div class="bubble" dir="auto">{question.text}</div></div>}
            {replies.map((message) => (
              <div key={message.id} class={`msg msg-assistant${isOpen(message) ? '' : ' answered'}${explained === message.id ? ' picked' : ''}`}>
                <div class="who"><span class="avatar avatar-brand avatar-s"><Icon of={icons.bookOpenText} /></span><span class="clip">{whoLine(name, message)}</span></div>
                <Answer message={message} wording={wordingOf(thread, message)} contact={contact} onRetry={(m) => void conversation.retry(m)}
                  acts={onExplain && <button type="button" class="btn btn-quiet" aria-pressed={explained === message.id} onClick={() => onExplain(message)}>Why this answer</button>} />
              </div>
            ))}
          </section>
        ))}
        {outbox.map((item) => <div key={item.key} class="msg msg-visitor"><div class="bubble" dir="auto" data-pending={item.status !== 'sending' ? '' : undefined}>{item.text}</div><OutgoingNote item={item} conversation={conversation} offline={offline} /></div>)}
        <div ref={end} />
      </div>
      <Announcer conversation={conversation} />
    </>
  );
}

function whoLine(name: string, message: Message): string {
  const { evidence_ms, first_sentence_ms } = message.timings ?? {};
  const parts = [name];
  if (evidence_ms != null) parts.push(`evidence after ${seconds(evidence_ms)}`);
  if (first_sentence_ms != null) parts.push(`first sentence after ${seconds(first_sentence_ms)}`);
  return parts.join(' · ');
}
