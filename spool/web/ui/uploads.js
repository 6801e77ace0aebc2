// Uploads by tus: each goes on where it stood, after a pause, a lost network, a killed server or a reload of the page.

import { announce, duration, element, ours, size } from "./words.js";
import { limitsOf, refusal } from "./refusals.js";
import { listen } from "./picking.js";
import { claim, find, forget, keep } from "./unfinished.js";

const AT_ONCE = 3;
const RETRIES = [0, 500, 1000, 2000, 4000, 8000, 15000, 15000, 15000, 15000];
const SPAN = 4000; // milliseconds over which speed is told
const FINAL = [400, 401, 403, 404, 405, 410, 412, 413, 415, 422, 460]; // another try would be answered the same

// `stored` gets each file that is there now, and where to delete it if that was told; `refused` is called when none is;
// `unproven` says what to do where the server no longer knows who sends. `lasting` is for who sees no list of what is stored.
export function begin(form, { stored, refused = () => {}, unproven, lasting = false }) {
  const uploads = new Uploads(document.getElementById("queue"), limitsOf(form), { endpoint: form.dataset.tus, stored, refused, unproven, lasting });
  uploads.remember();
  listen(form, (found) => uploads.take(found));
  window.addEventListener("online", () => uploads.wake());
  window.addEventListener("beforeunload", (event) => { if (uploads.running()) event.preventDefault(); });
  return uploads;
}

class Uploads {
  constructor(list, limits, site) {
    Object.assign(this, { list, limits, ...site, items: [], timer: null });
  }

  take(found) {
    for (const { file, folder, handle, known = this.items.find((item) => item.remembered && item.isOf(file)) } of found) {
      const item = new Item(this, file, folder, handle);
      known?.goOnAs(item);
      this.add(item);
      const why = refusal(file, this.limits);
      if (why) item.refuse(why);
    }
    this.next();
  }

  next() {
    let free = AT_ONCE - this.items.filter((item) => item.state === "running").length;
    for (const item of this.items) {
      if (free > 0 && item.state === "waiting") { item.start(); free -= 1; }
    }
    if (this.running() && !this.timer) this.timer = setInterval(() => this.tick(), 500);
  }

  tick() {
    for (const item of this.items) if (item.state === "running") item.show();
    if (!this.running()) { clearInterval(this.timer); this.timer = null; }
  }

  running() { return this.items.some((item) => item.state === "running" || item.state === "waiting"); }

  wake() { for (const item of this.items) if (item.state === "failed") item.retry(); }

  add(item) { this.items.push(item); this.list.append(item.row); }

  drop(item) { this.items.splice(this.items.indexOf(item), 1); item.row.remove(); this.next(); }

  isOurs({ origin, pathname }) { return origin === location.origin && pathname.startsWith(`${this.endpoint}/`); }

  // Uploads of an earlier visit, or of another tab once that is closed.
  async remember() {
    const found = await tus.defaultOptions.urlStorage.findAllUploads();
    for (const upload of found) {
      if (upload.uploadUrl && this.isOurs(new URL(upload.uploadUrl, location))) this.recall(upload);
    }
  }

  async recall(upload) {
    const { filename: name = "file", folder = "" } = upload.metadata;
    const item = new Item(this, { name, size: upload.size }, folder);
    const path = pathOf(upload.uploadUrl);
    Object.assign(item, { remembered: upload, path, claimed: claim(path), state: "paused" });
    await item.claimed;
    const kept = await find(item.path);
    const done = localStorage.getItem(upload.urlStorageKey) === null;
    const chosen = this.items.some((other) => !other.remembered && other.isOf(item.file));
    if (done || chosen || (kept && kept.who !== who())) { item.giveUp(); return; }
    item.handle = kept?.handle;
    this.add(item);
    await item.reopen(kept?.paused ? "paused" : item.handle?.queryPermission({ mode: "read" }));
  }
}

