// Paste an event, see what becomes of it and why, and send it.

import { Problem, of, postText } from "./api.js";
import { Deed } from "./dialogs.js";
import { count, html, many, sentence, useEffect, useState, Time } from "./words.js";

const SAMPLE = (now) => JSON.stringify({
  type: "identify",
  messageId: `dashboard-${now.getTime()}`,
  userId: "ada",
  timestamp: now.toISOString(),
  context: { personas: { computation_class: "audience", computation_id: "aud_beta_testers", computation_key: "beta_testers" } },
  traits: { beta_testers: true, email: "ada@example.com" },
}, null, 2);

export function Tester({ known, event, onEvent, onAsk }) {
  const destination = known.chosen;
  const [shown, setShown] = useState(null);
  const [problem, setProblem] = useState(null);
  useEffect(() => setShown(null), [destination]);
  const post = async (path) => {
    JSON.parse(event);
    const { status, json } = await postText(of(destination, path), event);
    if (json === null) throw new Problem(status, `The daemon answered ${status}.`);
    return json;
  };
  const explain = async (submitted) => {
    submitted.preventDefault();
    setShown(null);
    setProblem(null);
    try {
      setShown({ explanation: await post("/explain") });
    } catch (failure) {
      setProblem(said(failure));
    }
  };
  const send = () => onAsk({
    title: "Send the event", verb: "Send", 
    body: html`<p>It is recorded as if Segment had sent it to ${destination}, and what it changes is delivered to LaunchDarkly.</p>`,
    act: async () => {
      try {
        const account = await post("/events");
        setShown({ account });
        setProblem(null);
        return `${many(account.accepted, "event")} accepted, ${count(account.ignored)} ignored, ${count(account.rejected.length)} rejected.`;
      } catch (failure) {
        throw new Problem(failure.status ?? 0, said(failure));
      }
    },
  });
  return html`
    <form class="tester" onSubmit=${explain}>
      <label class="field"><span>Event, as Segment sends it</span>
        <textarea name="event" rows="14" spellcheck="false" autocomplete="off" value=${event} onInput=${(input) => onEvent(input.target.value)}
          placeholder='{"type":"identify", …}'></textarea></label>
      <div class="buttons">
        <button type="submit" class="primary" disabled=${event.trim() === ""}>Explain</button>
        <${Deed} type="button" onClick=${send} disabled=${event.trim() === ""}>Send…<//>
        <button type="button" class="quiet" onClick=${() => onEvent(SAMPLE(new Date()))}>Insert a sample</button>
      </div>
    </form>
    <div class="answer" aria-live="polite">
      ${problem && html`<p class="notice bad" role="alert">${problem}</p>`}
      ${shown?.account && html`<${Account} account=${shown.account} />`}
      ${shown?.explanation && html`<${Explanation} explanation=${shown.explanation} />`}
      ${!shown && !problem && html`<p class="empty">Explaining records nothing and sends nothing.</p>`}
    </div>`;
}

const said = (failure) => (failure instanceof SyntaxError ? `This is not JSON: ${failure.message}` : failure.message);

const TINTS = { accepted: "ok", ignored: "none", rejected: "bad" };

function Account({ account }) {
  const { accepted, rejected } = account;
  const outcome = accepted > 0 ? "accepted" : rejected.length > 0 ? "rejected" : "ignored";
  return html`
    <section class="outcome" aria-label="What became of the event">
      <h2>Sent: <span class=${`badge ${TINTS[outcome]}`}>${outcome}</span></h2>
      ${rejected.map(({ reason }) => html`<p key=${reason}>${sentence(reason)}</p>`)}
    </section>`;
}

function Explanation({ explanation: { outcome, reason, mappings } }) {
  return html`
    <section class="outcome" aria-label="Explanation">
      <h2>It would be <span class=${`badge ${TINTS[outcome]}`}>${outcome}</span></h2>
      ${reason && html`<p>${sentence(reason)}</p>`}
      ${mappings.map((mapping, index) => html`<${Mapping} key=${index} number=${index + 1} of=${mappings.length} mapping=${mapping} />`)}
    </section>`;
}

function Mapping({ number, of: all, mapping }) {
  const { subscription, why_not: whyNot, fields, delta, rejection, request } = mapping;
  return html`
    <section class="mapping">
      <h3>${all > 1 ? `Mapping ${number}` : "The mapping"} selects events with <code>${subscription}</code></h3>
      ${whyNot && html`<p>It does not select this one: ${whyNot}.</p>`}
      ${delta && html`<p class="delta"><b>${delta.context_kind} ${delta.context_key}</b> ${delta.included ? "enters" : "leaves"} <b>${delta.segment}</b>${" "}
        <span class="muted">(${delta.audience_id}, as of <${Time} at=${delta.event_at} />)</span></p>`}
      ${rejection && html`<p class="notice bad">${sentence(rejection)}</p>`}
      ${!delta && !rejection && !whyNot && html`<p>It leaves out the event’s audience.</p>`}
      ${fields.length > 0 && html`
        <table class="rows small">
          <thead><tr><th scope="col">Field</th><th scope="col">Value</th><th scope="col">From</th></tr></thead>
          <tbody>${fields.map(({ field, from, value, problem }) => html`
            <tr key=${field}><th scope="row"><code>${field}</code></th>
              <td data-label="Value" class="value">${problem ? html`<span class="bad">${problem}</span>`
                : value === null || value === undefined ? html`<span class="muted">nothing</span>` : html`<code>${JSON.stringify(value)}</code>`}</td>
              <td data-label="From" class="muted">${from}</td></tr>`)}</tbody>
        </table>`}
      ${request && html`<details><summary>The request LaunchDarkly would get</summary>
        <pre tabindex="0">${request.method} ${request.url}${"\n\n"}${JSON.stringify(request.body, null, 2)}</pre></details>`}
    </section>`;
}
