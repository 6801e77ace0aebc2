// Ways in: picker, folder, gallery, camera, drop and paste. Each gives files with the folders they were in; what was
// dropped with its handle, too, where there is one.

import { element } from "./words.js";

export function listen(form, take) {
  const zone = document.getElementById("zone");
  const picker = document.getElementById("picker");
  picker.required = false;
  takeFrom(picker, take);
  const ways = document.getElementById("ways");
  ways.append(...way("Choose a folder", "folder", { webkitdirectory: true, multiple: true }, take));
  const seen = (picker.accept || "image/*,video/*").split(",").filter((type) => /^(image|video)/.test(type)).join();
  if (seen) ways.append(...way("Photos and videos", "gallery", { accept: seen, multiple: true }, take));
  if (seen) ways.append(...way("Camera", "camera", { accept: seen }, take));
  zone.querySelector(".plain").textContent = ", drop them here, or paste";
  form.addEventListener("submit", (event) => event.preventDefault());
  drops(zone, take);
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length) take(files.map((file) => ({ file: named(file), folder: "" })));
  });
}

function way(text, kind, properties, take) {
  const input = element("input", { type: "file", className: "way", tabIndex: -1, ...properties });
  input.setAttribute("aria-hidden", "true");
  if (kind === "camera") input.setAttribute("capture", "environment"); // no property where there is no camera
  takeFrom(input, take);
  const button = element("button", { type: "button", className: kind }, text);
  button.addEventListener("click", () => input.click());
  return [button, input];
}

function takeFrom(input, take) {
  const chosen = () => {
    const found = [...input.files].map((file) => ({ file, folder: folderOf(file.webkitRelativePath) }));
    input.value = ""; // or the same file could not be chosen twice
    if (found.length) take(found);
  };
  input.addEventListener("change", chosen);
  chosen(); // what someone chose before this script had come
}

const folderOf = (path) => (path ? path.slice(0, Math.max(0, path.lastIndexOf("/"))) : "");

// What is pasted is called image.png, whatever it is.
function named(file) {
  if (file.name !== "image.png") return file;
  const stamp = new Date().toISOString().slice(0, 19).replace(/[:T]/g, "-");
  return new File([file], `pasted-${stamp}.png`, { type: file.type, lastModified: file.lastModified });
}

function drops(zone, take) {
  const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  let depth = 0;
  const show = () => zone.classList.toggle("over", depth > 0);
  document.addEventListener("dragenter", (event) => { if (hasFiles(event)) { depth += 1; show(); } });
  document.addEventListener("dragleave", (event) => { if (hasFiles(event)) { depth = Math.max(0, depth - 1); show(); } });
  document.addEventListener("dragover", (event) => { if (hasFiles(event)) event.preventDefault(); });
  document.addEventListener("drop", async (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    depth = 0;
    show();
    const items = [...event.dataTransfer.items].filter((item) => item.getAsFile()); // asked now: later it tells nothing
    const files = items.map((item) => ({ file: item.getAsFile(), folder: "", handle: item.getAsFileSystemHandle?.().catch(() => null) }));
    const entries = items.map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    const found = entries.some((entry) => entry.isDirectory) ? await walked(entries) : files;
    for (const each of found) each.handle = await each.handle;
    if (found.length) take(found);
  });
}

async function walked(entries) {
  const found = [];
  const waiting = entries.map((entry) => [entry, ""]);
  while (waiting.length) {
    const [entry, folder] = waiting.pop();
    if (entry.isFile) {
      found.push({ file: await new Promise((done, failed) => entry.file(done, failed)), folder });
      continue;
    }
    const reader = entry.createReader();
    const inside = folder ? `${folder}/${entry.name}` : entry.name;
    for (;;) { // a reader gives a hundred at a time
      const some = await new Promise((done, failed) => reader.readEntries(done, failed));
      if (!some.length) break;
      waiting.push(...some.map((each) => [each, inside]));
    }
  }
  return found;
}
