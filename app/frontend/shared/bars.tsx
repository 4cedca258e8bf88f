import { useEffect, useState } from 'preact/hooks';
import type { Conversation } from './conversation';
import { counted } from './format';
import { Icon, icons } from './icons';

/** Seconds until a moment, counted down. */
export function useCountdown(until: number | null): number {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    if (until === null) return;
    setNow(Date.now());
    const timer = setInterval(() => setNow(Date.now()), 500);
    return () => clearInterval(timer);
  }, [until]);
  return until === null ? 0 : Math.max(0, Math.ceil((until - now) / 1000));
}

/** One line for what is not as usual: no connection, too many questions, an act that failed. */
export function Bars({ conversation }: { conversation: Conversation }) {
  const link = conversation.link.value;
  const hold = conversation.hold.value;
  const notice = conversation.notice.value;
  const left = useCountdown(hold ? hold.until : link.kind === 'waiting' ? link.until : null);
  const when = left > 0 ? `in ${counted(left, 'second')}` : 'now';
  if (hold) {
    return <div class="widget-bar" role="status"><Icon of={icons.clock} /><span class="grow"><span>{hold.text} </span><span aria-live="off">Your question is sent again {when}.</span></span></div>;
  }
  if (link.kind === 'waiting') {
    return (
      <div class="widget-bar" role="status"><Icon of={icons.wifiOff} />
        <span class="grow"><span>No connection. </span><span aria-live="off">Trying again {when}.</span></span>
        <button type="button" class="btn btn-quiet" onClick={conversation.tryNow}>Try now</button></div>
    );
  }
  if (notice) {
    return (
      <div class="widget-bar" role="status"><Icon of={icons.circleAlert} /><span class="grow">{notice}</span>
        <button type="button" class="btn btn-quiet btn-icon" aria-label="Close" onClick={() => { conversation.notice.value = null; }}><Icon of={icons.x} /></button></div>
    );
  }
  return null;
}
