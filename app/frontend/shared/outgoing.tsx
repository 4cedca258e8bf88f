import type { Conversation, Outgoing } from './conversation';
import { Icon, icons } from './icons';

/** Under a question that the server has not accepted yet. */
export function OutgoingNote({ item, conversation, offline }: { item: Outgoing; conversation: Conversation; offline: boolean }) {
  if (item.status === 'failed') {
    return (
      <div class="who who-problem" role="alert">
        <span class="error"><Icon of={icons.circleAlert} size="s" />Not sent. {item.problem}</span>
        <button type="button" class="btn btn-quiet" onClick={() => conversation.sendAgain(item.key)}>Send again</button>
        <button type="button" class="btn btn-quiet" onClick={() => conversation.discard(item.key)}>Remove</button>
      </div>
    );
  }
  if (item.status === 'waiting' && offline) return <div class="who"><Icon of={icons.clock} size="s" />Sends when you are back</div>;
  return null;
}
