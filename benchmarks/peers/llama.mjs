// llama.cpp, held open for a benchmark: one command in JSON a line on stdin, one answer a line on stdout.
//
//   node llama.mjs MODEL.gguf THREADS
//   {"op": "open", "context": 4096, "sequences": 32, "flash": true}   makes a context with so many sequences of so many tokens each
//   {"op": "read", "tokens": [...]}                                   reads the same tokens into every sequence, {"seconds"}
//   {"op": "share"}                                                   copies the first sequence's memory into the others (untimed)
//   {"op": "decode", "tokens": 32}                                    every sequence writes so many, greedily, {"seconds", "tokens"}
//   {"op": "close"}
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { getLlama } from 'node-llama-cpp';

const BATCH = 512;
const [modelPath, threads] = [process.argv[2], Number(process.argv[3])];
const llama = await getLlama({ gpu: false, build: 'never', progressLogs: false, logLevel: 'error', maxThreads: threads });
const model = await llama.loadModel({ modelPath });
let context = null;
let sequences = [];
let last = 0;

async function timed(work) {
  const begun = performance.now();
  const result = await work();
  return { seconds: (performance.now() - begun) / 1000, ...result };
}

const operations = {
  async open({ context: size, sequences: count, flash }) {
    context = await model.createContext({ contextSize: size, sequences: count, batchSize: BATCH, threads, flashAttention: flash });
    sequences = Array.from({ length: count }, () => context.getSequence());
    return {};
  },
  async read({ tokens, only }) {
    last = tokens.at(-1);
    const reading = only === undefined ? sequences : sequences.slice(0, only);
    return timed(async () => {
      await Promise.all(reading.map((sequence) => sequence.evaluateWithoutGeneratingNewTokens(tokens.slice(0, -1))));
      return { tokens: (tokens.length - 1) * reading.length };
    });
  },
  async share() {
    const folder = mkdtempSync(join(tmpdir(), 'retort-bench-'));
    try {
      const file = join(folder, 'sequence');
      await sequences[0].saveStateToFile(file);
      for (const sequence of sequences.slice(1)) await sequence.loadStateFromFile(file, { acceptRisk: true });
    } finally {
      rmSync(folder, { recursive: true });
    }
    return {};
  },
  // The first token is not counted: it also ends the reading of the prompt.
  async decode({ tokens: wanted }) {
    const writers = sequences.map((sequence) => sequence.evaluate([last], { temperature: 0, yieldEogToken: true })[Symbol.asyncIterator]());
    const firsts = await Promise.all(writers.map((writer) => writer.next()));
    const answer = await timed(async () => {
      await Promise.all(writers.map(async (writer) => { for (let n = 0; n < wanted; n++) await writer.next(); }));
      return { tokens: wanted * writers.length };
    });
    await Promise.all(writers.map((writer) => writer.return()));
    last = firsts[0].value;
    return answer;
  },
  async close() {
    await context.dispose();
    return {};
  },
};

console.log(JSON.stringify({ ready: true, instructions: llama.systemInfo }));
for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  try {
    console.log(JSON.stringify(await operations[command.op](command)));
  } catch (error) {
    console.log(JSON.stringify({ error: String(error?.message ?? error) }));
  }
}
process.exit(0);
