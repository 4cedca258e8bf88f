/** Shapes that only members see. */
import type { Assistant, Message } from '../shared/types';

export interface Me {
  member: { id: string; email: string; name: string; role: string; has_password: boolean };
  workspace: { id: string; name: string; slug: string };
  csrf_token: string;
}

export type Tone = 'plain' | 'friendly' | 'formal';

export interface AssistantDetail extends Assistant {
  id: string;
  persona: string;
  tone: Tone;
  /** The colour as the owner gave it; `brand` holds what became of it. */
  brand_color: string;
  allowed_origins: string[];
  mode: 'wording' | 'evidence';
  source_ids: string[];
  created_at: string;
}

export interface Counts {
  found: number;
  waiting: number;
  read: number;
  unchanged: number;
  skipped: number;
  failed: number;
  /** Of those waiting: being asked for now. */
  fetching: number;
  /** Of those waiting: fetched, and without vectors yet. */
  fetched: number;
  passages: number;
}

export interface Source {
  id: string;
  kind: string;
  url: string;
  title: string;
  status: 'waiting' | 'reading' | 'read' | 'failed';
  reason: string | null;
  counts: Counts;
  current: string | null;
  pages_per_second: number | null;
  created_at: string;
  started_at: string | null;
  finished_at: string | null;
  assistant_ids: string[];
}

export type DocumentStatus = 'waiting' | 'fetching' | 'read' | 'unchanged' | 'skipped' | 'failed';

/** What an unsettled document waits for or goes through. */
export type DocumentStep = 'queued' | 'fetching' | 'fetched' | 'embedding';

export interface DocumentRow {
  id: string;
  source_id: string;
  url: string;
  title: string;
  status: DocumentStatus;
  step: DocumentStep | null;
  reason: string | null;
  code: string | null;
  http_status: number | null;
  version: number;
  words: number | null;
  bytes: number | null;
  passages: number;
  fetched_at: string | null;
  depth: number;
}

export interface Passage {
  id: string;
  ordinal: number;
  heading_path: string[];
  fragment: string | null;
  text: string;
  tokens: number;
}

export interface DocumentDetail extends Omit<DocumentRow, 'passages'> {
  passages: Passage[];
}

export interface Page<T> {
  items: T[];
  next_cursor: string | null;
}

/** A passage as retrieval found it. */
export interface Hit {
  passage_id: string;
  document_id?: string;
  title: string;
  url: string;
  heading_path: string[];
  text?: string;
  score: number;
  vector_score?: number | null;
  text_rank?: number | null;
}

export interface Verdict {
  sentence: string;
  published: boolean;
  reason: string | null;
}

export interface Trace {
  query?: string;
  gate?: { answer: boolean; probability: number; features?: Record<string, unknown> } | null;
  passages?: Hit[];
  verifier?: Verdict[];
  state?: { tokens: number; bytes: number; origin?: string } | null;
  generator?: string | null;
  attempt?: number;
}

export interface TracedMessage extends Message {
  trace: Trace | null;
}
