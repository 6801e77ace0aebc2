// One upload by tus-js-client. The argument: { file, endpoint, abortAt, from, previous, terminate, options }

import fs from "node:fs";
import { Readable } from "node:stream";
import { FileUrlStorage, Upload } from "tus-js-client";

import { report, watching, whenSent } from "./traffic.mjs";

const order = JSON.parse(process.argv[2]);
const size = fs.statSync(order.file).size;

async function* pieces() {
  for await (const piece of fs.createReadStream(order.file)) yield piece;
}

const sources = {
  file: () => fs.createReadStream(order.file),
  memory: () => fs.readFileSync(order.file),
  stream: () => Readable.from(pieces(), { objectMode: false }),
};

const options = {
  endpoint: order.endpoint,
  retryDelays: [0, 100, 500],
  ...(order.previous && { urlStorage: new FileUrlStorage(order.previous) }),
  ...order.options,
  ...watching,
};

const outcome = await new Promise((resolve, reject) => {
  let url = null;
  const upload = new Upload(sources[order.from ?? "file"](), {
    ...options,
    onError: reject,
    onUploadUrlAvailable: () => {
      url = upload.url;
    },
    onSuccess: () => resolve({ state: "done", url: upload.url }),
  });
  if (order.abortAt) {
    whenSent(size * order.abortAt, () => {
      upload.abort(order.terminate).then(() => resolve({ state: "aborted", url }), reject);
    });
  }
  if (order.previous) {
    upload.findPreviousUploads().then(([previous]) => {
      if (previous) upload.resumeFromPreviousUpload(previous);
      upload.start();
    }, reject);
  } else {
    upload.start();
  }
});
report(outcome);
