// What this process sends and is answered.

import diagnostics from "node:diagnostics_channel";

const sockets = [];
diagnostics.subscribe("net.client.socket", ({ socket }) => sockets.push(socket));

export const exchanges = [];

export const watching = {
  onAfterResponse(request, response) {
    exchanges.push({
      method: request.getMethod(),
      url: request.getURL(),
      from: request.getHeader("Upload-Offset") ?? null,
      status: response.getStatus(),
      offset: response.getHeader("Upload-Offset") ?? null,
      file: response.getHeader("Content-Location") ?? null,
    });
  },
};

function sent() {
  return sockets.reduce((sum, socket) => sum + socket.bytesWritten, 0);
}

// Calls once so many bytes are sent; the clients' own progress events are too far apart for this.
export function whenSent(bytes, callback) {
  if (sent() >= bytes) callback();
  else setImmediate(whenSent, bytes, callback);
}

export function report(outcome) {
  process.stdout.write(JSON.stringify({ ...outcome, exchanges, sent: sent() }), () => process.exit(0));
}
