// Fails the build when a page of an owner would carry more than was promised.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';

const LOADER_LIMIT = 5 * 1024; // bytes after gzip
const WIDGET_LIMIT = 60 * 1024; // bytes after gzip: every script and style that the iframe loads

const out = fileURLToPath(new URL('../../static', import.meta.url));
const packed = (file) => gzipSync(readFileSync(`${out}/${file}`), { level: 9 }).length;

function application(name) {
  const manifest = JSON.parse(readFileSync(`${out}/${name}/manifest.json`, 'utf8'));
  const files = new Set();
  for (const chunk of Object.values(manifest)) {
    files.add(chunk.file);
    for (const css of chunk.css ?? []) files.add(css);
  }
  return [...files].reduce((sum, file) => sum + packed(`${name}/${file}`), 0);
}

const rows = [
  ['loader', packed('widget.js'), LOADER_LIMIT],
  ['widget', application('widget'), WIDGET_LIMIT],
  ['dashboard', application('dashboard'), null],
];
let over = false;
for (const [name, size, limit] of rows) {
  const kb = (bytes) => (bytes / 1024).toFixed(1);
  over ||= limit !== null && size > limit;
  console.log(`${name.padEnd(10)} ${kb(size).padStart(6)} KB gzip${limit === null ? '' : `  (limit ${kb(limit)} KB)`}`);
}
if (over) {
  console.error('Too large: remove what a visitor does not need.');
  process.exit(1);
}
