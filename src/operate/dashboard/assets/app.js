// The page: the head, the verdict, the numbers, the plots, and the panels beneath them.

import { Actions, pause, resume } from "./actions.js";
import { daemonNow, token } from "./api.js";
import { Audiences } from "./audiences.js";
import { Destinations, Summary, useTab } from "./destinations.js";
import { Confirm, MayChange, Said } from "./dialogs.js";
import { Live } from "./live.js";
import { Tiles, Verdict } from "./overview.js";
import { Parked } from "./parked.js";
import { Person } from "./person.js";
import { Plots } from "./plots.js";
import { Rejected } from "./rejected.js";
import { RefusedConfiguration } from "./setup.js";
import { Tester } from "./tester.js";
import { count, html, render, useEffect, useRef, useState, Time } from "./words.js";

/** How long the line that says what was done stays. */
const SAID_MS = 8000;

const PANELS = {
  audiences: ["Audiences", Audiences],
  parked: ["Parked", Parked],
  rejected: ["Rejected", Rejected],
  person: ["Person", Person],
  tester: ["Event tester", Tester],
  actions: ["Actions", Actions],
};

/** What the address names: a destination and a panel, nothing personal. */
function place() {
  const [destination = "", panel = ""] = location.hash.slice(1).split("/").map(decodeURIComponent);
  return { destination, panel: panel in PANELS ? panel : "audiences" };
}

function App({ live }) {
  const [known, setKnown] = useState(live.known);
  const [at, setAt] = useState(place());
  const [ask, setAsk] = useState(null);
  const [line, setLine] = useState(null);
  const [event, setEvent] = useState("");
  const [now, setNow] = useState(daemonNow());
  useEffect(() => {
    live.show = (news) => {
      setKnown(news);
      setNow(daemonNow());
    };
    const moved = () => setAt(place());
    addEventListener("hashchange", moved);
    live.known.chosen = place().destination || null;
    live.wake();
    return () => removeEventListener("hashchange", moved);
  }, []);
  useEffect(() => { if (at.destination) live.choose(at.destination); }, [at.destination]);
  useEffect(() => {
    if (!line) return undefined;
    const timer = setTimeout(() => setLine(null), SAID_MS);
    return () => clearTimeout(timer);
  }, [line]);

  useTab(known);
  const go = (destination, panel) => { location.hash = `${encodeURIComponent(destination)}/${panel}`; };
  const say = (text, isBad = false) => {
    setLine({ text, isBad });
    live.wake();
  };
  const forgetToken = () => {
    token.forget();
    location.reload();
  };

  let page;
  if (known.needsToken) {
    page = html`<${Token} wasRefused=${known.tokenRefused} onToken=${(text) => { token.set(text); live.wake(); }} />`;
  } else if (!known.status) {
    page = html`<main><${Trouble} known=${known} /><p class="empty">Asking the daemon…</p></main>`;
  } else {
    const notices = html`
      <${Trouble} known=${known} />
      ${known.power === "read" && html`
        <p class="notice warn"><b>Read only.</b> This token is one of <code>admin.read_tokens</code>: it shows everything but the
          content of rejected events, and cannot change anything. To change something, forget it and open the page with one of
          <code>admin.tokens</code>.</p>`}`;
    page = known.chosen === null
      ? html`<main>${notices}<p class="empty">No destination is configured, and the ledger holds none.</p></main>`
      : html`<${Page} known=${known} now=${now} panel=${at.panel} event=${event} notices=${notices} onEvent=${setEvent}
          onGo=${go} onAsk=${setAsk} onSaid=${say} />`;
  }
  return html`
    <${Head} known=${known} onForgetToken=${token.get() && !known.needsToken ? forgetToken : null} />
    <${MayChange.Provider} value=${known.power === "operate"}>${page}<//>
    ${(known.status || known.needsToken) && html`
      <footer class="muted small">cohortd ${known.status?.version ?? ""} · <a href="/manual">manual</a> · <a href="/assets/vendor/LICENSES.txt">libraries and licences</a></footer>`}
    ${ask && html`<${Confirm} ask=${ask} onClose=${() => setAsk(null)} onDone=${(text) => { setAsk(null); say(text); }} />`}
    <${Said} line=${line} onClose=${() => setLine(null)} />`;
}

function Head({ known, onForgetToken }) {
  const isLive = known.status && !known.failing && !known.needsToken;
  return html`
    <header class="head">
      <p class="brand"><img src="/assets/icon.svg" alt="" width="26" height="26" />cohortd</p>
      ${known.status && !known.needsToken && html`<${Summary} known=${known} />`}
      <div class="head-end">
        ${isLive && html`<span class="live"><span class="dot ok pulse"></span>Live <span class="muted">· <${Time} at=${new Date(known.answeredAt)} /></span></span>`}
        ${onForgetToken && html`<button class="quiet" onClick=${onForgetToken}>Forget the token</button>`}
      </div>
    </header>`;
}

