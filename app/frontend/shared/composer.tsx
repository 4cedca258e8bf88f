import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import { MESSAGE_LIMIT } from './conversation';
import { lengthOf, number } from './format';
import { Icon, icons } from './icons';

const COUNT_FROM = 3_600; // characters: near enough to the limit to say so
const TALLEST = 144; // px: six lines, then it scrolls

export interface ComposerProps {
  placeholder: string;
  answering: boolean;
  onSend(text: string): void;
  onStop(): void;
  /** Gives the caller a way to put the caret here. */
  onReady?(focus: () => void): void;
  autoFocus?: boolean;
}

export function Composer({ placeholder, answering, onSend, onStop, onReady, autoFocus }: ComposerProps) {
  const [text, setText] = useState('');
  const area = useRef<HTMLTextAreaElement>(null);
  const length = text.length < COUNT_FROM ? text.length : lengthOf(text.trim());
  const tooLong = length > MESSAGE_LIMIT;
  const empty = text.trim() === '';

  useLayoutEffect(() => {
    const node = area.current;
    if (!node) return;
    node.style.height = '';
    if (node.scrollHeight > node.clientHeight) node.style.height = `${Math.min(node.scrollHeight, TALLEST)}px`;
  }, [text]);

  useEffect(() => {
    onReady?.(() => area.current?.focus());
    if (autoFocus) area.current?.focus();
  }, []);

  const submit = (): void => {
    if (empty || tooLong) return;
    onSend(text.trim());
    setText('');
  };

  return (
    <form onSubmit={(event) => { event.preventDefault(); submit(); }}>
      <div class="composer">
        <textarea ref={area} rows={1} dir="auto" value={text} placeholder={placeholder} aria-label="Your question"
          aria-invalid={tooLong} aria-describedby={length >= COUNT_FROM ? 'composer-count' : undefined} enterkeyhint="send"
          onInput={(event) => setText(event.currentTarget.value)}
          onKeyDown={(event) => {
            if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
            event.preventDefault();
            submit();
          }} />
        {answering && empty ? (
          <button type="button" class="btn" aria-label="Stop answering" title="Stop answering" onClick={onStop}><Icon of={icons.square} /></button>
        ) : (
          <button type="submit" class="btn btn-primary" aria-label="Send" disabled={empty || tooLong}><Icon of={icons.sendHorizontal} class="turn" /></button>
        )}
      </div>
      {length >= COUNT_FROM && (
        <p id="composer-count" class={tooLong ? 'error composer-count' : 'hint composer-count'} role={tooLong ? 'alert' : undefined}>
          <span class="num">{number(length)} of {number(MESSAGE_LIMIT)} characters{tooLong ? '. Shorten your question to send it.' : ''}</span>
        </p>
      )}
    </form>
  );
}
