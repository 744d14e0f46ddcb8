import { composer, element, events, find, following, notice, request, said, turn } from "./common.js";

const SETTINGS = "alidade-chat-settings";
const NUMBERS = ["temperature", "top_p", "max_tokens", "seed"];

let messages = [];
let answering = null;

const field = composer({ onSend: send, onStop: () => answering?.abort() });

async function send() {
  const text = field.text;
  if (answering || !text.trim()) return;
  const sampling = chosen();
  if (!sampling) return;
  notice("");
  answering = new AbortController();
  field.busy(true);
  field.text = "";
  find("empty").hidden = true;
  const question = turn("user", text);
  const shown = turn("assistant waiting", "");
  find("turns").append(question, shown);
  find("scroll").scrollTop = find("scroll").scrollHeight;
  const own = messages;
  own.push({ role: "user", content: text });
  const answer = { text: "", note: "", problem: "" };
  try {
    await receive({ ...sampling, messages: [...system(), ...own], stream: true }, answer, shown, answering.signal);
  } catch (error) {
    if (error.name === "AbortError") answer.note = "Stopped.";
    else answer.problem = said(error);
  }
  answering = null;
  field.busy(false);
  shown.classList.remove("waiting");
  if (own !== messages) return; // a new conversation was begun meanwhile
  if (answer.text) {
    own.push({ role: "assistant", content: answer.text });
    shown.lastChild.textContent = answer.problem || answer.note;
  } else {
    // Nothing came: the message can be mended, or sent again.
    own.pop();
    question.remove();
    shown.remove();
    find("empty").hidden = own.length > 0;
    if (!field.text) field.text = text;
    notice(answer.problem || (answer.note ? "" : "The model answered nothing."));
  }
  field.focus();
}

/** Fills in the answer as it comes. Throws when it does not come whole. */
async function receive(body, answer, shown, signal) {
  const response = await request("v1/chat/completions", { body, signal });
  let ended = false;
  for await (const data of events(response)) {
    if (data === "[DONE]") {
      ended = true;
      continue;
    }
    const event = JSON.parse(data);
    if (event.error) throw new Error(event.error.message ?? String(event.error));
    const choice = event.choices?.[0];
    if (choice?.delta?.content) {
      const follow = following();
      answer.text += choice.delta.content;
      shown.firstChild.append(choice.delta.content);
      follow();
    }
    if (choice?.finish_reason === "length") answer.note = "Cut off at the longest answer that is allowed.";
  }
  if (!ended) throw new Error("The answer broke off.");
}

function system() {
  const text = find("system").value;
  return text.trim() ? [{ role: "system", content: text }] : [];
}

/** What the settings say; nothing, with a notice, where one of them cannot be. */
function chosen() {
  const sampling = { model: find("model").value || document.body.dataset.name };
  for (const id of NUMBERS) {
    const input = find(id);
    if (!input.checkValidity()) {
      input.closest("details").open = true;
      input.reportValidity();
      return null;
    }
    if (input.value) sampling[id] = Number(input.value);
  }
  return sampling;
}

find("new").addEventListener("click", () => {
  answering?.abort();
  messages = [];
  find("turns").replaceChildren();
  find("empty").hidden = false;
  notice("");
  field.focus();
});

// Settings live as long as the tab.
const kept = JSON.parse(sessionStorage.getItem(SETTINGS) ?? "{}");
for (const id of [...NUMBERS, "system"]) {
  find(id).value = kept[id] ?? "";
}
find("settings").addEventListener("input", () => {
  sessionStorage.setItem(SETTINGS, JSON.stringify(Object.fromEntries([...NUMBERS, "system"].map((id) => [id, find(id).value]))));
});

try {
  const { data } = await (await request("v1/models")).json();
  const names = data.map((model) => model.id).filter((name) => name !== document.body.dataset.name);
  for (const name of [document.body.dataset.name, ...names]) {
    const option = element("option", "", name);
    option.value = name;
    find("model").append(option);
  }
  find("models").hidden = names.length === 0;
} catch (error) {
  notice(said(error));
}
