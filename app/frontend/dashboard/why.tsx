/** Why this answer: the gate, the passages with their scores, each sentence's verdict, the state and the time. */
import { useMemo, useState } from 'preact/hooks';
import minus from 'lucide:minus';
import { bytes, counted, number, seconds } from '../shared/format';
import { Icon, icons } from '../shared/icons';
import { isSafeLink } from '../shared/markdown';
import { pathOf } from '../shared/quote';
import { isOpen } from '../shared/reducer';
import type { Message } from '../shared/types';
import { api } from './api';
import { Failed } from './parts';
import { useResource } from './resource';
import type { Hit, Trace, TracedMessage } from './types';

const SHOWN = 4; // passages before "Show the others"

export function Why({ message }: { message: Message | null }) {
  if (!message) {
    return <div class="empty"><span class="glyph"><Icon of={icons.fileText} size="l" /></span><h3>Nothing to explain yet</h3><p>Ask a question. You see here which passages were found, whether the evidence was enough, and what was held back.</p></div>;
  }
  return isOpen(message) ? <WhyLoading /> : <Explained key={message.id} message={message} />;
}

function WhyLoading() {
  return (
    <div aria-busy="true"><span class="sr">The explanation follows the answer.</span>
      <section><span class="skeleton w30" /><span class="skeleton w90" /><span class="skeleton skeleton-thin" /></section>
      <section><span class="skeleton w30" /><span class="skeleton w80" /><span class="skeleton w50" /><span class="skeleton w80" /></section>
      <section><span class="skeleton w30" /><span class="skeleton w90" /></section>
    </div>
  );
}

function Explained({ message }: { message: Message }) {
  const { data, error, loading, reload } = useResource<TracedMessage>(() => api.message(message.id), `message:${message.id}:${message.status}`);
  if (error) return <Failed title="The explanation could not be loaded" error={error} onRetry={() => void reload()} />;
  if (loading || !data) return <WhyLoading />;
  const trace = data.trace;
  if (!trace) return <section><p class="soft">Nothing was recorded for this answer.</p></section>;
  return (
    <>
      <Gate trace={trace} message={data} />
      {(trace.passages?.length ?? 0) > 0 && <Passages hits={trace.passages ?? []} message={data} />}
      {(trace.verifier?.length ?? 0) > 0 && <Sentences trace={trace} />}
      <State trace={trace} message={data} />
      <Time message={data} />
    </>
  );
}

const WITHOUT_GATE: Partial<Record<string, string>> = {
  memory: 'The answer came from what was said in this conversation; no passage was needed.',
  noted: 'Nothing was asked, so nothing was looked up.',
};

const numberIn = (features: Record<string, unknown> | undefined, key: string): number | null => {
  const value = features?.[key];
  return typeof value === 'number' && Number.isFinite(value) ? value : null;
};

const label = (name: string): string => name.replaceAll('_', ' ');

function Gate({ trace, message }: { trace: Trace; message: TracedMessage }) {
  const gate = trace.gate;
  const without = WITHOUT_GATE[message.kind ?? ''];
  const threshold = numberIn(gate?.features, 'threshold');
  const features = Object.entries(gate?.features ?? {}).filter(([key, value]) => key !== 'threshold' && typeof value === 'number') as [string, number][];
  const shown = gate && !without ? gate : null;
  return (
    <section>
      <div class="row"><h3>Gate</h3>{shown && <span class={`badge end ${shown.answer ? 'badge-good' : 'badge-warn'}`}>{shown.answer ? 'Answer' : 'Refuse'}</span>}</div>
      <p class="soft">{without ?? (gate?.answer === false ? 'The evidence was not enough, so the assistant says that it does not know.' : gate ? 'The evidence is enough, so the assistant may answer.' : 'The gate was not asked.')}</p>
      {shown && (
        <div class="gate">
          <span class="meter" role="img" aria-label={`Probability that the evidence answers: ${shown.probability.toFixed(2)}${threshold === null ? '' : `, threshold ${threshold.toFixed(2)}`}`}>
            <i style={{ width: `${100 * clamp(shown.probability)}%` }} />{threshold !== null && <b style={{ insetInlineStart: `${100 * clamp(threshold)}%` }} />}</span>
          <div class="scale num"><span>{threshold === null ? '0' : `threshold ${threshold.toFixed(2)}`}</span><span>probability <b>{shown.probability.toFixed(2)}</b></span></div>
        </div>
      )}
      {trace.query && <p class="hint">Asked as: <span class="said" dir="auto">{trace.query}</span></p>}
      {shown && features.length > 0 && (
        <details class="features"><summary>What it weighed</summary><dl class="kv">{features.map(([name, value]) => <FeatureRow key={name} name={label(name)} value={value} />)}</dl></details>
      )}
    </section>
  );
}

function FeatureRow({ name, value }: { name: string; value: number }) {
  return <><dt>{name}</dt><dd>{Number.isInteger(value) ? number(value) : value.toFixed(3)}</dd></>;
}

const clamp = (value: number): number => Math.min(1, Math.max(0, value));

