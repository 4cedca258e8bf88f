import { expect, it } from 'vitest';
import { folderOf, isFileName, placeOf } from './addresses';

const source = 'https://docs.example.org/book/';

it('shows the path from the folder of the source on', () => {
  expect(placeOf('https://docs.example.org/book/install/index.html', source)).toEqual({ folder: 'install/', leaf: 'index.html' });
  expect(placeOf('https://docs.example.org/book/disks/index.html', `${source}index.html`)).toEqual({ folder: 'disks/', leaf: 'index.html' });
  expect(placeOf('https://docs.example.org/book/a/b/', source)).toEqual({ folder: 'a/', leaf: 'b/' });
});

it('keeps the query, which may be all that tells two pages apart', () => {
  expect(placeOf('https://docs.example.org/book/view?id=2', source)).toEqual({ folder: '', leaf: 'view?id=2' });
  expect(placeOf('https://docs.example.org/book/?id=2', source).leaf).toBe('?id=2');
});

it('names the first page by its address, and a page elsewhere by its whole path', () => {
  expect(placeOf(source, source)).toEqual({ folder: '', leaf: 'docs.example.org/book' });
  expect(placeOf('https://docs.example.org/', 'https://docs.example.org/')).toEqual({ folder: '', leaf: 'docs.example.org' });
  expect(placeOf('https://docs.example.org/other/x.html', source)).toEqual({ folder: '/other/', leaf: 'x.html' });
});

it('shows letters instead of their codes, and what is no code as it stands', () => {
  expect(placeOf('https://docs.example.org/book/%C3%BCber.html', source).leaf).toBe('über.html');
  expect(placeOf('https://docs.example.org/book/50%.html', source).leaf).toBe('50%.html');
  expect(placeOf('no address', source)).toEqual({ folder: '', leaf: 'no address' });
});

it('knows a title that is only the file name, and where the file lies', () => {
  expect(isFileName('über.html', 'https://docs.example.org/book/%C3%BCber.html')).toBe(true);
  expect(isFileName('docs.example.org', 'https://docs.example.org/')).toBe(true);
  expect(isFileName('Installing', 'https://docs.example.org/book/install.html')).toBe(false);
  expect(folderOf('https://docs.example.org/book/install.html?x=/y')).toBe('docs.example.org/book');
  expect(folderOf('https://docs.example.org/book/install/')).toBe('docs.example.org/book');
});
