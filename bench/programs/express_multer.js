// express with multer's disk storage, as its README has it
const [port, directory] = process.argv.slice(2);
const express = require("express");
const multer = require("multer");

const app = express();
app.post("/", multer({ dest: directory }).single("file"), (request, response) => {
  response.status(201).send(request.file.filename);
});
app.listen(Number(port), "127.0.0.1");