function Passages({ hits, message }: { hits: Hit[]; message: TracedMessage }) {
  const [all, setAll] = useState(false);
  const cited = useMemo(() => new Map((message.evidence ?? []).map((e) => [e.passage_id, e.number])), [message]);
  const best = {
    score: Math.max(...hits.map((h) => h.score ?? 0), 1e-9),
    rank: Math.max(...hits.map((h) => h.text_rank ?? 0), 1e-9),
  };
  const shown = all ? hits : hits.slice(0, SHOWN);
  return (
    <section>
      <div class="row"><h3>Passages</h3><span class="hint end">{number(hits.length)} found, {number(new Set(cited.values()).size)} cited</span></div>
      {shown.map((hit) => {
        const numeral = cited.get(hit.passage_id);
        return (
          <div key={hit.passage_id} class={`hit${numeral === undefined ? ' unused' : ''}`}>
            {numeral === undefined ? <span class="none">–</span> : <span class="cite">{numeral}</span>}
            <a class="title clip" href={isSafeLink(hit.url) ? hit.url : undefined} target="_blank" rel="noopener noreferrer" title={hit.text}>{hit.title}</a>
            <span class={`badge badge-plain${numeral === undefined ? '' : ' badge-accent'}`}>{numeral === undefined ? 'found' : 'cited'}</span>
            <span class="hint clip place">{pathOf(hit)}</span>
            <div class="bars">
              <Bar name="meaning" value={hit.vector_score} width={hit.vector_score ?? 0} off={numeral === undefined} />
              <Bar name="words" value={hit.text_rank} width={(hit.text_rank ?? 0) / best.rank} off={numeral === undefined} />
              <Bar name="together" value={hit.score} width={(hit.score ?? 0) / best.score} off={numeral === undefined} />
            </div>
          </div>
        );
      })}
      {hits.length > SHOWN && <button type="button" class="btn btn-quiet more-hits" onClick={() => setAll(!all)}>{all ? 'Show fewer' : `Show the other ${hits.length - SHOWN}`}</button>}
    </section>
  );
}

function Bar({ name, value, width, off }: { name: string; value: number | null | undefined; width: number; off: boolean }) {
  const text = value == null ? '–' : Math.abs(value) < 0.1 && value !== 0 ? value.toFixed(3) : value.toFixed(2);
  return <span><span>{name}<b>{text}</b></span><span class={`meter${off ? ' off' : ''}`}><i style={{ width: `${100 * clamp(width)}%` }} /></span></span>;
}

function Sentences({ trace }: { trace: Trace }) {
  const verdicts = trace.verifier ?? [];
  const published = verdicts.filter((v) => v.published).length;
  return (
    <section>
      <div class="row"><h3>Sentences</h3><span class="hint end">{published} published{published < verdicts.length ? `, ${verdicts.length - published} held back` : ''}</span></div>
      {verdicts.map((verdict, i) => (
        <div key={i} class={`sent${verdict.published ? '' : ' held'}`}><Icon of={verdict.published ? icons.check : minus} />
          <span><span dir="auto">“{verdict.sentence}”</span> <span class="hint">{verdict.published ? 'Published' : 'Held back'}{verdict.reason ? `: ${label(verdict.reason)}` : ''}</span></span></div>
      ))}
    </section>
  );
}

const ORIGINS: Partial<Record<string, string>> = {
  redis: 'Redis, not rebuilt',
  snapshot: 'Rebuilt from a snapshot',
  ids: 'Rebuilt from the stored messages',
  fresh: 'Begun with this message',
};

function State({ trace, message }: { trace: Trace; message: TracedMessage }) {
  if (!trace.state) return null;
  return (
    <section>
      <div class="row"><h3>State</h3><span class="hint end">the same size after every message</span></div>
      <dl class="kv">
        <dt>Size, in the generator’s memory</dt><dd><b title={counted(trace.state.bytes, 'byte')}>{bytes(trace.state.bytes)}</b></dd>
        <dt>Tokens consumed</dt><dd>{number(trace.state.tokens)}</dd>
        {trace.state.origin && <><dt>Found in</dt><dd>{ORIGINS[trace.state.origin] ?? trace.state.origin}</dd></>}
        {message.tokens ? <><dt>Tokens of this answer</dt><dd>{number(message.tokens)}</dd></> : null}
        {trace.generator && <><dt>Generator</dt><dd class="clip" title={trace.generator}>{trace.generator}</dd></>}
        {(trace.attempt ?? 1) > 1 && <><dt>Attempt</dt><dd>{trace.attempt}</dd></>}
      </dl>
    </section>
  );
}

function Time({ message }: { message: TracedMessage }) {
  const { evidence_ms, first_sentence_ms, total_ms } = message.timings ?? {};
  if (total_ms == null || total_ms <= 0) return null;
  const marks: [string, number][] = [];
  if (evidence_ms != null) marks.push(['evidence', evidence_ms]);
  if (first_sentence_ms != null) marks.push(['sentence', first_sentence_ms]);
  marks.push(['finished', total_ms]);
  return (
    <section>
      <div class="row"><h3>Time</h3><span class="hint end num">{seconds(total_ms)} in all</span></div>
      <div class="lane">{marks.map(([name, ms]) => <div key={name}><span>{name}</span><i style={{ width: `${100 * clamp(ms / total_ms)}%` }} /><span class="num">{seconds(ms)}</span></div>)}</div>
    </section>
  );
}
