// A guest's page: uploads, what may still be sent, and what this browser has sent, which nobody else can tell.

import { Still } from "./still.js";
import { announce, element, localize, ours, size } from "./words.js";
import { forgetUnder } from "./unfinished.js";
import { begin } from "./uploads.js";

const KEY = `spool-sent ${location.pathname}`;
const MOST = 500; // receipts that are kept

document.documentElement.classList.add("live");
localize(document);
const list = document.getElementById("sent");
const form = document.getElementById("upload");
const news = document.getElementById("news");
const still = list && new Still(list);
let [timer, uploads] = [null, null];
if (list) start(); else if (document.getElementById("refusal")) forget();

function start() {
  for (const receipt of receipts()) show(receipt);
  list.addEventListener("submit", (event) => { event.preventDefault(); remove(event.target.closest("li"), event.target); });
  list.addEventListener("click", (event) => { if (event.detail > 1) event.preventDefault(); }); // a double click is one
  document.addEventListener("visibilitychange", () => { if (document.visibilityState === "visible") look(); });
  if (form) uploads = begin(form, { stored, refused: look, unproven: "The pass phrase is asked for again. Then it goes on." });
}

function receipts() {
  try { return JSON.parse(localStorage.getItem(KEY)) ?? []; } catch { return []; }
}

function keep(kept) {
  try {
    if (kept.length) localStorage.setItem(KEY, JSON.stringify(kept.slice(-MOST))); else localStorage.removeItem(KEY);
  } catch { /* a browser that keeps nothing: the page shows the file as long as it is open */ }
}

// One that says where to delete the file is told once, with the answer to the upload's last byte.
function stored(file, address) {
  const receipt = { name: file.name, size: file.size, at: new Date().toISOString(), delete: address && new URL(address, location).pathname };
  keep([...receipts(), receipt]);
  show(receipt);
  look();
}

function show(receipt) {
  const time = element("time", { dateTime: receipt.at });
  const about = element("div", { className: "about" }, element("span", { className: "name" }, receipt.name),
    element("p", { className: "dim" }, `${size(receipt.size)} · `, time));
  const row = element("li", {}, about);
  if (receipt.delete) {
    const button = element("button", { className: "danger" }, "Delete");
    button.setAttribute("aria-label", `Delete ${receipt.name}`);
    row.append(element("form", { method: "post", action: receipt.delete, className: "row-actions" }, button));
  }
  localize(row);
  list.prepend(row);
  still.came(row);
  list.closest("section").hidden = false;
}

// Rows of the server and of this script are deleted alike: by what their forms say.
async function remove(row, { action, elements }) {
  const name = row.querySelector(".name").textContent;
  try {
    const body = elements.namedItem("id") ? new URLSearchParams({ id: elements.namedItem("id").value }) : undefined;
    const answer = await fetch(action, { method: "POST", body, headers: { Accept: "text/html;q=0.1, application/json", ...ours() } });
    if (!answer.ok && answer.status !== 404) { announce(`${name} could not be deleted`); look(); return; }
    keep(receipts().filter((receipt) => receipt.delete !== new URL(action).pathname));
    const next = row.nextElementSibling ?? row.previousElementSibling;
    row.remove();
    announce(`${name} is deleted`);
    if (!next) list.closest("section").hidden = true;
    (next?.querySelector("button") ?? document.getElementById("picker"))?.focus();
  } catch { announce(`${name} could not be deleted: the server cannot be reached`); }
}

// Many files may be stored, or refused, within a moment; all guests of a link share its requests.
function look() {
  timer ??= setTimeout(() => { timer = null; read(); }, 500);
}

async function read() {
  try {
    const { status, told } = await ask(location.pathname);
    if (told.lock && !document.getElementById("lock")) lock(told.lock);
    else if (!told.lock) tell(status, told);
  } catch { /* the server is away; an upload tells of it */ }
}

// What the page says by now: what is left, that the pass phrase is asked for again, or why nothing can be sent.
async function ask(address, options = {}) {
  const answer = await fetch(address, { headers: { Accept: "text/html", ...ours() }, ...options });
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  localize(page);
  const told = ["bounds", "lock", "refusal"].map((id) => [id, page.getElementById(id) && document.adoptNode(page.getElementById(id))]);
  return { status: answer.status, told: Object.fromEntries(told) };
}

function tell(status, { bounds, refusal }) {
  if (bounds) document.getElementById("bounds").replaceWith(bounds);
  else if (refusal && [404, 410].includes(status)) end(refusal);
}

// The browser has lost what proved the pass phrase; uploads that wait for it go on by themselves.
function lock(section) {
  const held = [document.body, ...news.querySelectorAll("*")].includes(document.activeElement);
  const [field, entry] = [section.querySelector("#passphrase"), section.querySelector("form")];
  field.autofocus = false; // whoever is writing something is not taken away from it
  lower(section, "The pass phrase, please");
  news.replaceChildren(section);
  announce("The pass phrase is asked for again");
  if (held) field.focus();
  entry.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      const { status, told } = await ask(entry.action, { method: "POST", body: new URLSearchParams(new FormData(entry)) });
      if (told.lock) { lock(told.lock); return; }
      if (told.bounds) { news.replaceChildren(); document.getElementById("picker")?.focus(); uploads?.wake(); }
      else { entry.querySelector(".wrong")?.remove(); entry.append(element("p", { className: "wrong" }, told.refusal?.querySelector("p").textContent ?? "The server refused it.")); }
      tell(status, told);
    } catch { announce("The server cannot be reached"); }
  });
}

// A part of another page, under the heading of this one.
function lower(section, title) {
  const heading = section.querySelector("h1");
  heading.replaceWith(element("h2", {}, title ?? heading.textContent));
}

function end(refusal) {
  forget();
  lower(refusal);
  refusal.setAttribute("role", "alert");
  news.replaceChildren(refusal);
  document.getElementById("bounds").hidden = true;
  if (form) form.hidden = true;
  for (const button of list.querySelectorAll("button")) button.remove();
}

// A link that has ended leaves no secret behind.
function forget() {
  forgetUnder(location.pathname);
  for (const key of Object.keys(localStorage)) {
    if (key === KEY || (key.startsWith("tus::") && localStorage.getItem(key).includes(`${location.pathname}/tus/`))) localStorage.removeItem(key);
  }
}
