// Loaded into Azurite's process before Azurite itself (NODE_OPTIONS=--require). Azurite keeps its tables in memory and
// writes them every five seconds; what it acknowledged in between would be lost with a process that is killed.
"use strict";

// Azurite saves and ends at the first signal, but hears each kind once only: a second one would end it at once.
for (const signal of ["SIGTERM", "SIGINT"]) {
  process.on(signal, () => {});
}

const SHORTEST = 200; // milliseconds between two looks
const LONGEST = 5000; // Azurite's own interval
const SHARE = 10; // saving may take a tenth of the time, however large the tables are

function saveSoon(Loki) {
  Loki.prototype.autosaveEnable = function () {
    const database = this;
    database.autosave = true;
    function later(delay) {
      // 'autosaveDisable' takes this handle away when the database is closed.
      database.autosaveHandle = setTimeout(look, delay);
    }
    function look() {
      if (!database.autosaveDirty()) {
        later(SHORTEST);
        return;
      }
      const began = Date.now();
      database.saveDatabase(() => {
        if (database.autosaveHandle !== null) {
          later(Math.min(LONGEST, Math.max(SHORTEST, SHARE * (Date.now() - began))));
        }
      });
    }
    later(SHORTEST);
  };
}

const Module = require("node:module");
const load = Module._load;
Module._load = function (request, ...rest) {
  const found = load.call(this, request, ...rest);
  if (request === "lokijs") {
    Module._load = load;
    saveSoon(found);
  }
  return found;
};
