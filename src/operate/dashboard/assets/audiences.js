// The audiences of a destination: sizes, who waits, who came and went, and what can be done to one.

import { change, of } from "./api.js";
import { Deed, Dialog } from "./dialogs.js";
import { Sparkline } from "./plots.js";
import { count, html, many, segmentName, since, useMemo, useState, Time } from "./words.js";

/** So many calls in a row that were not taken are no accident: as in the verdict. */
const FAILURES_IN_A_ROW = 3;
/** Rows that are drawn at first, and added each time. */
const PAGE = 50;

const ORDERS = {
  name: ["Name", (a, b) => a.audience_key.localeCompare(b.audience_key)],
  members: ["Members", (a, b) => b.included - a.included],
  waiting: ["Waiting", (a, b) => b.pending - a.pending],
  parked: ["Parked", (a, b) => b.parked - a.parked],
};

const UNDER_WAY = {
  resync: "resync", retract: "being retracted", retract_stale: "stale members are being retracted",
  reenter: "those who left are entered again",
};

export function Audiences({ known, now, onAsk }) {
  const [wanted, setWanted] = useState("");
  const [order, setOrder] = useState("name");
  const [shown, setShown] = useState(PAGE);
  const [opened, setOpened] = useState(null);
  const all = known.audiences[known.chosen];
  const found = useMemo(() => {
    const word = wanted.trim().toLowerCase();
    const has = (one) => one.audience_key.toLowerCase().includes(word)
      || segmentName(one.audience_key).toLowerCase().includes(word) || one.audience.toLowerCase().includes(word);
    return (all ?? []).filter(has).sort(ORDERS[order][1]);
  }, [all, wanted, order]);
  if (!all) return html`<p class="empty">Asking…</p>`;
  if (all.length === 0) {
    return html`<p class="empty">No audience yet. An audience appears with its first event; the event tester can send one.</p>`;
  }
  const history = known.histories[known.chosen]?.audiences ?? {};
  const failing = new Map((known.status.destinations[known.chosen]?.failing_audiences ?? []).map((one) => [one.audience, one]));
  const audience = all.find((one) => one.audience === opened);
  return html`
    <div class="toolbar">
      <label class="field grow"><span class="visually-hidden">Find an audience</span>
        <input type="search" placeholder="Find by name or id" value=${wanted} onInput=${(event) => setWanted(event.target.value)} /></label>
      <label class="field inline"><span>Order by</span>
        <select value=${order} onChange=${(event) => setOrder(event.target.value)}>
          ${Object.entries(ORDERS).map(([key, [label]]) => html`<option key=${key} value=${key}>${label}</option>`)}
        </select></label>
    </div>
    <table class="rows audiences">
      <thead><tr>
        <th scope="col">Audience</th><th scope="col" class="number">Members</th><th scope="col" class="number">Waiting</th>
        <th scope="col" class="number">Parked</th><th scope="col">Entered and left, last hour</th><th scope="col"><span class="visually-hidden">Actions</span></th>
      </tr></thead>
      <tbody>
        ${found.slice(0, shown).map((one) => html`
          <tr key=${one.audience}>
            <th scope="row">
              <span class="name">${segmentName(one.audience_key)}</span>
              <span class="id muted">${one.audience}${one.context_kind === "user" ? "" : ` · ${one.context_kind}`}</span>
              ${one.held_since && html`<b class="warn tag">held by the guard</b>`}
              ${one.under_way && html`<span class="tag">${UNDER_WAY[one.under_way] ?? one.under_way}</span>`}
              <${Failing} of=${failing.get(one.audience)} />
            </th>
            <td class="number" data-label="Members">${count(one.included)}</td>
            <td class="number" data-label="Waiting">${count(one.pending)}
              <span class="muted small since">${one.pending_since && since(one.pending_since, now)}</span></td>
            <td class="number" data-label="Parked">${one.parked > 0 ? html`<b class="warn">${count(one.parked)}</b>` : "0"}</td>
            <td class="spark-cell" data-label="Last hour"><${Sparkline} history=${history[one.audience]} /></td>
            <td class="action"><button onClick=${() => setOpened(one.audience)} aria-label=${`Manage ${segmentName(one.audience_key)}`}>Manage…</button></td>
          </tr>`)}
      </tbody>
    </table>
    ${found.length === 0 && html`<p class="empty">No audience has “${wanted}” in its name or id.</p>`}
    ${found.length > shown && html`
      <p class="more"><button onClick=${() => setShown(shown + PAGE)}>Show more</button>
        <span class="muted">${count(shown)} of ${count(found.length)}</span></p>`}
    ${audience && html`
      <${Manage} destination=${known.chosen} audience=${audience} isDelivered=${known.chosen in known.status.destinations}
        onClose=${() => setOpened(null)}
        onAsk=${(ask) => { setOpened(null); onAsk(ask); }} />`}`;
}

/** Why LaunchDarkly does not take an audience, in its words, and when it is asked again. */
function Failing({ of }) {
  if (!of || of.failures < FAILURES_IN_A_ROW) return null;
  const words = [of.status, of.code, of.message && `“${of.message}”`, of.cause].filter(Boolean).join(" ");
  return html`
    <span class="failing small">
      <b class="warn">${of.what.replaceAll("_", " ")}</b>${words && `: ${words}`}, ${many(of.failures, "time")} in a row
      since <${Time} at=${of.since} />; next attempt <${Time} at=${of.next_attempt_at} />.
    </span>`;
}

