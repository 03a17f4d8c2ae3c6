// Members that LaunchDarkly refused, each with its words, to be tried again or given up.

import { change, of, read } from "./api.js";
import { Deed } from "./dialogs.js";
import { count, html, many, segmentName, useEffect, useState, Time } from "./words.js";

const PAGE = 50;

export function Parked({ known, onAsk, onSaid }) {
  const destination = known.chosen;
  const [list, setList] = useState(null);
  const [problem, setProblem] = useState(null);
  const total = known.destinations.find((one) => one.name === destination)?.parked ?? 0;
  const load = async (behind) => {
    const query = { limit: PAGE, after_audience: behind?.audience, after_key: behind?.context_key };
    try {
      const page = await read(of(destination, "/parked"), query);
      setList((before) => ({ items: behind ? [...before.items, ...page.parked] : page.parked, more: page.more, total }));
      setProblem(null);
    } catch (failure) {
      setProblem(failure.message);
    }
  };
  // The count comes with every look: whenever it gets less, the list is another one. Rows do not move under a hand:
  // what has come since is shown when it is asked for.
  const isNews = list !== null && list.items.length > 0 && total > list.total;
  useEffect(() => { if (!isNews) load(); }, [destination, total]);
  if (problem) return html`<p class="notice bad" role="alert">${problem}</p>`;
  if (!list) return html`<p class="empty">Asking…</p>`;
  if (list.items.length === 0) return html`<p class="empty good">LaunchDarkly has refused no member.</p>`;
  const name = (id) => {
    const key = known.audiences[destination]?.find((one) => one.audience === id)?.audience_key;
    return key ? segmentName(key) : id;
  };
  const post = async (deed, body, done) => {
    try {
      const { count: members } = await change(of(destination, `/parked/${deed}`), body);
      onSaid(`${many(members, "member")} ${done}.`);
    } catch (failure) {
      onSaid(failure.message, true);
    }
    await load();
  };
  const discard = (body, whom) => onAsk({
    title: "Discard", verb: "Discard", danger: true,
    body: html`<p>cohortd forgets ${whom} until Segment sends another change. Nothing is sent to LaunchDarkly.</p>`,
    act: async () => {
      const { count: members } = await change(of(destination, "/parked/discard"), body);
      await load();
      return `${many(members, "member")} discarded.`;
    },
  });
  return html`
    <div class="toolbar">
      <p class="grow muted">LaunchDarkly refused ${total === 1 ? "this member" : "these members"} individually; the others in the same calls were delivered. Fix what its messages say, then requeue.</p>
      <div class="buttons">
        <button class=${isNews ? "" : "absent"} onClick=${() => load()}>Show new ones</button>
        <${Deed} onClick=${() => post("requeue", {}, "requeued")}>Requeue all<//>
        <${Deed} class="danger-quiet" onClick=${() => discard({}, many(total, "parked member"))}>Discard all…<//>
      </div>
    </div>
    <table class="rows">
      <thead><tr><th scope="col">Person</th><th scope="col">Audience</th><th scope="col">Refused</th><th scope="col">LaunchDarkly’s message</th>
        <th scope="col"><span class="visually-hidden">Actions</span></th></tr></thead>
      <tbody>
        ${list.items.map((one) => {
          const which = { audience: one.audience, context_key: one.context_key };
          return html`
            <tr key=${`${one.audience} ${one.context_key}`}>
              <th scope="row" class="key">${one.context_key}</th>
              <td data-label="Audience">${name(one.audience)}</td>
              <td data-label="Refused"><${Time} at=${one.parked_at} /></td>
              <td data-label="Message"><span class="words">${one.status} ${one.code}${one.message ? `: ${one.message}` : ""}</span>
                ${one.answer_id && html`<span class="muted small block">id <code>${one.answer_id}</code></span>`}</td>
              <td class="action"><div class="buttons">
                <${Deed} onClick=${() => post("requeue", which, "requeued")} aria-label=${`Requeue ${one.context_key}`}>Requeue<//>
                <${Deed} class="danger-quiet" onClick=${() => discard(which, "this member")} aria-label=${`Discard ${one.context_key}`}>Discard…<//>
              </div></td>
            </tr>`;
        })}
      </tbody>
    </table>
    ${list.more && html`<p class="more"><button onClick=${() => load(list.items.at(-1))}>Show more</button>
      <span class="muted">${count(list.items.length)} of ${count(total)}</span></p>`}`;
}
