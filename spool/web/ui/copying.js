// Buttons that copy an address: one that stands in the page, or that of a new link to a file.

import { announce, atBottom, element, localize, ours } from "./words.js";

document.documentElement.classList.add("live");
localize(document);
document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-copy], button[data-link]");
  if (button?.dataset.copy) copy(document.getElementById(button.dataset.copy), button);
  else if (button) link(button);
});

// Where a browser does not let a page copy, the address is selected, to be copied by hand.
async function copy(field, button) {
  field.select();
  try {
    await navigator.clipboard.writeText(field.value);
    if (button) flash(button);
    announce("Copied");
    return true;
  } catch {
    announce("The address is selected: copy it");
    return false;
  }
}

function flash(button) {
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
}

async function link(button) {
  const name = button.getAttribute("aria-label").replace("Copy link to ", "");
  button.disabled = true;
  try {
    const headers = { "Content-Type": "application/json", ...ours() };
    const answer = await fetch(`/files/${button.dataset.link}/links`, { method: "POST", headers, body: "{}" });
    if (!answer.ok) throw new Error(`answered with ${answer.status}`);
    await show(await answer.json(), name, button);
  } catch {
    announce("No link could be made");
    button.textContent = "Not made";
    setTimeout(() => { button.textContent = "Copy link"; }, 4000);
  } finally { button.disabled = false; }
}

async function show({ url, expires_at: until }, name, button) {
  document.getElementById("made")?.remove();
  const field = element("input", { value: url, readOnly: true, id: "made-address" });
  field.setAttribute("aria-label", `Link to ${name}`);
  const again = element("button", { type: "button" }, "Copy");
  again.dataset.copy = "made-address";
  const close = element("button", { type: "button" }, "Close");
  const told = element("p");
  const bar = element("div", { id: "made" }, told, element("div", { className: "address" }, field, again, close));
  bar.setAttribute("role", "group");
  bar.setAttribute("aria-label", `Link to ${name}`);
  const leave = () => { bar.remove(); button.focus(); };
  close.addEventListener("click", leave);
  bar.addEventListener("keydown", (event) => { if (event.key === "Escape") leave(); });
  atBottom(bar);
  const time = element("time", { dateTime: until });
  const copied = await copy(field);
  told.append(copied ? "Link copied. " : "Copy this link. ", "Whoever has it can download this file until ", time, ".");
  localize(told);
  announce(told.textContent);
  refresh();
}

// A page that lists the file's links lists the new one, too.
async function refresh() {
  const links = document.getElementById("links");
  if (!links) return;
  const answer = await fetch(location.pathname, { headers: { Accept: "text/html" }, redirect: "error" });
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("links");
  if (!fresh) return;
  localize(fresh);
  links.replaceWith(document.adoptNode(fresh));
}
