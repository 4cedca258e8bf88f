import { describe, expect, it } from 'vitest';
import { isParentOrigin } from '../widget/session';
import { isConnect, isReady, isToFrame, isToLoader } from './channel';

describe('what the loader takes from the frame', () => {
  it('is one of its three messages', () => {
    expect(isToLoader({ type: 'close' })).toBe(true);
    expect(isToLoader({ type: 'token-wanted' })).toBe(true);
    expect(isToLoader({ type: 'conversation', id: '0197-a' })).toBe(true);
    expect(isToLoader({ type: 'conversation', id: null })).toBe(true);
  });

  it.each([null, 'close', [], { type: 'open' }, { type: 'conversation' }, { type: 'conversation', id: 5 }, { type: 'conversation', id: '<b>' }, { type: 'conversation', id: 'x'.repeat(65) }])('is not %j', (data) => {
    expect(isToLoader(data)).toBe(false);
  });
});

describe('what the frame takes from the loader', () => {
  const session = { type: 'session', token: 't', expires_at: 1, conversation_id: null };

  it('is a session, a reason why there is none, or that it is shown', () => {
    expect(isToFrame(session)).toBe(true);
    expect(isToFrame({ type: 'unavailable', text: 'Away.' })).toBe(true);
    expect(isToFrame({ type: 'shown' })).toBe(true);
  });

  it.each([null, 7, { ...session, token: '' }, { ...session, token: 1 }, { ...session, expires_at: '1' }, { ...session, conversation_id: {} }, { type: 'unavailable' }])('is not %j', (data) => {
    expect(isToFrame(data)).toBe(false);
  });

  it('comes from the page that embeds it', () => {
    expect(isParentOrigin('https://a.example', ['https://a.example'])).toBe(true);
    expect(isParentOrigin('https://b.example', ['https://a.example'])).toBe(false);
    expect(isParentOrigin('https://b.example', undefined)).toBe(true);
    expect(isParentOrigin('null', undefined)).toBe(false);
  });
});

it('knows the first messages of both sides', () => {
  expect(isReady({ type: 'retort:ready' })).toBe(true);
  expect(isReady({ type: 'retort:connect' })).toBe(false);
  expect(isConnect({ type: 'retort:connect' })).toBe(true);
  expect(isConnect('retort:connect')).toBe(false);
});
