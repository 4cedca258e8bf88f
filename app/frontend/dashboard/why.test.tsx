import { render } from 'preact';
import { act } from 'preact/test-utils';
import { expect, it, vi } from 'vitest';
import type { Message } from '../shared/types';

const traced = { trace: { state: { tokens: 120, bytes: 5_045_760 } }, evidence: [], timings: null, kind: 'memory' };
vi.mock('./api', () => ({ api: { message: () => Promise.resolve(traced) }, config: {} }));
const { Why } = await import('./why');

it('calls the size of the state what it is: bytes in the generator’s memory, which are twice the parked ones', async () => {
  const host = document.body.appendChild(document.createElement('div'));
  void act(() => render(<Why message={{ id: 'm', status: 'done' } as Message} />, host));
  await act(async () => { await Promise.resolve(); });
  const size = [...host.querySelectorAll('dt')].find((term) => term.textContent?.startsWith('Size'));
  expect(size?.textContent).toBe('Size, in the generator’s memory');
  expect(size?.nextElementSibling?.textContent).toBe('5.0 MB');
  expect(host.textContent).not.toContain('parked');
});
