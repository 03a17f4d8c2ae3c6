// Sends what a source of Segment would send for two people: host and write key are the arguments.
import { Analytics } from "@segment/analytics-node";

const [host, writeKey] = process.argv.slice(2);
const analytics = new Analytics({ host, writeKey, flushAt: 10, maxRetries: 2 });
analytics.on("error", (error) => {
  console.error(error.code);
  process.exitCode = 1;
});
const context = {
  personas: { computation_class: "audience", computation_id: "aud_vip", computation_key: "vip" },
};
const timestamp = new Date(1_750_000_000_000);
for (const userId of ["ada", "bob", "cyd"]) {
  analytics.identify({ userId, context, timestamp, traits: { vip: true } });
}
analytics.track({
  userId: "bob",
  event: "Audience Exited",
  context,
  timestamp: new Date(1_750_000_000_001),
  properties: { vip: false },
});
await analytics.closeAndFlush({ timeout: 10_000 });
