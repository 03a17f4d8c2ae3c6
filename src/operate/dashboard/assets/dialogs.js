// Dialogs that ask before something is changed, the buttons that lead there, and the line that says what was
// done.

import { createContext, html, useContext, useLayoutEffect, useRef, useState } from "./words.js";

/** Whether the token may change anything. */
export const MayChange = createContext(true);

/** A button to something that changes things: of no use with a token that may only read. */
export function Deed({ children, disabled, ...rest }) {
  const mayChange = useContext(MayChange);
  const title = mayChange ? undefined : "This token is read-only";
  return html`<button ...${rest} disabled=${disabled || !mayChange} title=${title}>${children}</button>`;
}

/** A modal dialog; the browser keeps the focus inside and gives it back afterwards. */
export function Dialog({ title, onClose, children }) {
  const dialog = useRef(null);
  useLayoutEffect(() => {
    dialog.current.showModal();
  }, []);
  const onClick = (event) => event.target === dialog.current && dialog.current.close();
  return html`
    <dialog ref=${dialog} aria-labelledby="dialog-title" onClose=${onClose} onClick=${onClick}>
      <div class="dialog-body">
        <h2 id="dialog-title">${title}</h2>
        ${children}
      </div>
    </dialog>`;
}

/**
 * Asks before a change. `ask.act` makes it, given what the fields hold, and returns the line that says what
 * was done; a problem is shown and the dialog stays.
 */
export function Confirm({ ask, onDone, onClose }) {
  const [problem, setProblem] = useState(null);
  const [isBusy, setBusy] = useState(false);
  const form = useRef(null);
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    setProblem(null);
    try {
      onDone(await ask.act(Object.fromEntries(new FormData(form.current))));
    } catch (failure) {
      setProblem(failure.message);
      setBusy(false);
    }
  };
  return html`
    <${Dialog} title=${ask.title} onClose=${onClose}>
      <form ref=${form} onSubmit=${submit}>
        ${ask.body}
        ${problem && html`<p class="notice bad" role="alert">${problem}</p>`}
        <div class="buttons end">
          <button type="button" onClick=${onClose}>Cancel</button>
          <button type="submit" class=${ask.danger ? "danger" : "primary"} disabled=${isBusy}>${ask.verb}</button>
        </div>
      </form>
    <//>`;
}

/** Says what was done, also to those who do not see it. */
export function Said({ line, onClose }) {
  return html`
    <div class="said" role="status" aria-live="polite">
      ${line && html`
        <div class=${`said-line ${line.isBad ? "bad" : ""}`}>
          <span>${line.text}</span>
          <button class="quiet" onClick=${onClose} aria-label="Dismiss">✕</button>
        </div>`}
    </div>`;
}
