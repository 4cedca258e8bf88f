/** One answer as a visitor reads it: wording above, the evidence it rests on below. Used by widget, full page and dashboard. */
import type { ComponentChildren } from 'preact';
import { useLayoutEffect, useMemo, useRef } from 'preact/hooks';
import { CopyButton } from './copy';
import { Icon, icons } from './icons';
import { literal } from './literal';
import { allowedBy, type Allowed, isSafeLink, plain, render } from './markdown';
import { type Cited, citedOf, excerpt, pathOf, type Part } from './quote';
import { isOpen } from './reducer';
import type { Assistant, Message, Nearest } from './types';

export type Contact = Assistant['contact'];

/** Opens a citation beside the answer; absent where the link itself opens the page. */
export type OnCite = (message: Message, number: number) => void;

interface ProseProps {
  /** Markdown. */
  text: string;
  allowed: Allowed;
  cited: Cited[];
  streaming: boolean;
  selected: number | null;
  onCite: ((number: number) => void) | undefined;
}

function numeral(item: Cited, selected: boolean, onCite: ProseProps['onCite']): HTMLAnchorElement {
  const link = document.createElement('a');
  link.className = 'cite';
  link.textContent = String(item.number);
  link.setAttribute('aria-label', `Source ${item.number}: ${item.title}`);
  if (selected) link.setAttribute('aria-current', 'true');
  if (isSafeLink(item.url)) link.href = item.url;
  link.target = '_blank';
  link.rel = 'noopener noreferrer';
  if (onCite) link.addEventListener('click', (event) => openBeside(event, () => onCite(item.number)));
  return link;
}

function openBeside(event: MouseEvent, act: () => void): void {
  if (event.metaKey || event.ctrlKey || event.shiftKey || event.button !== 0) return;
  event.preventDefault();
  act();
}

/** Sanitised Markdown with the numerals set behind its last words. */
function Prose({ text, allowed, cited, streaming, selected, onCite }: ProseProps) {
  const host = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => {
    const fragment = render(text, allowed);
    let last: ParentNode = fragment;
    while (last.lastElementChild && ['P', 'UL', 'OL', 'LI'].includes(last.lastElementChild.tagName)) last = last.lastElementChild;
    last.append(...cited.map((item) => numeral(item, item.number === selected, onCite)));
    if (streaming) {
      const caret = document.createElement('span');
      caret.className = 'caret';
      last.append(caret);
    }
    host.current?.replaceChildren(fragment);
  }, [text, allowed, cited, streaming, selected]);
  return <div ref={host} class="bubble prose" dir="auto" />;
}

export function Marked({ parts }: { parts: Part[] }) {
  return <>{parts.map((part, i) => (part.marked ? <mark key={i}>{part.text}</mark> : <span key={i}>{part.text}</span>))}</>;
}

interface SourceProps {
  item: Cited;
  selected: boolean;
  icon: string;
  onCite: ((number: number) => void) | undefined;
}

export function Source({ item, selected, icon, onCite }: SourceProps) {
  const parts = useMemo(() => excerpt(item), [item]);
  return (
    <a class="source" href={isSafeLink(item.url) ? item.url : undefined} target="_blank" rel="noopener noreferrer" dir="auto" aria-current={selected ? 'true' : undefined}
      onClick={onCite && ((event) => openBeside(event, () => onCite(item.number)))}>
      <span class="cite">{item.number}</span>
      <span class="title clip" title={item.title}>{item.title}</span>
      <Icon of={icon} size="s" class="turn" />
      <span class="path clip">{pathOf(item)}</span>
      {parts.length > 0 && <q class="passage"><Marked parts={parts} /></q>}
    </a>
  );
}

function NearPage({ page }: { page: Nearest }) {
  return (
    <a class="source source-near" href={isSafeLink(page.url) ? page.url : undefined} target="_blank" rel="noopener noreferrer" dir="auto">
      <Icon of={icons.fileText} />
      <span class="title clip" title={page.title}>{page.title}</span>
      <Icon of={icons.arrowUpRight} size="s" class="turn" />
      <span class="path clip">{pathOf(page)}</span>
    </a>
  );
}

/** The ways to a person that the words themselves do not name already. */
function Person({ contact, words }: { contact: Contact; words: string }) {
  const email = contact.email && !words.includes(contact.email) ? contact.email : null;
  const url = contact.url && isSafeLink(contact.url) && !words.includes(contact.url) ? contact.url : null;
  if (!email && !url) return null;
  return (
    <div class="panel">
      <p class="soft">A person can look into it.</p>
      {email && <a class="btn btn-block" href={`mailto:${email}`}><Icon of={icons.mail} />Write an e-mail</a>}
      {url && <a class="btn btn-block" href={url} target="_blank" rel="noopener noreferrer"><Icon of={icons.arrowUpRight} class="turn" />Open the contact page</a>}
    </div>
  );
}

