/** The widget application: one bundle for the frame on the owner's page and for the full page. */
import { render } from 'preact';
import '../shared/tokens.css';
import '../shared/components.css';
import '../shared/conversation.css';
import './frame.css';
import './page.css';
import { Conversation } from '../shared/conversation';
import { type Config, readConfig, wear } from './config';
import { Frame, useReturn, type ViewProps } from './frame';
import { Page } from './page';
import { FrameSession, PageSession } from './session';
import { visitorTransport } from './transport';

const config = readConfig<Config>();
const { assistant, api, mode } = config;
wear(assistant.brand);

const hash = new URLSearchParams(mode === 'frame' ? location.hash.slice(1) : '');
const theme = hash.get('theme');
if (theme === 'light' || theme === 'dark') document.documentElement.dataset['theme'] = theme;

const focus: ViewProps['focus'] = { current: () => undefined };
const frame = mode === 'frame' ? new FrameSession(() => focus.current()) : null;
const session = frame ?? new PageSession(api, assistant.slug);
const conversation = new Conversation(visitorTransport(api, session), (id) => session.remember(id));
if (hash.get('resumes') === 'true') conversation.phase.value = 'loading';

session.remembered().then(
  (id) => {
    if (id !== null && conversation.outbox.value.length === 0) return conversation.restore(id);
    if (conversation.phase.value === 'loading') conversation.phase.value = 'new';
  },
  () => {
    conversation.phase.value = 'new';
  },
);

function App() {
  useReturn(conversation);
  const props: ViewProps = { assistant, conversation, focus };
  return frame ? <Frame {...props} onClose={() => frame.close()} /> : <Page {...props} />;
}

document.body.classList.add(mode === 'frame' ? 'frame' : 'page-body');
const root = document.getElementById('app');
if (root) render(<App />, root);
if (frame) document.addEventListener('keydown', (event) => {
  if (event.key === 'Escape' && !event.isComposing) frame.close();
});
