// A browser that does what it is told: one JSON array a line on standard input, a deed and its arguments;
// one JSON object a line on standard output, `{"done": …}` or `{"failed": "…"}`.

import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const [executablePath, userDataDir] = process.argv.slice(2);
const TIMEOUT_MS = 30_000;

const context = await chromium.launchPersistentContext(userDataDir, {
  executablePath,
  headless: true,
  args: [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
  ],
});
const page = context.pages()[0] ?? (await context.newPage());
page.setDefaultTimeout(TIMEOUT_MS);

// Whatever the browser minds: errors of scripts, violations of the policy, files that did not come, and
// requests to anybody else.
let complaints = [];
let origin = null;
page.on("console", (message) => {
  if (["error", "warning"].includes(message.type())) complaints.push(`console: ${message.text()} ${message.location().url}`);
});
page.on("pageerror", (error) => complaints.push(`script: ${error.stack}`));
page.on("requestfailed", (request) => {
  const why = request.failure()?.errorText;
  if (why !== "net::ERR_ABORTED") complaints.push(`request: ${request.url()} ${why}`);
});
page.on("request", (request) => {
  const url = new URL(request.url());
  if (url.origin !== origin && !["data:", "about:"].includes(url.protocol)) complaints.push(`elsewhere: ${url.origin}`);
});

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

const deeds = {
  async open(url) {
    // What the page of before still asks for belongs to the origin of before.
    await page.goto("about:blank");
    origin = new URL(url).origin;
    await page.goto(url);
  },
  shape: async (width, height, colorScheme) => {
    await page.emulateMedia({ colorScheme });
    await page.setViewportSize({ width, height });
  },
  see: (selector) => page.locator(selector).first().waitFor({ state: "visible" }),
  miss: (selector) => page.locator(selector).first().waitFor({ state: "hidden" }),
  click: (selector) => page.locator(selector).first().click(),
  fill: (selector, text) => page.locator(selector).first().fill(text),
  press: (key) => page.keyboard.press(key),
  text: (selector) => page.locator(selector).first().innerText(),
  evaluate: (expression) => page.evaluate(expression),
  bytes: () => page.content(),
  picture: (path) => page.screenshot({ path, fullPage: true }).then(() => null),
  view: (path) => page.screenshot({ path }).then(() => null),
  /** What a check of the page by the rules of WCAG 2 finds, levels A and AA. */
  async faults() {
    await page.evaluate(axe);
    const { violations } = await page.evaluate(() =>
      globalThis.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"] }));
    return violations.flatMap(({ id, nodes }) => nodes.map((node) => `${id}: ${node.html} ${node.failureSummary}`));
  },
  complaints() {
    const all = complaints;
    complaints = [];
    return all;
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const [deed, ...rest] = JSON.parse(line);
  let answer;
  try {
    answer = { done: (await deeds[deed](...rest)) ?? null };
  } catch (error) {
    answer = { failed: `${deed} ${rest.join(" ")}: ${error.message}` };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
await context.close();
