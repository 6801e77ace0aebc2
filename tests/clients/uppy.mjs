// Uploads by Uppy and its tus plugin. The argument: { files, endpoint, pauseAt, options }

import fs from "node:fs";
import path from "node:path";
import Uppy from "@uppy/core";
import Tus from "@uppy/tus";

import { report, watching, whenSent } from "./traffic.mjs";

const order = JSON.parse(process.argv[2]);
const uppy = new Uppy();
uppy.use(Tus, { endpoint: order.endpoint, retryDelays: [0, 100, 500], ...order.options, ...watching });
for (const file of order.files) {
  uppy.addFile({ name: path.basename(file), type: "application/octet-stream", data: fs.readFileSync(file) });
}

if (order.pauseAt) {
  const total = order.files.reduce((sum, file) => sum + fs.statSync(file).size, 0);
  whenSent(total * order.pauseAt, () => {
    uppy.pauseAll();
    setImmediate(() => uppy.resumeAll());
  });
}

const { successful, failed } = await uppy.upload();
report({
  urls: successful.map((file) => file.uploadURL),
  failed: failed.map((file) => String(file.error)),
});
