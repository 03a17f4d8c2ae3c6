// What can be done to a destination as a whole.

import { change, of } from "./api.js";
import { steer } from "./audiences.js";
import { Deed } from "./dialogs.js";
import { html } from "./words.js";

/** Stops the delivery, after asking; or lets it go on. */
export const pause = (destination) => ({
  title: "Pause delivery", verb: "Pause",
  body: html`<p>Nothing is delivered to ${destination}, even across restarts, until somebody resumes it. Events are accepted and kept.</p>`,
  act: async () => {
    await change(of(destination, "/pause"));
    return `${destination} is paused.`;
  },
});

export async function resume(destination) {
  await change(of(destination, "/resume"));
  return `Delivery to ${destination} has resumed.`;
}

export function Actions({ known, onAsk }) {
  const destination = known.chosen;
  const isDelivered = destination in known.status.destinations;
  const all = steer(destination, null, "");
  const whole = (ask) => ({ ...ask, title: `${ask.title}: all of ${destination}` });
  return html`
    <ul class="choices spacious">
      ${isDelivered && html`
        <${Choice} label="Resync…" onClick=${() => onAsk(whole(all.resync))}>
          Sends every member of every audience to LaunchDarkly again: after somebody changed segments by hand, or the environment was restored.<//>
        <${Choice} label="Stop the resync…" onClick=${() => onAsk(whole(all.stop))}>Stops where it is; pending members are still delivered.<//>
        <${Choice} label="Retract stale members…" danger onClick=${() => onAsk(whole(all.stale))}>
          After the mapping has changed to other context keys, and Segment has sent its audiences again: removes the members that only the old mapping brought.<//>
        <${Choice} label="Retract and drop…" danger onClick=${() => onAsk(whole(all.retract))}>
          Removes every member from every segment of this destination, then forgets the audiences.<//>`}
      <${Choice} label="Drop…" danger onClick=${() => onAsk(whole(all.drop))}>
        ${isDelivered ? "Forgets every audience. Nothing is sent to LaunchDarkly: its segments stay as they are." : "Deletes its rows. If the destination was renamed in the configuration, use cohortd ledger rename instead."}<//>
    </ul>`;
}

function Choice({ label, danger, onClick, children }) {
  return html`<li><${Deed} class=${danger ? "danger-quiet" : ""} onClick=${onClick}>${label}<//><span class="muted">${children}</span></li>`;
}
