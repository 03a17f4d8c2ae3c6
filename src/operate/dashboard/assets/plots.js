// What the last hour looked like. uPlot draws; this decides what, and in which colours.

import { html, compact, count, rate, span, useEffect, useRef, useState, Time } from "./words.js";
import { HISTORY_S } from "./live.js";

const uPlot = globalThis.uPlot;
const dark = matchMedia("(prefers-color-scheme: dark)");

/** The colour that the style sheet gives a name in the present scheme. */
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** One canvas: made once for its element, its size and the scheme, and fed with data. */
function Canvas({ data, options, label, height }) {
  const place = useRef(null);
  const plot = useRef(null);
  const latest = useRef(data);
  latest.current = data;
  useEffect(() => {
    const make = () => {
      plot.current?.destroy();
      const width = Math.max(40, place.current.clientWidth);
      plot.current = new uPlot({ width, height, ...options() }, latest.current, place.current);
    };
    make();
    const resized = new ResizeObserver(() => {
      const width = Math.max(40, place.current.clientWidth);
      if (width !== plot.current.width) plot.current.setSize({ width, height });
    });
    resized.observe(place.current);
    dark.addEventListener("change", make);
    return () => {
      dark.removeEventListener("change", make);
      resized.disconnect();
      plot.current.destroy();
    };
  }, []);
  useEffect(() => plot.current.setData(data), [data]);
  return html`<div class="canvas" ref=${place} role="img" aria-label=${label}></div>`;
}

/** Times with a hole wherever the daemon did not run, and the series beside them. */
function withHoles(at, series, step) {
  const columns = [[], ...series.map(() => [])];
  at.forEach((time, index) => {
    if (index > 0 && time - at[index - 1] > 3 * step) {
      columns[0].push(at[index - 1] + step);
      series.forEach((_, of) => columns[of + 1].push(null));
    }
    columns[0].push(time);
    series.forEach((values, of) => columns[of + 1].push(values[index]));
  });
  return columns;
}

/** Between two lines of a grid: nothing that would be rounded to its neighbour. */
const STEPS = [0.1, ...[0, 1, 2, 3, 4, 5, 6, 7, 8].flatMap((power) => [1, 2, 5].map((digit) => digit * 10 ** power))];

/** The last minutes from now on backwards, but no more than there is to show. uPlot's own idea of the ends is a day if there is one point. */
function range(times) {
  const least = 150;
  const [first, last] = [times[0], times.at(-1)];
  return [Math.min(Math.max(first, last - HISTORY_S), last - least), last];
}

const fill = (name) => `${colour(name)}22`;

const clock = (seconds) => {
  const time = new Date(seconds * 1000);
  return `${String(time.getHours()).padStart(2, "0")}:${String(time.getMinutes()).padStart(2, "0")}`;
};

function axes(write) {
  const common = {
    stroke: colour("muted"), font: "11px system-ui, sans-serif",
    grid: { stroke: colour("grid"), width: 1 }, ticks: { show: false },
  };
  return [
    { ...common, size: 30, gap: 8, space: 48, incrs: [60, 120, 300, 600, 900, 1800], values: (_, splits) => splits.map(clock), grid: { show: false } },
    { ...common, size: 48, gap: 6, space: 32, incrs: STEPS, values: (_, splits) => splits.map(write) },
  ];
}

const SHADES = { held: "bad", paused: "warn" };

/** Shades the times in which nothing was delivered on purpose or by refusal. */
function shade(states) {
  return (plot) => {
    const { ctx, bbox } = plot;
    const { at, state } = states.current;
    at.forEach((time, index) => {
      const tint = SHADES[state[index]];
      if (index === 0 || !tint) return;
      const from = plot.valToPos(at[index - 1], "x", true);
      const to = plot.valToPos(time, "x", true);
      if (to < bbox.left) return;
      ctx.fillStyle = `${colour(tint)}26`;
      ctx.fillRect(Math.max(from, bbox.left), bbox.top, to - Math.max(from, bbox.left), bbox.height);
    });
  };
}

/** Whatever stands alone between holes, which no line would show. */
function alone(plot, of) {
  const values = plot.data[of];
  const isHole = (index) => values[index] === null || values[index] === undefined;
  return values.flatMap((_, index) => (!isHole(index) && isHole(index - 1) && isHole(index + 1) ? [index] : []));
}

