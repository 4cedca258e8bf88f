import arrowRight from 'lucide:arrow-right';
import arrowUpRight from 'lucide:arrow-up-right';
import bookOpenText from 'lucide:book-open-text';
import check from 'lucide:check';
import circleAlert from 'lucide:circle-alert';
import clock from 'lucide:clock';
import copy from 'lucide:copy';
import fileText from 'lucide:file-text';
import mail from 'lucide:mail';
import plus from 'lucide:plus';
import rotateCw from 'lucide:rotate-cw';
import sendHorizontal from 'lucide:send-horizontal';
import square from 'lucide:square';
import wifiOff from 'lucide:wifi-off';
import x from 'lucide:x';

/** Icons of the conversation; each surface adds its own beside its views. */
export const icons = { arrowRight, arrowUpRight, bookOpenText, check, circleAlert, clock, copy, fileText, mail, plus, rotateCw, sendHorizontal, square, wifiOff, x };

export interface IconProps {
  /** The shapes of a Lucide icon, imported as `lucide:name`: build-time text, never data. */
  of: string;
  size?: 's' | 'l';
  class?: string;
}

export function Icon({ of, size, class: extra }: IconProps) {
  const name = `icon${size ? ` icon-${size}` : ''}${extra ? ` ${extra}` : ''}`;
  return <svg class={name} viewBox="0 0 24 24" aria-hidden="true" dangerouslySetInnerHTML={{ __html: of }} />;
}
