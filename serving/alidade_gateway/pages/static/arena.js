import { composer, element, events, find, following, notice, request, said, turn } from "./common.js";

const API = "arena/api";
const KEYS = {
  1: "left", 2: "right", 3: "tie", 4: "both_bad", ArrowLeft: "left", ArrowRight: "right", ArrowUp: "tie", ArrowDown: "both_bad",
};
const SIDES = ["left", "right"];
const TITLES = { left: "Left", right: "Right" };
const LOOK_AGAIN_MS = 10_000;

let asking = null; // while answers come
let comparison = null; // that waits for a vote
let voted = null; // the last one that can be followed up

const field = composer({ onSend: ask, onStop: () => asking?.abort() });
const part = (side, name) => find(side).querySelector(name);

async function ask() {
  const text = field.text;
  if (asking || comparison || !text.trim()) return;
  const after = voted && find("follows").checked ? voted : null;
  notice("");
  asking = new AbortController();
  field.busy(true);
  field.text = "";
  begin(text, after);
  const seen = { id: null, answered: false, alike: false };
  let problem = "";
  try {
    await receive({ message: text, ...(after ? { after: after.id } : {}) }, seen, asking.signal);
  } catch (error) {
    problem = error.name === "AbortError" ? "Stopped; there is nothing to vote on. Ask again." : said(error);
  }
  asking = null;
  field.busy(false);
  for (const side of SIDES) find(side).classList.remove("waiting");
  if (seen.answered) {
    comparison = { id: seen.id, text };
    offerVote(seen.alike);
    return;
  }
  notice(problem || "There are no two answers to vote on.");
  if (!field.text) field.text = text;
  field.focus();
}

function begin(text, after) {
  find("empty").hidden = true;
  find("follow").hidden = true;
  if (after) find("question").append(turn("assistant", after.text));
  else find("question").replaceChildren();
  if (!after) voted = null;
  find("question").append(turn("user", text));
  find("answers").hidden = false;
  for (const side of SIDES) {
    find(side).className = "answer waiting";
    part(side, "h2").textContent = TITLES[side];
    for (const name of [".model", ".text", ".note"]) part(side, name).textContent = "";
  }
  find("answers").scrollIntoView({ block: "nearest" });
}

async function receive(body, seen, signal) {
  const response = await request(`${API}/comparisons`, { body, signal });
  let ended = false;
  for await (const data of events(response)) {
    const event = JSON.parse(data);
    if (event.id) seen.id = event.id;
    if (event.text) {
      const follow = following();
      part(event.side, ".text").append(event.text);
      follow();
    }
    if (event.ended || event.failed) find(event.side).classList.remove("waiting");
    if (event.failed) part(event.side, ".note").textContent = event.failed;
    if ("answered" in event) {
      ended = true;
      seen.answered = event.answered;
      seen.alike = Boolean(event.alike);
    }
  }
  if (!ended) throw new Error("The answers broke off; ask again.");
}

function offerVote(alike) {
  find("asking").hidden = true;
  find("vote").hidden = false;
  for (const side of SIDES) {
    find("vote").querySelector(`[data-vote=${side}]`).disabled = alike;
    if (!part(side, ".text").textContent.trim()) part(side, ".note").textContent = "An empty answer.";
  }
  if (alike) notice("Both answers are the same.");
  find("vote").focus(); // so that keys vote
}

let voting = false;

async function vote(verdict) {
  if (!comparison || voting) return;
  if (find("vote").querySelector(`[data-vote=${verdict}]`).disabled) return;
  voting = true;
  notice("");
  try {
    const told = await (await request(`${API}/comparisons/${comparison.id}/vote`, { body: { vote: verdict } })).json();
    reveal(told);
    const better = verdict === "right" ? "right" : "left";
    voted = verdict === "both_bad" ? null : { id: comparison.id, text: part(better, ".text").textContent };
    done();
    showRatings();
  } catch (error) {
    notice(said(error));
    // What is not there any more, or has its vote, takes no other one.
    if (error.status === 404 || error.status === 409) done();
  }
  voting = false;
}

function reveal(told) {
  for (const side of SIDES) {
    part(side, "h2").textContent = `${TITLES[side]}: ${told[side].name}`;
    part(side, ".model").textContent = told[side].model;
    find(side).classList.toggle("better", told.vote === side);
  }
}

function done() {
  comparison = null;
  find("vote").hidden = true;
  find("asking").hidden = false;
  find("follow").hidden = !voted;
  find("follows").checked = false;
  field.focus();
}

for (const button of find("vote").children) {
  button.addEventListener("click", () => vote(button.dataset.vote));
}
document.addEventListener("keydown", (event) => {
  const verdict = KEYS[event.key];
  const elsewhere = event.altKey || event.ctrlKey || event.metaKey || event.target.matches("input, textarea, select");
  if (!comparison || !verdict || elsewhere || event.repeat) return;
  event.preventDefault();
  vote(verdict);
});

async function showRatings(how) {
  try {
    draw(await (await request(`${API}/ratings`, how)).json());
  } catch (error) {
    find("votes").textContent = said(error);
  }
}

function draw({ votes, ratings }) {
  find("votes").textContent = votes === 0 ? "No votes yet." : `${votes} ${votes === 1 ? "vote" : "votes"}. 400 points more are odds of ten to one.`;
  const ends = ratings.flatMap(({ rating, low, high }) => [rating, low ?? rating, high ?? rating]);
  const [least, most] = [Math.min(...ends, 900), Math.max(...ends, 1100)];
  const place = (value) => `${(100 * (value - least)) / (most - least)}%`;
  find("rows").replaceChildren(...ratings.map((one) => row(one, place)));
  find("table").hidden = ratings.length === 0;
}

function row({ name, model, rating, low, high, votes }, place) {
  const made = document.createElement("tr");
  const named = element("td", "name", name);
  named.append(element("span", "quiet", model));
  const bar = element("td", "bar");
  const track = element("span", "track");
  if (low !== null) {
    const interval = document.createElement("i");
    interval.style.left = place(low);
    interval.style.right = `calc(100% - ${place(high)})`;
    const point = document.createElement("b");
    point.style.left = place(rating);
    track.append(interval, point);
  }
  bar.append(track);
  const between = low === null ? "–" : `${Math.round(low)} to ${Math.round(high)}`;
  made.append(
    named,
    element("td", "number", low === null ? "–" : String(Math.round(rating))),
    element("td", "number", between),
    element("td", "number", String(votes)),
    bar,
  );
  return made;
}

await showRatings();
setInterval(() => { if (!document.hidden && !voting) showRatings({ quiet: true }); }, LOOK_AGAIN_MS);
