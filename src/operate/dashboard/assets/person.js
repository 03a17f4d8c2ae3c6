// Every audience of a person: what should be, and what LaunchDarkly knows. Personal: nothing of it is kept
// by the page, or put into its address.

import { change, of, readAll } from "./api.js";
import { Deed } from "./dialogs.js";
import { html, segmentName, useEffect, useState, Time } from "./words.js";

export function Person({ known, onAsk }) {
  const destination = known.chosen;
  const [key, setKey] = useState("");
  const [found, setFound] = useState(null);
  const [problem, setProblem] = useState(null);
  const look = async (who) => {
    try {
      const members = await readAll(of(destination, `/members/${encodeURIComponent(who)}`));
      setFound({ key: who, members });
      setProblem(null);
    } catch (failure) {
      setProblem(failure.message);
    }
  };
  useEffect(() => { setFound(null); }, [destination]);
  const submit = (event) => {
    event.preventDefault();
    if (key !== "") look(key);
  };
  return html`
    <form class="toolbar" onSubmit=${submit}>
      <label class="field grow"><span>Context key or user id</span>
        <input name="key" value=${key} onInput=${(event) => setKey(event.target.value)} autocomplete="off" spellcheck="false" /></label>
      <div class="buttons bottom">
        <button type="submit" class="primary">Look up</button>
        <${Deed} type="button" class="danger-quiet" onClick=${() => onAsk(forget(destination, found?.key ?? key, () => found && look(found.key)))}>Forget a person…<//>
      </div>
    </form>
    ${problem && html`<p class="notice bad" role="alert">${problem}</p>`}
    <div aria-live="polite">
      ${found?.members.length === 0 && html`<p class="empty">Nobody here has the context key or user id “${found.key}”.</p>`}
      ${found?.members.length > 0 && html`<${Memberships} members=${found.members} />`}
      ${!found && html`<p class="empty">Shows which audiences a person is in, since when, and whether LaunchDarkly knows.</p>`}
    </div>`;
}

function Memberships({ members }) {
  return html`
    <table class="rows">
      <thead><tr><th scope="col">Audience</th><th scope="col">Person</th><th scope="col">Should be</th><th scope="col">As of</th>
        <th scope="col">LaunchDarkly knows</th></tr></thead>
      <tbody>
        ${members.map((one) => html`
          <tr key=${`${one.audience} ${one.context_key}`}>
            <th scope="row"><span class="name">${segmentName(one.audience_key)}</span><span class="id muted">${one.audience}</span></th>
            <td data-label="Person"><span class="key">${one.context_key}</span> <span class="muted small">${one.context_kind}</span></td>
            <td data-label="Should be"><span class=${`badge ${one.included ? "ok" : "none"}`}>${one.included ? "in" : "out"}</span></td>
            <td data-label="As of"><${Time} at=${one.event_at} /></td>
            <td data-label="LaunchDarkly">${told(one)}</td>
          </tr>`)}
      </tbody>
    </table>`;
}

function told({ told: value, told_at: at, pending, parked }) {
  if (parked) return html`<span class="badge bad">refused</span>`;
  const known = value === undefined || value === null
    ? html`<span class="badge none">nothing yet</span>`
    : html`<span class=${`badge ${value ? "ok" : "none"}`}>${value ? "in" : "out"}</span> <span class="muted small">since <${Time} at=${at} /></span>`;
  return html`${known} ${pending && html`<span class="badge warn">waits</span>`}`;
}

function forget(destination, who, after) {
  return {
    title: "Forget a person", verb: "Forget", danger: true,
    body: html`
      <p>The person is removed from every audience of ${destination} and erased once LaunchDarkly has been told. As with a deletion in Segment,
        older events do not bring them back.</p>
      <label class="field"><span>Segment’s user id</span><input name="user_id" required defaultValue=${who} autocomplete="off" spellcheck="false" /></label>`,
    act: async ({ user_id }) => {
      await change(of(destination, "/forget"), { user_id });
      after();
      return "The person is being forgotten.";
    },
  };
}