class Item {
  constructor(uploads, file, folder, handle) {
    Object.assign(this, { uploads, file, folder, handle, state: "waiting", sent: 0, marks: [], remembered: null, path: null, claimed: null });
    this.bar = element("progress", { max: Math.max(1, file.size), value: 0 });
    this.bar.setAttribute("aria-label", `Progress of ${file.name}`);
    this.status = element("p", { className: "dim" }, `Waiting, ${size(file.size)}`);
    this.buttons = element("div", { className: "buttons" });
    this.row = element("li", {}, element("span", { className: "name" }, file.name), this.buttons, this.bar, this.status);
    this.offer();
  }

  isOf({ name, size: length }) { return this.file.name === name && this.file.size === length; }

  // Goes on with a file of an earlier visit, if the browser can read it and `allowed` says so.
  async reopen(allowed) {
    try {
      if ((await allowed) === "granted") {
        const file = await this.handle.getFile();
        if (!this.isOf(file)) throw new Error("the file has changed");
        this.uploads.take([{ file, folder: this.folder, handle: this.handle, known: this }]);
        return;
      }
    } catch { this.handle = undefined; } // it is not where it was, or not what it was
    const how = this.handle ? "It goes on where it stopped; the browser may ask first." : "Choose the file again, and it goes on where it stopped.";
    this.tell("paused", `Not finished, ${size(this.file.size)}. ${how}`);
  }

  // What the server has of the upload is at this address, now or again.
  at(url) {
    this.upload.url = here(url);
    const path = pathOf(url);
    if (path !== this.path) {
      if (this.path) forget(this.path);
      this.giveUp();
      Object.assign(this, { path, claimed: claim(path) });
    }
    this.keep();
  }

  keep() { if (this.path) keep(this.path, { who: who(), handle: this.handle, paused: this.state === "paused" }); }

  // Whatever no other tab may go on with is another row's now.
  goOnAs(item) {
    Object.assign(item, { path: this.path, claimed: this.claimed });
    this.claimed = null;
    this.uploads.drop(this);
  }

  // Another tab may go on with it.
  giveUp() {
    this.claimed?.then((over) => over());
    this.claimed = null;
  }

  async start() {
    this.state = "running";
    this.offer();
    if (!this.upload) {
      this.upload = new tus.Upload(this.file, this.options());
      const [previous] = await this.upload.findPreviousUploads();
      if (previous) this.upload.resumeFromPreviousUpload(previous);
    }
    if (this.state !== "running") return;
    this.marks = [];
    this.upload.start();
    this.show();
  }

  options() {
    const metadata = { filename: this.file.name, ...(this.file.type && { filetype: this.file.type }) };
    return {
      endpoint: this.uploads.endpoint,
      headers: ours(),
      metadata: this.folder ? { ...metadata, folder: this.folder } : metadata,
      retryDelays: RETRIES,
      removeFingerprintOnSuccess: true,
      onShouldRetry: (error) => !FINAL.includes(error.originalResponse?.getStatus()),
      onUploadUrlAvailable: () => this.at(this.upload.url),
      onProgress: (sent) => this.progress(sent),
      onError: (error) => this.fail(error),
      onSuccess: ({ lastResponse }) => this.finish(lastResponse),
    };
  }

  progress(sent) {
    const now = performance.now();
    this.sent = sent;
    this.marks.push([now, sent]);
    while (this.marks.length > 2 && now - this.marks[0][0] > SPAN) this.marks.shift();
  }

  show() {
    this.bar.value = this.sent;
    const [first, last] = [this.marks[0], this.marks.at(-1)];
    const rate = first && last[0] > first[0] ? ((last[1] - first[1]) / (last[0] - first[0])) * 1000 : 0;
    const stalled = last && performance.now() - last[0] > 2 * SPAN;
    const pace = stalled ? "waiting for the server" : rate > 0 ? `${size(rate)}/s · ${duration((this.file.size - this.sent) / rate)} left` : "starting";
    this.status.textContent = `${size(this.sent)} of ${size(this.file.size)} · ${pace}`;
  }

