import { useEffect, useRef, useState } from 'preact/hooks';
import { spoken } from './answer';
import type { Conversation } from './conversation';
import { isOpen, wordingOf } from './reducer';

/** Tells a screen reader of each answer once, when it is finished. */
export function Announcer({ conversation }: { conversation: Conversation }) {
  const [said, setSaid] = useState('');
  const open = useRef(new Set<string>());
  const thread = conversation.thread.value;
  useEffect(() => {
    for (const message of thread.messages) {
      if (isOpen(message)) open.current.add(message.id);
      else if (open.current.delete(message.id)) setSaid(spoken(message, wordingOf(thread, message)));
    }
  }, [thread]);
  return <div class="sr" role="status" aria-live="polite">{said}</div>;
}
