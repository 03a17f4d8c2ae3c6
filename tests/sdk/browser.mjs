// Segment's SDK in a real browser, on a page of another origin than the daemon's. Arguments: the browser, the
// daemon's host and port, the write key, how it sends (`standard` or `batching`), and how many answers come.
import { createReadStream } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { chromium } from "playwright-core";

const [executablePath, host, writeKey, strategy, expected] = process.argv.slice(2);
const TIMEOUT_MS = 30_000;
const umd = dirname(createRequire(import.meta.url).resolve("@segment/analytics-next/dist/umd/index.js"));

const server = createServer((request, response) => {
  if (request.url === "/") {
    response.setHeader("content-type", "text/html");
    response.end("<!doctype html><title>A shop</title><script src=/index.js></script>");
  } else if (/^\/[\w.-]+\.js$/.test(request.url)) {
    response.setHeader("content-type", "text/javascript");
    createReadStream(join(umd, request.url)).on("error", () => response.destroy()).pipe(response);
  } else {
    response.writeHead(404).end();
  }
});
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));

const browser = await chromium.launch({ executablePath, headless: true, args: ["--no-sandbox", "--disable-gpu"] });
const page = await browser.newPage();
const answers = [];
let over;
const all = new Promise((resolve) => { over = resolve; });
const timer = setTimeout(() => over("they do not come"), TIMEOUT_MS);
page.on("response", (response) => {
  if (!response.url().includes(host)) return;
  answers.push(`${response.request().method()} ${new URL(response.url()).pathname} ${response.status()}`);
  if (answers.length === Number(expected)) over(null);
});
page.on("requestfailed", (request) => {
  if (request.url().includes(host)) over(`${request.url()}: ${request.failure()?.errorText}`);
});
await page.goto(`http://127.0.0.1:${server.address().port}/`);
const sending = page.evaluate(async ({ host, writeKey, strategy }) => {
  const { AnalyticsBrowser } = globalThis.AnalyticsNext;
  const cdnSettings = { integrations: { "Segment.io": { apiKey: writeKey, unbundledIntegrations: [] } } };
  const options = { apiHost: `${host}/v1`, protocol: "http", deliveryStrategy: { strategy, config: { size: 2, timeout: 100 } } };
  const [analytics] = await AnalyticsBrowser.load({ writeKey, cdnSettings }, { integrations: { "Segment.io": options } });
  const context = {
    personas: { computation_class: "audience", computation_id: "aud_vip", computation_key: "vip" },
  };
  const timestamp = new Date(1_750_000_000_000);
  for (const user of ["ada", "bob"]) await analytics.identify(user, { vip: true }, { context, timestamp });
  const left = new Date(1_750_000_000_001);
  await analytics.track("Audience Exited", { vip: false }, { context, timestamp: left });
  await analytics.page();
}, { host, writeKey, strategy });
sending.catch(() => {}); // the page is left while it tries again
const failure = await all;
clearTimeout(timer);
await browser.close();
server.close();
console.log(answers.join("\n"));
if (failure) {
  console.error(failure);
  process.exitCode = 1;
}
