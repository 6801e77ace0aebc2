import "./copying.js";
