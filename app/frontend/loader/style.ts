/** The launcher and the panel's frame: values of tokens.css written out, because the owner's page has no tokens. */
export const css = `
:host { all: initial; position: fixed; z-index: 2147483000; inset: auto 0 0 auto; font: 600 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", sans-serif; color-scheme: light dark; --surface: light-dark(#fff, #1a1b19); --text: light-dark(#1b1c19, #ecede8); --text-2: light-dark(#51524b, #bdbeb6); --line: light-dark(#e2e2dc, #2e302c); --shadow: 0 1px 3px light-dark(rgb(27 28 25 / .1), rgb(0 0 0 / .4)), 0 12px 32px -6px light-dark(rgb(27 28 25 / .2), rgb(0 0 0 / .6)); }
:host([data-theme=light]) { color-scheme: light; }
:host([data-theme=dark]) { color-scheme: dark; }
* { box-sizing: border-box; }
button { font: inherit; cursor: pointer; }
svg { width: 20px; height: 20px; flex: none; fill: none; stroke: currentColor; stroke-width: 1.75; stroke-linecap: round; stroke-linejoin: round; }
.launcher { position: fixed; bottom: 24px; right: 24px; display: inline-flex; align-items: center; gap: 8px; max-width: calc(100vw - 48px); height: 48px; padding: 0 20px 0 16px; border: 0; border-radius: 999px; background: var(--brand); color: var(--brand-on); box-shadow: var(--shadow); }
.launcher:hover { background: color-mix(in oklab, var(--brand) 86%, black); }
.launcher span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
:focus-visible { outline: 2px solid var(--brand); outline-offset: 2px; box-shadow: 0 0 0 6px var(--surface); }
.panel { position: fixed; inset: auto 24px 88px auto; margin: 0; padding: 0; width: 384px; height: 632px; max-width: calc(100vw - 48px); max-height: calc(100dvh - 112px); border: 1px solid var(--line); border-radius: 10px; overflow: hidden; background: var(--surface); color: var(--text); box-shadow: var(--shadow); }
.left .launcher, .left .panel { right: auto; left: 24px; }
iframe { display: block; width: 100%; height: 100%; border: 0; background: var(--surface); color-scheme: inherit; }
.note { position: absolute; inset: 0; display: grid; align-content: center; justify-items: center; gap: 8px; padding: 24px; text-align: center; background: var(--surface); font-weight: 400; }
.note b { font-weight: 600; }
.note p { margin: 0; color: var(--text-2); font-size: 13px; max-width: 40ch; }
.note div { display: flex; gap: 8px; margin-top: 12px; }
.note button { min-height: 40px; padding: 0 16px; border: 1px solid var(--line); border-radius: 6px; background: none; color: inherit; font-weight: 600; font-size: 13px; }
.wait { width: 24px; height: 24px; border: 2px solid var(--line); border-top-color: var(--brand); border-radius: 50%; animation: turn 1s linear infinite; }
@keyframes turn { to { rotate: 360deg; } }
@media (prefers-reduced-motion: reduce) { .wait { animation: none; } }
@media (max-width: 480px) {
  .launcher { bottom: 16px; right: 16px; max-width: calc(100vw - 32px); }
  .left .launcher { left: 16px; }
  .panel, .left .panel { inset: 0; width: 100%; height: 100dvh; max-width: none; max-height: none; border: 0; border-radius: 0; }
  .open .launcher { display: none; }
}
@media print { :host { display: none; } }
`;
