import { useEffect, useState } from 'preact/hooks';
import { explain } from '../shared/http';
import { Icon, icons } from '../shared/icons';
import { api, me } from './api';
import { Field, Mark } from './parts';
import { go } from './router';
import type { Me } from './types';

/** The one-time token after `#token=`; it is taken out of the address at once. */
function takeLinkToken(): string | null {
  const token = new URLSearchParams(location.hash.slice(1)).get('token');
  if (token) history.replaceState(null, '', location.pathname);
  return token;
}

function enter(who: Me): void {
  me.value = who;
  go('/', true);
}

export function SignIn() {
  const [email, setEmail] = useState('');
  const [password, setPassword] = useState('');
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<string | null>(null);

  useEffect(() => {
    const tryLink = (): void => {
      const token = takeLinkToken();
      if (!token) return;
      setBusy(true);
      setProblem(null);
      api.signInByLink(token).then(enter, (error) => {
        setProblem(explain(error));
        setBusy(false);
      });
    };
    tryLink();
    addEventListener('hashchange', tryLink); // the link pasted into this very tab
    return () => removeEventListener('hashchange', tryLink);
  }, []);

  const submit = async (event: Event): Promise<void> => {
    event.preventDefault();
    setBusy(true);
    setProblem(null);
    try {
      enter(await api.signIn(email, password));
    } catch (error) {
      setProblem(explain(error));
      setBusy(false);
    }
  };

  return (
    <main class="screen">
      <div class="brandline"><Mark />Retort</div>
      <form class="mid" onSubmit={(event) => void submit(event)} aria-busy={busy}>
        <h1>Sign in</h1>
        {problem && <div class="notice notice-bad" role="alert"><Icon of={icons.circleAlert} /><span>{problem}</span></div>}
        <div class="stack gap-4">
          <Field label="E-mail">{(a) => <input {...a} class="input big" type="email" autocomplete="username" required value={email} onInput={(e) => setEmail(e.currentTarget.value)} />}</Field>
          <Field label="Password">{(a) => <input {...a} class="input big" type="password" autocomplete="current-password" required value={password} onInput={(e) => setPassword(e.currentTarget.value)} />}</Field>
          <button class="btn btn-primary btn-block big" disabled={busy}>{busy ? 'Signing in' : 'Sign in'}</button>
        </div>
        <p class="hint">The first time, use the link that <code>retort up</code> prints. Set a password afterwards, under Account.</p>
      </form>
    </main>
  );
}