  pause() {
    this.state = "paused";
    this.upload?.abort();
    this.keep();
    this.tell("paused", `Paused at ${size(this.sent)} of ${size(this.file.size)}`);
    this.uploads.next();
  }

  retry() { this.tell("waiting", "Waiting"); this.keep(); this.uploads.next(); }

  refuse(why) { this.tell("refused", why); announce(`${this.file.name}: ${why}`); }

  fail(error) {
    const status = error.originalResponse?.getStatus();
    const [refused, unproven] = [FINAL.includes(status), status === 401];
    const away = "The server cannot be reached. It goes on when you say so, or when the network is back.";
    const why = unproven ? this.uploads.unproven : refused ? reason(error) : away;
    this.tell(refused && !unproven ? "refused" : "failed", why);
    announce(`${this.file.name}: ${why}`);
    this.uploads.refused();
    this.uploads.next();
  }

  finish(answer) {
    this.bar.value = this.bar.max;
    this.tell("done", `Stored, ${size(this.file.size)}`);
    announce(`${this.file.name} is stored`);
    forget(this.path).then(() => this.giveUp());
    this.uploads.stored(this.file, answer?.getHeader("Link")?.match(/<([^>]+)>; rel="edit"/)?.[1]);
    if (!this.uploads.lasting) setTimeout(() => this.uploads.drop(this), 4000);
    this.uploads.next();
  }

  // Takes the row away, and the bytes that the server has.
  async discard() {
    const url = this.upload?.url ?? this.remembered?.uploadUrl;
    this.upload?.abort();
    this.uploads.drop(this);
    if (this.path) forget(this.path);
    if (this.remembered) tus.defaultOptions.urlStorage.removeUpload(this.remembered.urlStorageKey);
    if (url) await tus.Upload.terminate(url, { headers: ours(), retryDelays: RETRIES.slice(0, 3) }).catch(() => {});
    for (const each of (await this.upload?.findPreviousUploads()) ?? []) tus.defaultOptions.urlStorage.removeUpload(each.urlStorageKey);
    this.giveUp(); // last, or another tab would show it as unfinished
  }

  tell(state, text) {
    this.state = state;
    this.status.textContent = text;
    this.status.className = state === "refused" || state === "failed" ? "wrong" : "dim";
    this.offer();
  }

  offer() {
    const held = this.buttons.contains(document.activeElement);
    const again = this.handle ? [["Resume", () => this.reopen(this.handle.requestPermission({ mode: "read" }))]] : [];
    const offers = {
      waiting: [["Cancel", () => this.discard()]],
      running: [["Pause", () => this.pause()], ["Cancel", () => this.discard()]],
      paused: this.remembered ? [...again, ["Discard", () => this.discard()]] : [["Resume", () => this.retry()], ["Cancel", () => this.discard()]],
      failed: [["Retry", () => this.retry()], ["Cancel", () => this.discard()]],
      refused: [["Dismiss", () => this.discard()]],
      done: [],
    };
    this.buttons.replaceChildren(...offers[this.state].map(([text, act]) => {
      const button = element("button", { type: "button" }, text);
      button.setAttribute("aria-label", `${text} ${this.file.name}`);
      button.addEventListener("click", act);
      return button;
    }));
    if (held) this.buttons.querySelector("button")?.focus(); // the keyboard stays where it was
  }
}

// The upload at the origin by which the reader came: `server.base_url` may name another, to which no page of ours sends.
const here = (url) => new URL(pathOf(url), location).href;
const pathOf = (url) => new URL(url, location).pathname;

// Who is signed in, as the page says; of guests it says nothing.
const who = () => document.querySelector(".who")?.textContent ?? "";

// The sentence of the problem that the server answered with.
function reason(error) {
  try {
    const { detail, title } = JSON.parse(error.originalResponse.getBody());
    const text = detail || title;
    return `${text[0].toUpperCase()}${text.slice(1).replace(/\.$/, "")}.`;
  } catch {
    return "The server refused it.";
  }
}
