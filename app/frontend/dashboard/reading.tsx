/** How far the reading of a source has come. */
import { counted, number, span } from '../shared/format';
import { placeOf } from './addresses';
import type { Counts, Source } from './types';

export const isReading = (source: Source): boolean => source.status === 'waiting' || source.status === 'reading';

export const handled = (c: Counts): number => c.read + c.unchanged + c.skipped + c.failed;

export function timeLeft(source: Source): string | null {
  const rate = source.pages_per_second ?? 0;
  const left = source.counts.found - handled(source.counts);
  return rate > 0 && left > 0 ? `about ${span(left / rate)} left` : null;
}

export function ProgressBar({ counts, tall }: { counts: Counts; tall?: boolean }) {
  const total = Math.max(1, counts.found);
  const width = (n: number): { width: string } => ({ width: `${(100 * n) / total}%` });
  return (
    <div class={`progress${tall ? ' progress-tall' : ''}`} role="progressbar" aria-label="Pages" aria-valuemin={0} aria-valuemax={counts.found} aria-valuenow={handled(counts)}>
      {counts.read > 0 && <i style={width(counts.read)} />}
      {counts.unchanged > 0 && <i class="p-same" style={width(counts.unchanged)} />}
      {counts.skipped > 0 && <i class="p-skip" style={width(counts.skipped)} />}
      {counts.failed > 0 && <i class="p-fail" style={width(counts.failed)} />}
    </div>
  );
}

const readingNow = (page: string, source: string): string => {
  const { folder, leaf } = placeOf(page, source);
  return folder + leaf;
};

export function Reading({ source }: { source: Source }) {
  const { counts } = source;
  const running = isReading(source);
  return (
    <div class="card-body reading">
      <div class="row">
        <span class="grow status-line"><b class="num">{running ? `${number(handled(counts))} of ${counted(counts.found, 'page')}` : `${counted(handled(counts), 'page')}, ${counted(counts.passages, 'passage')}`}</b>
          {running && <span class="soft">{timeLeft(source) && ` · ${timeLeft(source)}`}{counts.fetched > 0 && ` · ${counted(counts.fetched, 'page waits', 'pages wait')} for vectors`}{source.current && <> · now <span class="mono" title={source.current}>{readingNow(source.current, source.url)}</span></>}</span>}</span>
        {running && source.pages_per_second ? <span class="num soft hide-s">{source.pages_per_second.toFixed(1)} pages/s</span> : null}
      </div>
      <ProgressBar counts={counts} tall />
      <div class="keys num">
        <span><i />Read {number(counts.read)}</span><span><i class="k-same" />Unchanged {number(counts.unchanged)}</span><span><i class="k-skip" />Skipped {number(counts.skipped)}</span>
        <span><i class="k-fail" />Failed {number(counts.failed)}</span><span><i class="k-wait" />Waiting {number(counts.waiting)}</span>
      </div>
    </div>
  );
}
