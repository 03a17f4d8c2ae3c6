// Events that could not be mapped, each with its reason, to be replayed once the mapping is fixed.

import { change, of, read } from "./api.js";
import { Deed } from "./dialogs.js";
import { count, html, many, sentence, useEffect, useState, Time } from "./words.js";

const PAGE = 50;
const REASONS = "/manual/mapping#why-an-event-is-rejected";

export function Rejected({ known, onAsk, onSaid, onTest }) {
  const destination = known.chosen;
  const [list, setList] = useState(null);
  const [problem, setProblem] = useState(null);
  const [outcome, setOutcome] = useState(null);
  const total = known.destinations.find((one) => one.name === destination)?.rejected ?? 0;
  const load = async (behind) => {
    try {
      const page = await read(of(destination, "/rejected"), { limit: PAGE, after: behind?.id });
      setList((before) => ({ items: behind ? [...before.items, ...page.rejected] : page.rejected, more: page.more, total }));
      setProblem(null);
    } catch (failure) {
      setProblem(failure.message);
    }
  };
  // Rows do not move under a hand: what has come since is shown when it is asked for.
  const isNews = list !== null && list.items.length > 0 && total > list.total;
  useEffect(() => { if (!isNews) load(); }, [destination, total]);
  useEffect(() => setOutcome(null), [destination]);
  const replay = async (body) => {
    try {
      setOutcome({ ...(await replayed(destination, body)), body });
    } catch (failure) {
      onSaid(failure.message, true);
    }
    await load();
  };
  const discard = (body, what) => onAsk({
    title: "Discard", verb: "Discard", danger: true,
    body: html`<p>${sentence(what)} They cannot be replayed afterwards.</p>`,
    act: async () => {
      const { count: events } = await change(of(destination, "/rejected/discard"), body);
      await load();
      return `${many(events, "event")} discarded.`;
    },
  });
  if (problem) return html`<p class="notice bad" role="alert">${problem}</p>`;
  if (!list) return html`<p class="empty">Asking…</p>`;
  const isEmpty = list.items.length === 0;
  return html`
    <${Outcome} outcome=${outcome} onForce=${() => replay({ ...outcome.body, force: true })} />
    ${isEmpty && html`<p class="empty good">No rejected event is kept.</p>`}
    ${!isEmpty && html`
      <div class="toolbar">
        <p class="grow muted">The mapping could not read these events. Fix it, then replay them: they keep their original time, so nothing newer is undone.</p>
        <div class="buttons">
        <button class=${isNews ? "" : "absent"} onClick=${() => load()}>Show new ones</button>
          <${Deed} class="primary" onClick=${() => replay({})}>Replay all<//>
          <${Deed} class="danger-quiet" onClick=${() => discard({}, `All ${many(total, "rejected event")} of ${destination} are erased`)}>Discard all…<//>
        </div>
      </div>
      <table class="rows">
        <thead><tr><th scope="col">Reason</th><th scope="col">Arrived</th><th scope="col">Event</th>
          <th scope="col"><span class="visually-hidden">Actions</span></th></tr></thead>
        <tbody>
          ${list.items.map((one) => html`
            <tr key=${one.id}>
              <th scope="row"><a href=${REASONS} title="What each reason means"><code class="reason">${one.reason}</code></a><span class="block">${sentence(one.detail)}</span></th>
              <td data-label="Arrived"><${Time} at=${one.received_at} /></td>
              <td data-label="Event" class="body-cell">
                ${one.body === undefined
                  ? html`Event ${one.id} <span class="muted small">(its content is shown with one of <code>admin.tokens</code>)</span>`
                  : html`<details><summary>Event ${one.id}</summary><pre tabindex="0">${pretty(one.body)}</pre></details>`}</td>
              <td class="action"><div class="buttons">
                <${Deed} onClick=${() => replay({ id: one.id })} aria-label=${`Replay event ${one.id}`}>Replay<//>
                <button onClick=${() => onTest(pretty(one.body))} disabled=${one.body === undefined} aria-label=${`Explain event ${one.id}`}>Explain</button>
                <${Deed} class="danger-quiet" onClick=${() => discard({ id: one.id }, `Event ${one.id} is erased`)} aria-label=${`Discard event ${one.id}`}>Discard…<//>
              </div></td>
            </tr>`)}
        </tbody>
      </table>
      ${list.more && html`<p class="more"><button onClick=${() => load(list.items.at(-1))}>Show more</button>
        <span class="muted">${count(list.items.length)} of ${count(total)}</span></p>`}`}`;
}

/** A replay goes on a part at a time until there is no next one. */
async function replayed(destination, body) {
  const sum = { replayed: 0, ignored: 0, too_old: 0, rejected: [] };
  let after;
  do {
    const part = await change(of(destination, "/rejected/replay"), { ...body, ...(after === undefined ? {} : { after }) });
    for (const of of ["replayed", "ignored", "too_old"]) sum[of] += part[of];
    sum.rejected.push(...part.rejected);
    after = part.next_after;
  } while (after !== undefined && after !== null);
  return sum;
}

function Outcome({ outcome, onForce }) {
  const { replayed: done, ignored, too_old: old, rejected } = outcome ?? {};
  const reasons = [...new Set((rejected ?? []).map((one) => one.reason))];
  const isWell = outcome && ignored + old + rejected.length === 0;
  return html`
    <div role="status" aria-live="polite">
      ${outcome && html`
        <div class=${`notice ${isWell ? "ok" : "warn"}`}>
          <p><b>${many(done, "event")} replayed.</b>
            ${ignored > 0 && ` ${many(ignored, "event")} not selected by the present mapping.`}
            ${rejected.length > 0 && ` ${many(rejected.length, "event")} still rejected:`}</p>
          ${reasons.length > 0 && html`<ul>${reasons.slice(0, 5).map((reason) => html`<li key=${reason}>${reason}</li>`)}</ul>`}
          ${old > 0 && html`<p>${many(old, "event")} older than <code>ledger.tombstone_ttl_s</code>: a replay may bring back somebody who left since.
            <${Deed} onClick=${onForce}>Replay anyway<//></p>`}
        </div>`}
    </div>`;
}

function pretty(body) {
  try {
    return JSON.stringify(JSON.parse(body), null, 2);
  } catch {
    return body;
  }
}
