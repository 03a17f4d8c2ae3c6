// How numbers, times and spans are written; and the one door to the libraries.

const { createContext, h, render } = globalThis.preact;
const { useContext, useEffect, useLayoutEffect, useMemo, useRef, useState } = globalThis.preactHooks;
const html = globalThis.htm.bind(h);
export { createContext, html, render, useContext, useEffect, useLayoutEffect, useMemo, useRef, useState };

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const year = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });

/** 12345 as "12,345". */
export const count = (number) => whole.format(number ?? 0);

/** 12345 as "12.3K", for axes and narrow places. */
export const compact = (number) => short.format(number ?? 0);

/** "1 member", "2 members". */
export const many = (number, one, more = `${one}s`) => `${count(number)} ${number === 1 ? one : more}`;

/** A rate with as many digits as it deserves. */
export function rate(perSecond) {
  if (perSecond === 0) return "0";
  if (perSecond < 0.1) return "< 0.1";
  return perSecond < 10 ? String(Number(perSecond.toFixed(1))) : compact(perSecond);
}

/** Milliseconds as a person says them: "240 ms", "3.2 s", "4 min", "2 h 5 min". */
export function span(milliseconds) {
  if (milliseconds < 1000) return `${Math.round(milliseconds)} ms`;
  const seconds = milliseconds / 1000;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 120) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return `${Math.floor(hours / 24)} days`;
}

/** A time of RFC 3339, or microseconds of the epoch, or milliseconds in a Date. */
function date(time) {
  if (typeof time === "number") return new Date(time / 1000);
  return time instanceof Date ? time : new Date(time);
}

/** How long ago, from the daemon's point of view. */
export const since = (time, now) => span(Math.max(0, now - date(time).getTime()));

/** A point in time: the clock today, with the day before. */
export function Time({ at }) {
  const time = date(at);
  if (Number.isNaN(time.getTime())) return html`<span>–</span>`;
  const now = new Date();
  const isToday = time.toDateString() === now.toDateString();
  const before = time.getFullYear() === now.getFullYear() ? day.format(time) : year.format(time);
  const text = isToday ? clock.format(time) : `${before}, ${clock.format(time)}`;
  return html`<time datetime=${time.toISOString()} title=${time.toISOString()}>${text}</time>`;
}

/** The segment's name in LaunchDarkly, as the daemon makes it of the audience's key. */
export function segmentName(key) {
  const spaced = key.replaceAll("_", " ");
  const [first = ""] = spaced;
  return first.toUpperCase() + spaced.slice(first.length);
}

/** With a capital and a full stop. */
export function sentence(text) {
  const trimmed = text.trim();
  if (trimmed === "") return "";
  const end = /[.!?]$/.test(trimmed) ? "" : ".";
  return trimmed[0].toUpperCase() + trimmed.slice(1) + end;
}
