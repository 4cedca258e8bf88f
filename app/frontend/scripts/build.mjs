// Three builds into app/static: the loader (one plain file), the widget application and the dashboard
// (hashed names and a manifest, from which the server writes the tags of its pages).
import { fileURLToPath } from 'node:url';
import { build, loadConfigFromFile } from 'vite';

const root = fileURLToPath(new URL('..', import.meta.url));
const out = fileURLToPath(new URL('../../static', import.meta.url));
const { config } = await loadConfigFromFile({ command: 'build', mode: 'production' }, `${root}/vite.config.ts`);
const common = { configFile: false, root, plugins: config.plugins, logLevel: 'warn', publicDir: false };

await build({
  ...common,
  build: {
    target: 'es2022',
    outDir: out,
    emptyOutDir: false,
    lib: { entry: 'loader/main.ts', formats: ['iife'], name: 'retort', fileName: () => 'widget.js' },
  },
});

for (const [name, entry] of [['widget', 'widget/main.tsx'], ['dashboard', 'dashboard/main.tsx']]) {
  await build({
    ...common,
    base: './',
    build: {
      target: 'es2022',
      outDir: `${out}/${name}`,
      emptyOutDir: true,
      assetsDir: '.',
      manifest: 'manifest.json',
      modulePreload: false,
      cssMinify: true,
      rolldownOptions: { input: entry },
    },
  });
}
