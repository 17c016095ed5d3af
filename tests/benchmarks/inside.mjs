// What inside.py is for the Python tools: promptfoo's evaluate() in a Node.js that has started, beside bare fetch().
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";

const [folder, url, rounds] = process.argv.slice(2);
const key = process.env.BENCH_API_KEY;
const { default: promptfoo } = await import(
  pathToFileURL(createRequire(path.join(folder, "here.js")).resolve("promptfoo"))
);
const headers = { "Content-Type": "application/json", "x-api-key": key };
const provider = {
  id: url,
  config: { method: "POST", headers, body: { input: { text: "{{prompt}}" } }, transformResponse: "json.result" },
};
const suite = { prompts: ["Classify {{text}}"], providers: [provider], tests: [{ vars: { text: "ticket 1" } }] };
const body = JSON.stringify({ input: { text: "Classify ticket 1" } });

async function own() {
  const evaluated = await promptfoo.evaluate(structuredClone(suite), {
    cache: false,
    maxConcurrency: 1,
    showProgressBar: false,
  });
  const { stats } = await evaluated.toEvaluateSummary();
  if (stats.successes !== 1) throw new Error(JSON.stringify(stats));
}

async function floor() {
  await (await fetch(url, { method: "POST", headers, body })).json();
}

const told = { own: [], floor: [] };
for (let number = 0; number <= Number(rounds); number++) {
  for (const [name, call] of Object.entries({ floor, own })) {
    const began = performance.now();
    await call();
    if (number) told[name].push(performance.now() - began);
  }
}
console.log("\n" + JSON.stringify(told));
process.exit(0);