/** What is wrong with the daemon itself. */
function Trouble({ known }) {
  const { failing, status } = known;
  const from = failing && html`since <${Time} at=${new Date(failing.since)} />`;
  return html`
    <div role="alert" class="trouble">
      ${failing && (failing.status === 0
        ? html`<p class="notice bad"><b>Cannot reach the daemon ${from}.</b> It is asked again every second; the page shows the last known state.</p>`
        : html`<p class="notice bad"><b>The daemon answers ${failing.status} ${from}.</b> ${failing.detail}</p>`)}
      ${!failing && status && !status.ready && html`
        <p class="notice bad"><b>Events are not accepted at the moment.</b> The daemon is starting or stopping, or the disk of the ledger is full; Segment retries for hours.</p>`}
      ${!failing && status && status.clock && html`
        <p class="notice bad"><b>The clock is wrong, by ${Math.round(status.clock.ahead_ms / 1000)} s.</b> What that means: ${status.clock.why}.</p>`}
      ${!failing && status && html`<${RefusedConfiguration} configuration=${status.configuration} />`}
    </div>`;
}

function Token({ wasRefused, onToken }) {
  const submit = (event) => {
    event.preventDefault();
    onToken(new FormData(event.target).get("token").trim());
  };
  return html`
    <main class="narrow">
      <form class="card" onSubmit=${submit}>
        <h1>Token</h1>
        <p class="muted">One of <code>admin.tokens</code>, or one of <code>admin.read_tokens</code> for read-only access. It is kept until this tab is closed, and sent to this daemon only.</p>
        <label class="field"><span>Token</span><input type="password" name="token" required autocomplete="off" autofocus /></label>
        ${wasRefused && html`<p class="notice bad" role="alert">The daemon does not accept this token.</p>`}
        <div class="buttons end"><button type="submit" class="primary">Open</button></div>
      </form>
    </main>`;
}

function Page({ known, now, panel, event, notices, onEvent, onGo, onAsk, onSaid }) {
  const { chosen } = known;
  const onResume = async () => {
    try {
      onSaid(await resume(chosen));
    } catch (failure) {
      onSaid(failure.message, true);
    }
  };
  const onTest = (text) => {
    onEvent(text);
    onGo(chosen, "tester");
  };
  const [, Panel] = PANELS[panel];
  // What grows and shrinks with the news has a column of its own: buttons of the other one stay where they are.
  return html`
    <main class=${`columns ${known.failing ? "stale" : ""}`}>
      <div class="column">
        ${notices}
        <${Destinations} known=${known} onChoose=${(name) => onGo(name, panel)} />
        <${Verdict} known=${known} now=${now} onPause=${() => onAsk(pause(chosen))} onResume=${onResume} />
      </div>
      <div class="column">
        <${Tiles} known=${known} />
        ${chosen in known.status.destinations && html`<${Plots} key=${chosen} past=${known.histories[chosen]} step=${known.stepSeconds} />`}
        <section class="card panels">
          <${Tabs} known=${known} panel=${panel} onGo=${(name) => onGo(chosen, name)} />
          <div role="tabpanel" id="panel" aria-labelledby=${`tab-${panel}`} class="panel">
            <${Panel} key=${chosen} known=${known} now=${now} event=${event} onEvent=${onEvent} onAsk=${onAsk} onSaid=${onSaid} onTest=${onTest} />
          </div>
        </section>
      </div>
    </main>`;
}

/** Tabs as the guidelines have them: one stop for the tab key, arrows between them. */
function Tabs({ known, panel, onGo }) {
  const list = useRef(null);
  const counts = known.destinations.find((one) => one.name === known.chosen);
  const names = Object.keys(PANELS);
  const move = (event) => {
    const steps = { ArrowRight: 1, ArrowLeft: -1, Home: -names.indexOf(panel), End: names.length - 1 - names.indexOf(panel) };
    const step = steps[event.key];
    if (step === undefined) return;
    event.preventDefault();
    const next = names[(names.indexOf(panel) + step + names.length) % names.length];
    onGo(next);
    list.current.querySelector(`#tab-${next}`).focus();
  };
  return html`
    <div class="tabs" role="tablist" aria-label="Details" ref=${list} onKeyDown=${move}>
      ${names.map((name) => {
        const isCounted = name === "parked" || name === "rejected";
        const number = isCounted ? counts?.[name] ?? 0 : 0;
        return html`
          <button key=${name} role="tab" id=${`tab-${name}`} aria-selected=${name === panel ? "true" : "false"} aria-controls="panel"
            tabindex=${name === panel ? 0 : -1} onClick=${() => onGo(name)}>
            ${PANELS[name][0]}${isCounted && html` <span class=${`tag warn ${number > 0 ? "" : "absent"}`}>${number > 0 ? count(number) : ""}</span>`}
          </button>`;
      })}
    </div>`;
}

const live = new Live(() => {});
render(html`<${App} live=${live} />`, document.getElementById("app"));
