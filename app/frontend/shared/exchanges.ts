/** A thread as questions with what followed each: one heading or bubble, one answer. */
import type { Message } from './types';

export interface Exchange {
  key: string;
  question: Message | null;
  replies: Message[];
}

export function exchangesOf(messages: Message[]): Exchange[] {
  const exchanges: Exchange[] = [];
  for (const message of messages) {
    const last = exchanges.at(-1);
    if (message.role === 'visitor') exchanges.push({ key: message.id, question: message, replies: [] });
    else if (last) last.replies.push(message);
    else exchanges.push({ key: message.id, question: null, replies: [message] });
  }
  for (const exchange of exchanges) exchange.replies = exchange.replies.filter((m, i, all) => !replaced(m, all.slice(i + 1)));
  return exchanges;
}

/** An answer that was asked for again gives way to the newer one. */
const replaced = (message: Message, later: Message[]): boolean =>
  message.role === 'assistant' && ['failed', 'cancelled', 'superseded'].includes(message.status) && later.some((m) => m.role === 'assistant');
