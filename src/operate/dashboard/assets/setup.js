// What to put into Segment, and what was refused of what came.

import { count, html, many, sentence, Time } from "./words.js";

const CREDENTIALS = { none: "no credential", signature: "a signature", bearer: "a bearer token", basic: "a write key", other: "another credential" };

/** Until a first event was accepted: where Segment is to send it, and with what. */
export function Setup({ status }) {
  if (!status?.setup?.length) return null;
  return html`
    <section class="card setup" aria-label="Set-up">
      <h2>Enter this in Segment</h2>
      ${status.setup.map(({ path, credentials, demands_all: all }) => html`
        <dl class="facts" key=${path}>
          <dt>URL</dt><dd><code>https://${"<"}this host’s public address${">"}${path}</code></dd>
          <dt>Credentials</dt>
          <dd>${credentials.length === 0 ? "none required" : html`
            ${credentials.length > 1 && html`<span class="muted">${all ? "all of these" : "one of these"}</span>`}
            <ul>${credentials.map((words) => html`<li key=${words}><code>${words}</code></li>`)}</ul>`}</dd>
        </dl>`)}
      <${Refused} status=${status} />
    </section>`;
}

/** Requests that look like Segment's and were refused, until one succeeds at their path. */
export function Refused({ status }) {
  if (!status?.refused?.length) return null;
  const told = new Set(status.concerns.map((one) => one.remedy));
  return html`
    <div class="refused">
      <h2>Last refused</h2>
      <ul>
        ${status.refused.map((one) => html`
          <li key=${`${one.path} ${one.reason}`}>
            <p><${Time} at=${one.last_at} /> · <code>${one.path}</code> · ${one.reason.replaceAll("_", " ")} · ${
              CREDENTIALS[one.credential] ?? one.credential} · ${many(one.count, "request")}</p>
            ${!told.has(one.remedy) && html`<p>${sentence(one.why)} <b>What to do:</b> ${one.remedy}</p>`}
          </li>`)}
      </ul>
    </div>`;
}

/** Events that no subscription selects, by name. */
export function Ignored({ status }) {
  if (!status?.ignored_events?.length || !status.concerns.some((one) => one.kind === "only_ignored")) return null;
  return html`
    <div class="refused">
      <h2>Ignored</h2>
      <ul>${status.ignored_events.map(({ name, count: times }) => html`<li key=${name}><code>${name}</code> · ${count(times)}</li>`)}</ul>
    </div>`;
}

/** A configuration on disk that does not run. */
export function RefusedConfiguration({ configuration }) {
  if (!configuration) return null;
  const { file, refused_since: since, faults } = configuration;
  return html`
    <div class="notice bad configuration">
      <b>The configuration on disk has been refused since <${Time} at=${since} />; the previous one is in effect.</b>
      ${file && html` <code>${file}</code>:`}
      <ul>${faults.map((fault) => html`<li key=${fault}><code>${fault}</code></li>`)}</ul>
      <p><b>What to do:</b> fix it before the next start, which would fail. The fixed file is read automatically, or at once with <code>cohortd reload</code>.</p>
    </div>`;
}
