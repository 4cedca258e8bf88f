/** Something the server has: loading, there, or failed with the older figures kept. */
import { useCallback, useEffect, useRef, useState } from 'preact/hooks';

export interface Resource<T> {
  data: T | null;
  error: unknown;
  loading: boolean;
  reload(): Promise<void>;
  set(data: T): void;
}

export function useResource<T>(load: () => Promise<T>, key: string): Resource<T> {
  const [state, setState] = useState<{ key: string; data: T | null; error: unknown; loading: boolean }>({ key, data: null, error: null, loading: true });
  const turn = useRef(0);
  const latest = useRef(load);
  latest.current = load;

  const reload = useCallback(async () => {
    const mine = ++turn.current;
    setState((s) => ({ key, data: s.key === key ? s.data : null, error: null, loading: true }));
    try {
      const data = await latest.current();
      if (mine === turn.current) setState({ key, data, error: null, loading: false });
    } catch (error) {
      if (mine === turn.current) setState((s) => ({ key, data: s.key === key ? s.data : null, error, loading: false }));
    }
  }, [key]);

  useEffect(() => {
    void reload();
    return () => {
      turn.current += 1;
    };
  }, [reload]);

  const set = useCallback((data: T) => setState({ key, data, error: null, loading: false }), [key]);
  return { ...state, data: state.key === key ? state.data : null, loading: state.loading || state.key !== key, reload, set };
}

/** Calls `act` every `ms` while `on`, never twice at once. */
export function usePolling(act: () => Promise<void>, ms: number, on: boolean): void {
  const latest = useRef(act);
  latest.current = act;
  useEffect(() => {
    if (!on) return;
    let timer = 0;
    let over = false;
    const tick = async (): Promise<void> => {
      if (document.visibilityState === 'visible') await latest.current().catch(() => undefined);
      if (!over) timer = window.setTimeout(tick, ms);
    };
    timer = window.setTimeout(tick, ms);
    return () => {
      over = true;
      clearTimeout(timer);
    };
  }, [ms, on]);
}