/** What can be done to one audience. */
function Manage({ destination, audience, isDelivered, onClose, onAsk }) {
  const name = segmentName(audience.audience_key);
  const asks = steer(destination, audience.audience, name);
  return html`
    <${Dialog} title=${name} onClose=${onClose}>
      <dl class="facts">
        <dt>Audience id</dt><dd><code>${audience.audience}</code></dd>
        <dt>Key</dt><dd><code>${audience.audience_key}</code></dd>
        <dt>Context kind</dt><dd>${audience.context_kind}</dd>
        <dt>Members</dt><dd>${count(audience.included)}</dd>
        ${audience.pending_since && html`<dt>Waiting</dt><dd>${count(audience.pending)}, since <${Time} at=${audience.pending_since} /></dd>`}
        ${audience.held_since && html`<dt>Held by the guard</dt><dd>since <${Time} at=${audience.held_since} />: <code>cohortd guard list ${destination}</code></dd>`}
        ${audience.snapshot_at && html`<dt>Reconciled</dt><dd>with a file of <${Time} at=${audience.snapshot_at} /></dd>`}
        ${audience.parked_since && html`<dt>Parked</dt><dd>${count(audience.parked)}, since <${Time} at=${audience.parked_since} /></dd>`}
      </dl>
      <ul class="choices">
        ${isDelivered && (audience.under_way === "resync"
          ? html`<${Choice} ask=${asks.stop} onAsk=${onAsk}>Stops where it is; pending members are still delivered.<//>`
          : html`<${Choice} ask=${asks.resync} onAsk=${onAsk}>Sends every member to LaunchDarkly again: if somebody changed the segment by hand.<//>`)}
        ${isDelivered && html`<li><span>Reconcile with a file</span>
          <span class="muted">Brings the audience to what a file says, such as an export of who is in it. On a terminal:
          <code>cohortd reconcile ${destination} ${audience.audience} --file FILE --dry-run</code></span></li>`}
        ${isDelivered && html`<${Choice} ask=${asks.stale} onAsk=${onAsk}>After the mapping has changed to other context keys, and Segment has sent the audience again: removes the members under the old keys.<//>`}
        ${isDelivered && html`<${Choice} ask=${asks.retract} onAsk=${onAsk}>Removes every member from the segment, then forgets the audience.<//>`}
        <${Choice} ask=${asks.drop} onAsk=${onAsk}>Forgets the audience. Nothing is sent to LaunchDarkly: the segment stays as it is.<//>
      </ul>
      <div class="buttons end"><button onClick=${onClose}>Close</button></div>
    <//>`;
}

function Choice({ ask, onAsk, children }) {
  return html`<li><${Deed} class=${ask.danger ? "danger-quiet" : ""} onClick=${() => onAsk(ask)}>${ask.title}…<//>
    <span class="muted">${children}</span></li>`;
}

/** What can be done to an audience, or to all of them (`audience` is null). */
export function steer(destination, audience, name) {
  const post = (path, body) => change(of(destination, path), { audience, ...body });
  const whose = audience === null ? "every audience" : `“${name}”`;
  return {
    resync: {
      title: "Resync", verb: "Resync",
      body: html`<p>Every member of ${whose} is sent to LaunchDarkly once more, at the pace its limits allow. Nobody enters or leaves.</p>`,
      act: async () => `Resync started: ${many((await post("/resync", {})).count, "audience")}.`,
    },
    stop: {
      title: "Stop the resync", verb: "Stop",
      body: html`<p>The resync of ${whose} stops where it is. Members that are already pending are still delivered.</p>`,
      act: async () => `Resync stopped: ${many((await post("/resync", { stop: true })).count, "audience")}.`,
    },
    stale: {
      title: "Retract stale members", verb: "Retract", danger: true,
      body: html`<p>Members of ${whose} that the present mapping did not bring are removed from the segment and erased. An audience in which
          no member has arrived under the present mapping yet is left alone.</p>
        <label class="check"><input type="checkbox" name="force" /> Also where no member has arrived yet: all of them are removed</label>`,
      act: async ({ force }) => {
        const { count: done, left_alone: alone = [] } = await post("/resync", { retract_stale: true, force: force === "on" });
        const left = alone.length ? ` Left alone: ${alone.map((line) => line.split(":")[0]).join(", ")}; no member has arrived under the present mapping there.` : "";
        return `Stale members are being retracted: ${many(done, "audience")}.${left}`;
      },
    },
    retract: {
      title: "Retract and drop", verb: "Retract and drop", danger: true,
      body: html`<p>LaunchDarkly is told that everybody has left ${whose}; then the rows are erased. Flags that target the segment
          stop seeing its members. An event that Segment sends later starts the audience anew.</p>`,
      act: async () => `Members are being retracted: ${many((await post("/drop", { retract: true })).count, "audience")}.`,
    },
    drop: {
      title: "Drop", verb: "Drop", danger: true,
      body: html`<p>cohortd forgets ${whose}. Nothing is sent to LaunchDarkly: its segment keeps its members.</p>`,
      act: async () => `Dropped: ${many((await post("/drop", {})).count, "audience")}.`,
    },
  };
}
