/** The shapes of docs/api.md, as the server sends them. */

export type Role = 'visitor' | 'assistant' | 'agent';
export type MessageStatus = 'queued' | 'running' | 'done' | 'failed' | 'cancelled' | 'superseded';
export type AnswerKind = 'grounded' | 'evidence' | 'memory' | 'noted' | 'refusal';

export interface Evidence {
  number: number;
  text: string;
  url: string;
  title: string;
  heading_path: string[];
  passage_id: string;
  document_id: string;
}

export interface Citation {
  number: number;
  url: string;
  title: string;
  heading_path: string[];
  passage: string;
}

export interface Nearest {
  url: string;
  title: string;
  heading_path: string[];
}

export interface Timings {
  evidence_ms?: number | null;
  first_sentence_ms?: number | null;
  total_ms?: number | null;
}

export interface Message {
  id: string;
  conversation_id: string;
  ordinal: number;
  role: Role;
  status: MessageStatus;
  epoch: number;
  text: string;
  wording: string;
  evidence: Evidence[];
  citations: Citation[];
  nearest: Nearest[];
  refused: boolean;
  kind: AnswerKind | null;
  error: string | null;
  superseded_by: string | null;
  created_at: string;
  finished_at: string | null;
  timings: Timings | null;
  tokens: number | null;
}

export interface ConversationSnapshot {
  id: string;
  messages: Message[];
  last_event_id: string;
}

export interface Accepted {
  message: Message;
  answer: Message;
}

export interface Brand {
  brand: string;
  brand_on: string;
  brand_dark: string;
}

export interface Assistant {
  slug: string;
  name: string;
  greeting: string;
  intro: string;
  brand: Brand;
  suggested_questions: string[];
  contact: { email: string | null; url: string | null };
}

export interface Session {
  token: string;
  expires_in: number;
  visitor_id: string;
  assistant: Assistant;
}