/** The two lines that the wording will fill, so that nothing moves when it comes. */
function Lead({ found }: { found: boolean }) {
  return (
    <div class="lead">
      <span class="sr">{found ? 'Found. Putting it into words.' : 'Looking it up.'}</span>
      {found ? <><span class="skeleton" /><span class="skeleton" /></> : <span class="typing"><i /><i /><i /></span>}
    </div>
  );
}

export interface AnswerProps {
  message: Message;
  wording: string;
  contact: Contact;
  /** The number open beside the answer, if it belongs to this one. */
  selected?: number | null;
  sourceIcon?: string;
  onCite?: OnCite | undefined;
  onRetry(message: Message): void;
  acts?: ComponentChildren;
}

export function Answer({ message, wording, contact, selected = null, sourceIcon = icons.arrowUpRight, onCite, onRetry, acts }: AnswerProps) {
  const cited = useMemo(() => citedOf(message.evidence ?? [], message.citations ?? []), [message.evidence, message.citations]);
  const allowed = useMemo(() => allowedBy([...cited, ...(message.nearest ?? [])], contact), [cited, message.nearest, contact.email, contact.url]);
  const open = isOpen(message);
  const cite = onCite && ((number: number) => onCite(message, number));
  if (message.status === 'superseded') return <p class="hint">Answered together with your next question.</p>;

  const text = wording ? wordsOf(message, wording) : open || cited.length > 0 ? '' : message.text;
  const finished = message.status === 'done';
  return (
    <>
      {text !== '' && <Prose text={text} allowed={allowed} cited={message.refused ? [] : cited} streaming={open} selected={selected} onCite={cite} />}
      {text === '' && open && <Lead found={cited.length > 0} />}
      {text === '' && finished && cited.length > 0 && <p class="soft">This is what the {cited.length === 1 ? 'page says' : 'pages say'}.</p>}
      {message.status === 'failed' && (
        <div class="notice notice-bad"><Icon of={icons.circleAlert} /><div class="grow"><b>The answer was not finished</b><p class="soft">{message.error || 'Your question is kept.'}</p></div></div>
      )}
      {message.status === 'cancelled' && <p class="hint">Stopped.</p>}
      {message.refused && finished && <Person contact={contact} words={wording || text} />}
      {cited.length > 0 && !message.refused && (
        <div class="sources">{cited.map((item) => <Source key={item.number} item={item} selected={item.number === selected} icon={sourceIcon} onCite={cite} />)}</div>
      )}
      {message.refused && (message.nearest ?? []).length > 0 && (
        <><p class="hint">Nearest pages, in case they help</p><div class="sources">{message.nearest.map((page) => <NearPage key={page.url} page={page} />)}</div></>
      )}
      {(message.status === 'failed' || message.status === 'cancelled') && (
        <div class="row"><button type="button" class="btn" onClick={() => onRetry(message)}><Icon of={icons.rotateCw} />Ask again</button></div>
      )}
      {finished && !(message.refused && !acts) && <div class="msg-acts"><CopyButton text={() => clipboardOf(message, text, cited)} label="Copy answer" />{acts}</div>}
    </>
  );
}

/** The wording as Markdown: what stands in the words that it was made from is drawn as it stands there. */
function wordsOf(message: Message, wording: string): string {
  const read = (message.evidence ?? []).flatMap((item) => [item.text, item.title, ...item.heading_path]);
  return literal(wording, read.length > 0 ? read.join('\n') : null);
}

/** What is copied: the answer, then each quotation with its address. */
function clipboardOf(message: Message, text: string, cited: Cited[]): string {
  const quotes = message.refused ? [] : cited.map((item) => `[${item.number}] “${item.sentences.join(' … ')}”\n${item.title}: ${item.url}`);
  return [plain(text), ...quotes].filter((part) => part !== '').join('\n\n');
}

/** What the live region says when an answer is there. */
export function spoken(message: Message, wording: string): string {
  if (message.status === 'failed') return 'The answer was not finished.';
  if (message.status !== 'done') return '';
  const sources = new Set((message.citations ?? []).map((c) => c.number)).size;
  const words = plain(wordsOf(message, wording)) || (sources > 0 ? message.evidence.map((e) => e.text).join(' ') : plain(message.text));
  const near = message.refused ? (message.nearest ?? []).length : 0;
  if (near > 0) return `${words} ${near === 1 ? 'The nearest page is shown.' : `${near} nearest pages are shown.`}`;
  return sources > 0 && !message.refused ? `${words} With ${sources === 1 ? 'one source' : `${sources} sources`}.` : words;
}
