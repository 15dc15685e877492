#!/usr/bin/env node
// An agent in Node without dependencies: checks package.json files for what makes builds unrepeatable.
//
// Progress and the result go through standard output, one JSON object a line; an event goes over HTTP. A message
// {"text": "skip <directory>"} on standard input leaves a directory out; {"type": "shutdown"} ends the work early.

import { readFile, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";

const env = process.env;
const say = (record) => process.stdout.write(JSON.stringify(record) + "\n");

let isStopping = false;
const skipped = new Set();
const input = createInterface({ input: process.stdin });
input.on("line", (line) => {
  let message;
  try {
    message = JSON.parse(line);
  } catch {
    return;
  }
  if (message.type === "shutdown") isStopping = true;
  if (message.type === "message" && message.text?.startsWith("skip ")) skipped.add(message.text.slice(5));
});

async function projectFiles() {
  const document = JSON.parse(await readFile(env.AGENT_CONTEXT_FILE, "utf8"));
  return document.context.project_structure.files.map((entry) => (typeof entry === "string" ? entry : entry.path));
}

async function exists(path) {
  return stat(path).then(
    () => true,
    () => false,
  );
}

const LOOSE = /^(\*|latest|next|x|>=?\s*\d.*)$/;
const LOCKS = ["package-lock.json", "npm-shrinkwrap.json", "yarn.lock", "pnpm-lock.yaml", "bun.lockb"];

async function examine(name) {
  let manifest;
  try {
    manifest = JSON.parse(await readFile(join(env.AGENT_WORKSPACE, name), "utf8"));
  } catch (error) {
    return [{ severity: "high", path: name, message: `cannot be read: ${error.message}` }];
  }
  const findings = [];
  for (const kind of ["dependencies", "devDependencies"]) {
    for (const [dependency, range] of Object.entries(manifest[kind] ?? {})) {
      if (typeof range === "string" && LOOSE.test(range.trim())) {
        findings.push({ severity: "medium", path: name, message: `${dependency} takes any version ("${range}")` });
      }
    }
  }
  const directory = join(env.AGENT_WORKSPACE, dirname(name));
  const locks = await Promise.all(LOCKS.map((lock) => exists(join(directory, lock))));
  if (Object.keys(manifest.dependencies ?? {}).length > 0 && !locks.includes(true)) {
    findings.push({ severity: "medium", path: name, message: "has dependencies but no lock file beside it" });
  }
  if (!manifest.engines?.node) findings.push({ severity: "low", path: name, message: "does not say which Node it needs" });
  return findings;
}

async function publish(type, data) {
  const answer = await fetch(`${env.SIDECAR_URL}/events/${type}`, {
    method: "POST",
    headers: { "Content-Type": "application/json", Authorization: `Bearer ${env.JWT_TOKEN}` },
    body: JSON.stringify({ topic: "implementation", event_id: `${env.AGENT_ID}-${type}`, data }),
  });
  if (!answer.ok) say({ type: "log", level: "warning", message: `event refused: ${(await answer.json()).message}` });
}

const manifests = (await projectFiles()).filter((name) => name.split("/").at(-1) === "package.json");
const findings = [];
let done = 0;
for (const name of manifests) {
  if (isStopping) break;
  say({ type: "progress", message: name, percent: Math.floor((100 * done) / manifests.length) });
  if (!skipped.has(dirname(name))) findings.push(...(await examine(name)));
  done += 1;
}
await publish("packages_checked", { manifests: done, findings: findings.length });
say({
  type: "result",
  result: {
    status: done < manifests.length ? "partial" : "success",
    summary: `${done} package.json files, ${findings.length} findings.`,
    findings,
    metrics: { manifests: done },
  },
});
input.close();
process.stdin.destroy();
