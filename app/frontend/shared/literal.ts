/**
 * Characters as Markdown that shows exactly them: what a page or a visitor wrote is no markup.
 * The same rules as app/conversations/markdown.py; both are held to tests/conversations/markdown_cases.json.
 */
const INLINE = /(`+|\*+|_+)|[[<~|]|&(?=#?[\p{L}\p{N}_]+;)|\\(?=[!-/:-@[-`{-~]|$)/gu;
const RULE = /^[-=:+*_|\s]+$/; // a whole line of it underlines, divides or makes a table
const START = /^(?:#{1,6}(?=\s|$)|>)/;
const ITEM = /^([-+*]|\d{1,9}[.)])(?=\s|$)/;
const LETTER = /[\p{L}\p{N}]/u;

const escaped = (mark: string): string => mark.replace(/./g, '\\$&');

/** Whether the mark at [start, end) stands in the sources, with its neighbour on one side at least. */
function stands(line: string, start: number, end: number, sources: string | null): boolean {
  if (sources === null) return true;
  return (start > 0 && sources.includes(line.slice(start - 1, end))) || (end < line.length && sources.includes(line.slice(start, end + 1)));
}

function inline(line: string, sources: string | null): string {
  let all = '';
  let at = 0;
  for (;;) {
    INLINE.lastIndex = at;
    const found = INLINE.exec(line);
    if (!found) return all + line.slice(at);
    const [mark] = found;
    const end = found.index + mark.length;
    all += line.slice(at, found.index);
    at = end;
    if (found[1] === undefined) all += `\\${mark}`;
    else if (mark.startsWith('_') && LETTER.test(line[found.index - 1] ?? '') && LETTER.test(line[end] ?? '')) all += mark; // within a word it marks nothing
    else if (stands(line, found.index, end, sources)) all += escaped(mark);
    else if (mark.startsWith('`')) {
      const close = new RegExp(`(?<!\`)${mark}(?!\`)`, 'g');
      close.lastIndex = end;
      if (close.exec(line)) at = close.lastIndex; // in code nothing is a mark, not even a backslash
      all += at === end ? escaped(mark) : line.slice(found.index, at);
    } else all += mark;
  }
}

function lineOf(line: string, sources: string | null): string {
  if (RULE.test(line)) return `\\${line[0]}${inline(line.slice(1), null)}`;
  if (START.test(line)) return `\\${line[0]}${inline(line.slice(1), sources)}`;
  const item = ITEM.exec(line)?.[0];
  if (item === undefined) return inline(line, sources);
  const rest = line.slice(item.length);
  if (!stands(line, 0, item.length, sources)) return `${item} ${lineOf(rest.trim(), sources)}`;
  return `${item.slice(0, -1)}\\${item.slice(-1)}${inline(rest, sources)}`;
}

/** Markdown that is drawn as `text`; with `sources`, the writer's own emphasis, code and lists stay marks where they do not stand there. */
export const literal = (text: string, sources: string | null): string =>
  text.split(/\r?\n|\r/).map((line) => lineOf(line.trim(), sources)).join('\n');
