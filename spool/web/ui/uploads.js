// Uploads by tus: each goes on where it stood, after a pause, a lost network, a killed server or a reload of the page.

import { announce, duration, element, ours, size } from "./words.js";
import { limitsOf, refusal } from "./refusals.js";
import { listen } from "./picking.js";

const AT_ONCE = 3;
const RETRIES = [0, 500, 1000, 2000, 4000, 8000, 15000, 15000, 15000, 15000];
const SPAN = 4000; // milliseconds over which speed is told
const FINAL = [400, 401, 403, 404, 405, 410, 412, 413, 415, 422, 460]; // another try would be answered the same

// `stored` gets each file that is there now, and where to delete it if that was told; `refused` is called when none is;
// `unproven` says what to do where the server no longer knows who sends.
export function begin(form, { stored, refused = () => {}, unproven }) {
  const uploads = new Uploads(document.getElementById("queue"), limitsOf(form), { endpoint: form.dataset.tus, stored, refused, unproven });
  uploads.remember().finally(() => listen(form, (found) => uploads.take(found))); // what is remembered is found, not shown twice
  window.addEventListener("online", () => uploads.wake());
  window.addEventListener("beforeunload", (event) => { if (uploads.running()) event.preventDefault(); });
  return uploads;
}

class Uploads {
  constructor(list, limits, site) {
    Object.assign(this, { list, limits, ...site, items: [], timer: null });
  }

  take(found) {
    for (const { file, folder } of found) {
      const known = this.items.find((item) => item.isRemembered(file));
      if (known) known.discard({ keep: true });
      const item = new Item(this, file, folder);
      this.items.push(item);
      this.list.append(item.row);
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

  drop(item) { this.items.splice(this.items.indexOf(item), 1); item.row.remove(); this.next(); }

  isOurs({ origin, pathname }) { return origin === location.origin && pathname.startsWith(`${this.endpoint}/`); }

  // Uploads of an earlier visit: the browser forgot their files, so that each has to be chosen again.
  async remember() {
    const found = await tus.defaultOptions.urlStorage.findAllUploads();
    for (const upload of found) {
      if (!upload.uploadUrl || !this.isOurs(new URL(upload.uploadUrl, location))) continue;
      const item = new Item(this, { name: upload.metadata.filename ?? "file", size: upload.size }, "");
      item.remembered = upload;
      item.tell("paused", `Not finished, ${size(upload.size)}. Choose the file again, and it goes on where it stopped.`);
      this.items.push(item);
      this.list.append(item.row);
    }
  }
}

class Item {
  constructor(uploads, file, folder) {
    Object.assign(this, { uploads, file, folder, state: "waiting", sent: 0, marks: [], remembered: null });
    this.bar = element("progress", { max: Math.max(1, file.size), value: 0 });
    this.bar.setAttribute("aria-label", `Progress of ${file.name}`);
    this.status = element("p", { className: "dim" }, `Waiting, ${size(file.size)}`);
    this.buttons = element("div", { className: "buttons" });
    this.row = element("li", {}, element("span", { className: "name" }, file.name), this.buttons, this.bar, this.status);
    this.offer();
  }

  isRemembered(file) {
    return this.remembered && this.remembered.metadata.filename === file.name && this.remembered.size === file.size;
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
      onUploadUrlAvailable: () => { this.upload.url = here(this.upload.url); },
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
    this.tell("paused", `Paused at ${size(this.sent)} of ${size(this.file.size)}`);
    this.uploads.next();
  }

  retry() { this.state = "waiting"; this.tell("waiting", "Waiting"); this.uploads.next(); }

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
    this.uploads.stored(this.file, answer?.getHeader("Link")?.match(/<([^>]+)>; rel="edit"/)?.[1]);
    setTimeout(() => this.uploads.drop(this), 4000);
    this.uploads.next();
  }

  // Takes the row away; the bytes that the server has go too, unless the upload is only to be shown anew.
  async discard({ keep = false } = {}) {
    const url = this.upload?.url ?? this.remembered?.uploadUrl;
    this.upload?.abort();
    this.uploads.drop(this);
    if (keep) return;
    if (this.remembered) tus.defaultOptions.urlStorage.removeUpload(this.remembered.urlStorageKey);
    if (url) await tus.Upload.terminate(url, { headers: ours(), retryDelays: RETRIES.slice(0, 3) }).catch(() => {});
    for (const each of (await this.upload?.findPreviousUploads()) ?? []) tus.defaultOptions.urlStorage.removeUpload(each.urlStorageKey);
  }

  tell(state, text) {
    this.state = state;
    this.status.textContent = text;
    this.status.className = state === "refused" || state === "failed" ? "wrong" : "dim";
    this.offer();
  }

  offer() {
    const held = this.buttons.contains(document.activeElement);
    const offers = {
      waiting: [["Cancel", () => this.discard()]],
      running: [["Pause", () => this.pause()], ["Cancel", () => this.discard()]],
      paused: this.remembered ? [["Discard", () => this.discard()]] : [["Resume", () => this.retry()], ["Cancel", () => this.discard()]],
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
const here = (url) => new URL(new URL(url, location).pathname, location).href;

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
