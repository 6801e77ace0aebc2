import "./copying.js";
import { begin as beginList } from "./list.js";
import { begin as beginUploads } from "./uploads.js";
import { localize } from "./words.js";

document.documentElement.classList.add("live");
localize(document);
const list = document.getElementById("files");
const files = list && beginList(list);
const form = document.getElementById("upload");
const unproven = "You are signed out. Load the page anew and sign in; then it goes on where it stopped, or does so once you choose the file again.";
if (form) beginUploads(form, { stored: () => files?.look(), unproven, lasting: !files });
const finder = document.getElementById("finder");
finder?.addEventListener("change", (event) => { if (event.target.matches("select")) finder.requestSubmit(); });
