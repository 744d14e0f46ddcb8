// What both pages share: the key, requests that stream, the field that is written in. All text is set as text.

const KEY = "alidade-key";

export const find = (id) => document.getElementById(id);

/** An answer that says no, with the server's sentence. */
export class Refused extends Error {
  constructor(status, sentence) {
    super(sentence);
    this.status = status;
  }
}

/** A request beside the page, wherever a proxy has put both. Asks for the key where one is needed, unless the request is a quiet one. */
export async function request(path, { body, signal, quiet } = {}) {
  for (;;) {
    const headers = {};
    const key = sessionStorage.getItem(KEY);
    if (key) headers.Authorization = `Bearer ${key}`;
    if (body !== undefined) headers["Content-Type"] = "application/json";
    const response = await fetch(path, {
      method: body === undefined ? "GET" : "POST",
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
      cache: "no-store",
    });
    if (response.ok) return response;
    if (response.status !== 401 || quiet) throw new Refused(response.status, await sentence(response));
    await askForKey(key !== null);
  }
}

async function sentence(response) {
  try {
    const { error } = await response.json();
    const said = typeof error === "string" ? error : error.message;
    if (typeof said === "string" && said) return said;
  } catch {
    // Not every proxy on the way speaks JSON; the status is said below.
  }
  return `The server answered with an error (${response.status}).`;
}

let asked = null;

/** Resolves once a key was entered, for all who wait for one; rejects when the person does not want to. */
function askForKey(wrong) {
  asked ??= new Promise((resolve, reject) => {
    const dialog = document.createElement("dialog");
    const form = document.createElement("form");
    form.method = "dialog";
    const text = document.createElement("p");
    text.textContent = wrong ? "This key is not accepted. Another one?" : "A key is needed. It is kept until this tab is closed.";
    const input = document.createElement("input");
    input.type = "password";
    input.required = true;
    input.autocomplete = "off";
    input.setAttribute("aria-label", "Key");
    const button = document.createElement("button");
    button.className = "main";
    button.textContent = "Go on";
    form.append(text, input, button);
    dialog.append(form);
    document.body.append(dialog);
    dialog.addEventListener("close", () => {
      const key = input.value.trim();
      dialog.remove();
      asked = null;
      if (dialog.returnValue === "cancelled" || !/^[\x21-\x7e]+$/.test(key)) {
        reject(new Refused(401, "A key is needed; send again to enter it."));
      } else {
        sessionStorage.setItem(KEY, key);
        resolve();
      }
    });
    dialog.addEventListener("cancel", () => { dialog.returnValue = "cancelled"; });
    dialog.showModal();
  });
  return asked;
}

/** The data of each server-sent event of an answer, as text. */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line.startsWith("data:")) yield line.slice(5).trim();
    }
  }
}

/** A sentence for whatever went wrong. */
export function said(error) {
  if (error instanceof Refused) return error.message;
  if (error instanceof TypeError) return "The server cannot be reached, or the connection broke off; try again.";
  return error.message || String(error);
}

export function notice(text) {
  find("notice").textContent = text;
  find("notice").hidden = !text;
}

export function element(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

/** A turn of a conversation, as it is shown. */
export function turn(role, text) {
  const item = element("li", `turn ${role}`);
  item.append(element("div", "text", text), element("div", "note"));
  return item;
}

/** Keeps what is being written in sight, unless the person has scrolled away. */
export function following() {
  const scroll = find("scroll");
  const near = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 80;
  return () => { if (near) scroll.scrollTop = scroll.scrollHeight; };
}

/** The field for messages: grows with its text; Enter sends, Shift+Enter does not, Esc stops. */
export function composer({ onSend, onStop }) {
  const field = find("message");
  const grow = () => {
    field.style.height = "auto";
    field.style.height = `${field.scrollHeight + 2}px`;
  };
  field.addEventListener("input", grow);
  field.addEventListener("keydown", (event) => {
    // While characters are being composed, Enter is the input method's.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    onSend();
  });
  find("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    onSend();
  });
  find("stop").addEventListener("click", onStop);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !document.querySelector("dialog[open]")) onStop();
  });
  return {
    get text() { return field.value; },
    set text(value) { field.value = value; grow(); },
    // On a phone the focus would bring up the keyboard, over what has just been answered.
    focus: () => { if (matchMedia("(pointer: fine)").matches) field.focus(); },
    busy(is) {
      find("send").hidden = is;
      find("stop").hidden = !is;
    },
  };
}