function Plot({ title, unit, series, past, step, write }) {
  const [pointed, setPointed] = useState(null);
  const states = useRef(past);
  states.current = past;
  const data = withHoles(past.at, series.map((one) => one.values), step);
  const options = () => ({
    cursor: { drag: { x: false, y: false }, y: false, points: { size: 7 } },
    legend: { show: false },
    padding: [8, 16, 0, 0],
    scales: {
      x: { range: (plot) => range(plot.data[0]) },
      y: { range: (_, __, most) => [0, Math.max(most * 1.1, 1)] },
    },
    axes: axes(write),
    hooks: { drawClear: [shade(states)], setCursor: [(plot) => setPointed(plot.cursor.idx ?? null)] },
    series: [{}, ...series.map(({ name, tint }) => ({
      label: name, stroke: colour(tint), fill: fill(tint), width: 1.75, points: { show: true, size: 4, filter: alone },
    }))],
  });
  const last = (values) => values.findLast((value) => value !== null);
  const shown = series.map((one, of) => ({ ...one, now: last(one.values), at: data[of + 1][pointed] }));
  const at = pointed === null ? null : data[0][pointed];
  const known = (value) => value !== undefined && value !== null;
  const label = `${title}: ${shown.map(({ name, now }) => `${name} ${known(now) ? write(now) : "unknown"} ${unit}`).join(", ")}`;
  return html`
    <figure class="card plot">
      <figcaption>
        <h2><a class="plain" href=${METRICS} title="What is counted">${title}</a> <span class="muted">${unit}</span>
          ${at && html`<span class="muted at"><${Time} at=${new Date(at * 1000)} /></span>`}</h2>
        <ul class="legend">
          ${shown.map(({ name, tint, now, at: value = at ? null : now }) => html`
            <li key=${name}><span class=${`swatch ${tint}`}></span>${name} <b>${known(value) ? write(value) : "–"}</b></li>`)}
        </ul>
      </figcaption>
      ${past.at.length === 0
        ? html`<p class="empty">The first points appear within seconds.</p>`
        : html`<${Canvas} data=${data} options=${options} label=${label} height=${170} />`}
    </figure>`;
}

/** What the daemon counts. */
const METRICS = "/manual/metrics#every-metric";

/** The three plots of a destination. */
export function Plots({ past, step }) {
  const empty = { at: [], accepted: [], delivered: [], pending: [], call_p50_ms: [], call_p95_ms: [], state: [] };
  const known = past ?? empty;
  const perSecond = (values) => values.map((value) => value / step);
  return html`
    <section class="plots" aria-label="The last hour">
      <${Plot} title="Throughput" unit="per second" write=${rate} past=${known} step=${step} series=${[
        { name: "events accepted", tint: "series-a", values: perSecond(known.accepted) },
        { name: "members delivered", tint: "series-b", values: perSecond(known.delivered) },
      ]} />
      <${Plot} title="Waiting" unit="members" write=${compact} past=${known} step=${step} series=${[
        { name: "not delivered yet", tint: "series-c", values: known.pending },
      ]} />
      <${Plot} title="LaunchDarkly response time" unit="" write=${span} past=${known} step=${step} series=${[
        { name: "p50", tint: "series-a", values: known.call_p50_ms },
        { name: "p95", tint: "series-d", values: known.call_p95_ms },
      ]} />
    </section>`;
}

/** Who joined (up) and left (down) an audience, minute by minute. */
export function Sparkline({ history }) {
  if (!history) return html`<span class="muted quiet-hour">no change in the last hour</span>`;
  const total = (values) => values.reduce((sum, value) => sum + value, 0);
  const joined = total(history.joined);
  const left = total(history.left);
  const minutes = history.joined.map((_, index) => index);
  const data = [minutes, history.joined, history.left.map((value) => -value)];
  const most = Math.max(1, ...history.joined, ...history.left);
  const options = () => ({
    cursor: { show: false }, legend: { show: false }, padding: [2, 0, 2, 0],
    scales: { x: { time: false }, y: { range: (_, least, best) => {
      const reach = Math.max(1, best, -least);
      return [-reach, reach];
    } } },
    axes: [{ show: false }, { show: false }],
    series: [{}, ...["in", "out"].map((tint) => ({
      stroke: colour(tint), fill: colour(tint), width: 0, points: { show: false },
      paths: uPlot.paths.bars({ size: [0.8, 6, 1] }),
    }))],
  });
  const label = `In the last hour ${count(joined)} entered and ${count(left)} left, at most ${count(most)} in a minute`;
  return html`
    <span class="spark">
      <${Canvas} data=${data} options=${options} label=${label} height=${30} />
      <span class="turnover"><span class="in">+${compact(joined)}</span> <span class="out">−${compact(left)}</span></span>
    </span>`;
}
