import { useState } from 'preact/hooks';
import { ApiError, explain } from '../shared/http';
import { api, me } from './api';
import { Field, say } from './parts';
import { go } from './router';
import type { Me } from './types';

const SHORTEST = 10; // characters of a password

export function AccountView({ who }: { who: Me }) {
  const [password, setPassword] = useState('');
  const [current, setCurrent] = useState('');
  const [problem, setProblem] = useState<string | null>(null);
  const [refused, setRefused] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);

  const save = async (event: Event): Promise<void> => {
    event.preventDefault();
    if ([...password].length < SHORTEST) {
      setProblem(`Use at least ${SHORTEST} characters.`);
      return;
    }
    setBusy(true);
    setProblem(null);
    setRefused(null);
    try {
      await api.setPassword(password, current);
      me.value = { ...who, member: { ...who.member, has_password: true } };
      setPassword('');
      setCurrent('');
      say('Password saved.');
    } catch (error) {
      if (error instanceof ApiError && error.field === 'current_password') setRefused(explain(error));
      else setProblem(explain(error));
    }
    setBusy(false);
  };

  const leave = async (): Promise<void> => {
    try {
      await api.signOut();
      me.value = null;
      go('/sign-in');
    } catch (error) {
      say(`Not signed out. ${explain(error)}`);
    }
  };

  return (
    <div class="main-in padded narrow">
      <header class="page-head"><h1>Account</h1><button type="button" class="btn" onClick={() => void leave()}>Sign out</button></header>
      <section class="card"><header class="card-head"><h2>You</h2></header><div class="card-body"><dl class="kv facts-list"><dt>Name</dt><dd>{who.member.name || '–'}</dd><dt>E-mail</dt><dd>{who.member.email}</dd><dt>Role</dt><dd>{who.member.role}</dd><dt>Workspace</dt><dd>{who.workspace.name}</dd></dl></div></section>
      <section class="card"><header class="card-head"><h2>Password</h2></header>
        <form class="card-body stack" noValidate onSubmit={(event) => void save(event)}>
          {!who.member.has_password && <p class="soft">You came by a one-time link. Set a password to sign in again without one.</p>}
          <input type="email" class="sr" tabIndex={-1} aria-hidden="true" autocomplete="username" readOnly value={who.member.email} />
          {who.member.has_password && <Field label="Current password" error={refused} hint="Not needed within an hour after a sign-in by link.">{(a) => <input {...a} class="input" type="password" autocomplete="current-password" value={current} onInput={(event) => setCurrent(event.currentTarget.value)} />}</Field>}
          <Field label="New password" error={problem} hint={`At least ${SHORTEST} characters.`}>{(a) => <input {...a} class="input" type="password" autocomplete="new-password" value={password} onInput={(event) => setPassword(event.currentTarget.value)} />}</Field>
          <div class="row"><button class="btn btn-primary" disabled={busy || password === ''}>{busy ? 'Saving' : who.member.has_password ? 'Change password' : 'Set password'}</button></div>
        </form></section>
    </div>
  );
}
