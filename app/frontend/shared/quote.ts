/** A quotation in its surroundings: which part of a passage to show, and what to mark in it. */
import type { Citation, Evidence } from './types';

export interface Part {
  text: string;
  marked: boolean;
}

export interface Cited {
  number: number;
  url: string;
  title: string;
  heading_path: string[];
  passage: string;
  sentences: string[];
}

const BEFORE = 72; // characters of context that lead to the first marked sentence
const AFTER = 48; // and that follow the last one

/** One card a number: its sentences from the evidence, its passage from the citation. */
export function citedOf(evidence: Evidence[], citations: Citation[]): Cited[] {
  const byNumber = new Map<number, Cited>();
  for (const item of [...citations].sort((a, b) => a.number - b.number)) {
    const { number, url, title, heading_path, passage } = item;
    if (!byNumber.has(number)) byNumber.set(number, { number, url, title, heading_path, passage, sentences: [] });
  }
  for (const item of evidence) {
    const known = byNumber.get(item.number);
    if (known) known.sentences.push(item.text);
    else {
      const { number, url, title, heading_path } = item;
      byNumber.set(number, { number, url, title, heading_path, passage: '', sentences: [item.text] });
    }
  }
  return [...byNumber.values()].sort((a, b) => a.number - b.number);
}

const special = /[.*+?^${}()|[\]\\]/g;

/** Where each sentence stands in the passage; white space may differ between the two. */
function places(passage: string, sentences: string[]): [number, number][] {
  const found: [number, number][] = [];
  for (const sentence of sentences) {
    const words = sentence.trim().split(/\s+/).map((word) => word.replace(special, '\\$&'));
    const match = sentence.trim() === '' ? null : new RegExp(words.join('\\s+')).exec(passage);
    if (match) found.push([match.index, match.index + match[0].length]);
  }
  found.sort((a, b) => a[0] - b[0]);
  return found.filter(([start], i) => i === 0 || start >= (found[i - 1]?.[1] ?? 0));
}

/** The whole passage, cut into marked and unmarked parts. */
export function markPassage(passage: string, sentences: string[]): Part[] {
  const parts: Part[] = [];
  let at = 0;
  for (const [start, end] of places(passage, sentences)) {
    if (start > at) parts.push({ text: passage.slice(at, start), marked: false });
    parts.push({ text: passage.slice(start, end), marked: true });
    at = end;
  }
  if (at < passage.length) parts.push({ text: passage.slice(at), marked: false });
  return parts;
}

/** The same parts as paragraphs, so that only those which hold a marked sentence stand out. */
export function paragraphsOf(parts: Part[]): Part[][] {
  const paragraphs: Part[][] = [[]];
  for (const part of parts) {
    part.text.split(/\n\s*\n?/).forEach((text, i) => {
      if (i > 0) paragraphs.push([]);
      if (text !== '') paragraphs.at(-1)?.push({ ...part, text });
    });
  }
  return paragraphs.filter((paragraph) => paragraph.some((part) => part.text.trim() !== ''));
}

const tailOf = (text: string, length: number): string => {
  const flat = text.replace(/\s+/g, ' ');
  return flat.length <= length ? flat.trimStart() : `… ${flat.slice(-length).replace(/^\S*\s/, '')}`;
};

const headOf = (text: string, length: number): string => {
  const flat = text.replace(/\s+/g, ' ');
  return flat.length <= length ? flat.trimEnd() : `${flat.slice(0, length).replace(/\s\S*$/, '')} …`;
};

/** The marked sentences with a few words around them, as a source card quotes them. */
export function excerpt(cited: Cited): Part[] {
  const parts = markPassage(cited.passage, cited.sentences);
  if (!parts.some((part) => part.marked)) return cited.sentences.map((text) => ({ text: `${text} `, marked: true }));
  return parts.map((part, i) => {
    if (part.marked) return part;
    if (i === 0) return { ...part, text: tailOf(part.text, BEFORE) };
    if (i === parts.length - 1) return { ...part, text: headOf(part.text, AFTER) };
    const whole = part.text.length <= BEFORE + AFTER;
    return whole ? part : { ...part, text: `${headOf(part.text, AFTER)} ${tailOf(part.text, AFTER).replace(/^… /, '')}` };
  });
}

/** Where on the website: the heading path without a repetition of the title. */
export function pathOf(item: { title: string; heading_path: string[]; url: string }): string {
  const path = item.heading_path.filter((part) => part !== '');
  if (path.at(-1) === item.title) path.pop();
  if (path.length > 0) return path.join(' › ');
  try {
    const { host, pathname } = new URL(item.url);
    return host + (pathname === '/' ? '' : pathname);
  } catch {
    return item.url;
  }
}
