import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { defineConfig, type Plugin } from 'vite';

const require = createRequire(import.meta.url);

/** `import copy from 'lucide:copy'` gives the shapes inside that Lucide icon, so a bundle holds only the icons it draws. */
export function lucide(): Plugin {
  const prefix = 'lucide:';
  return {
    name: 'lucide',
    resolveId: (id) => (id.startsWith(prefix) ? `\0${id}` : null),
    load(id) {
      if (!id.startsWith(`\0${prefix}`)) return null;
      const file = require.resolve(`lucide-static/icons/${id.slice(prefix.length + 1)}.svg`);
      const svg = readFileSync(file, 'utf8').replace(/<!--[\s\S]*?-->/g, '');
      const inner = svg.slice(svg.indexOf('>', svg.indexOf('<svg')) + 1, svg.lastIndexOf('</svg>'));
      return `export default ${JSON.stringify(inner.replace(/\s+/g, ' ').replace(/ \/>/g, '/>').trim())};`;
    },
  };
}

export default defineConfig({
  plugins: [lucide()],
  test: { environment: 'jsdom', include: ['**/*.test.{ts,tsx}'], exclude: ['node_modules/**', 'dev/**'] },
} as Parameters<typeof defineConfig>[0]);
