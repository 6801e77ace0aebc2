import { announce, localize } from "./words.js";

localize(document);
const copy = document.getElementById("copy");
if (copy && navigator.clipboard) {
  copy.hidden = false;
  copy.addEventListener("click", async () => {
    await navigator.clipboard.writeText(copy.dataset.link);
    copy.textContent = "Copied";
    announce("The link is copied");
    setTimeout(() => { copy.textContent = "Copy link"; }, 2000);
  });
}
